//! What searches of one library share: lines, workers, AFD units, prefill slots.
//!
//! The first three hang on the library alone, so those of the libraries searched last are kept for the next question
//! (other limits, another workload, a larger budget); prefill slots hang on their prompts, and workloads of one map
//! that differ in answers share them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::pairs::Prompts;
use crate::cost::{AfdUnit, Library, Lines, Worker};
use crate::error::Result;
use crate::spec::{AfdPlan, Parallel};

/// Libraries whose lines are kept; the one searched longest ago goes first.
const KEPT: usize = 6;

static DRAWN: Mutex<Vec<(Arc<Library>, Arc<Drawn>)>> = Mutex::new(Vec::new());

/// What has been drawn and compiled of a library.
#[derive(Default)]
struct Drawn {
    lines: Arc<Lines>,
    /// By width and whether two half-batches overlap.
    workers: Mutex<FxHashMap<(Parallel, bool), Arc<Worker>>>,
    /// By shape: layouts that differ in micro-batches share one.
    units: Mutex<FxHashMap<[u32; 6], Arc<AfdUnit>>>,
}

#[derive(Default)]
pub struct Compiled {
    drawn: Arc<Drawn>,
    pub(super) prompts: Mutex<BTreeMap<String, Arc<Prompts>>>,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Compiled {
    /// With what earlier searches of this library have drawn.
    pub fn of(lib: &Arc<Library>) -> Arc<Compiled> {
        let mut kept = lock(&DRAWN);
        let found = kept.iter().position(|(l, _)| Arc::ptr_eq(l, lib)).map(|i| kept.remove(i).1);
        let drawn = found.unwrap_or_default();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((lib.clone(), drawn.clone()));
        Arc::new(Compiled { drawn, prompts: Mutex::default() })
    }

    pub fn lines(&self) -> &Arc<Lines> {
        &self.drawn.lines
    }

    pub(super) fn worker(&self, lib: &Arc<Library>, parallel: Parallel, overlap: bool) -> Result<Arc<Worker>> {
        let key = (parallel, overlap);
        if let Some(worker) = lock(&self.drawn.workers).get(&key) {
            return Ok(worker.clone());
        }
        let made = Arc::new(Worker::overlapping(lib, parallel, overlap)?);
        Ok(lock(&self.drawn.workers).entry(key).or_insert(made).clone())
    }

    /// The unit of a plan; `shape`: what makes it that one.
    pub(super) fn unit(&self, lib: &Arc<Library>, shape: [u32; 6], plan: &AfdPlan) -> Result<Arc<AfdUnit>> {
        if let Some(unit) = lock(&self.drawn.units).get(&shape) {
            return Ok(unit.clone());
        }
        let made = Arc::new(AfdUnit::new(lib, lib, plan)?);
        Ok(lock(&self.drawn.units).entry(shape).or_insert(made).clone())
    }
}
