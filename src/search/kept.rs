//! What is made once for each key, by whoever asks first.
//!
//! Limit: nothing is dropped before the whole is, so memory grows with the keys that were asked for.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::error::Result;

/// What was made once for each key.
pub struct Kept<K, T>(Mutex<FxHashMap<K, Arc<T>>>);

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Kept(Mutex::default())
    }
}

impl<K: Eq + Hash, T> Kept<K, T> {
    /// Made outside the lock: two threads may make the same, and both get the same numbers.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        Ok(lock().entry(key).or_insert(made).clone())
    }
}
