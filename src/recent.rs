//! The values used last, for whoever asks the same again: the one used longest ago goes first.
//!
//! Limit: looked through one by one, so it is for a few.

use std::sync::{Mutex, PoisonError};

/// At most so many values, the last used at the end.
pub struct Recent<T> {
    most: usize,
    kept: Mutex<Vec<T>>,
}

impl<T: Clone> Recent<T> {
    pub(crate) const fn new(most: usize) -> Recent<T> {
        Recent { most, kept: Mutex::new(Vec::new()) }
    }

    /// The value that fits, if it is kept.
    pub(crate) fn find(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(fits)?;
        let found = kept.remove(at);
        kept.push(found.clone());
        Some(found)
    }

    /// Keeps a value, and lets go of the one used longest ago where there are too many.
    pub(crate) fn keep(&self, value: T) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= self.most {
            kept.remove(0);
        }
        kept.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_is_used_stays() {
        let recent = Recent::new(2);
        recent.keep(1);
        recent.keep(2);
        assert_eq!(recent.find(|v| *v == 1), Some(1));
        recent.keep(3);
        assert_eq!((recent.find(|v| *v == 2), recent.find(|v| *v == 1)), (None, Some(1)));
    }
}
