//! What searches of one library share: lines, workers, AFD units, prefill slots.
//!
//! The first three hang on the library alone, so those of the libraries searched last are kept for the next question
//! (other limits, another workload, a larger budget); prefill slots hang on their prompts, and workloads of one map
//! that differ in answers share them.

use std::sync::{Arc, Mutex, PoisonError};

use super::kept::Kept;
use super::sides::Prompts;
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
    workers: Kept<(Parallel, bool), Worker>,
    /// By shape: layouts that differ in micro-batches share one.
    units: Kept<[u32; 6], AfdUnit>,
}

pub struct Compiled {
    drawn: Arc<Drawn>,
    pub(super) prompts: Kept<String, Prompts>,
}

impl Compiled {
    /// With what earlier searches of this library have drawn.
    pub fn of(lib: &Arc<Library>) -> Arc<Compiled> {
        let mut kept = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|(l, _)| Arc::ptr_eq(l, lib)).map(|i| kept.remove(i).1);
        let drawn = found.unwrap_or_default();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((lib.clone(), drawn.clone()));
        Arc::new(Compiled { drawn, prompts: Kept::default() })
    }

    pub fn lines(&self) -> &Arc<Lines> {
        &self.drawn.lines
    }

    pub(super) fn worker(&self, lib: &Arc<Library>, parallel: Parallel, overlap: bool) -> Result<Arc<Worker>> {
        self.drawn.workers.get((parallel, overlap), || Worker::overlapping(lib, parallel, overlap))
    }

    /// The unit of a plan; `shape`: what makes it that one.
    pub(super) fn unit(&self, lib: &Arc<Library>, shape: [u32; 6], plan: &AfdPlan) -> Result<Arc<AfdUnit>> {
        self.drawn.units.get(shape, || AfdUnit::new(lib, lib, plan))
    }
}
