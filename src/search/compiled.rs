//! What searches of one library share: lines, workers, AFD units, prefill slots.
//!
//! The first three hang on the library alone, so those of the libraries searched last are kept for the next question
//! (other limits, another workload, a larger budget); prefill slots hang on their prompts, and workloads of one map
//! that differ in answers share them.
//!
//! Limit: kept by the library, a few of them: memory is let go of only when others push them out.

use std::sync::Arc;

use super::kept::Kept;
use super::sides::Prompts;
use crate::cost::{AfdUnit, Library, Tabulated, Worker};
use crate::error::Result;
use crate::recent::Recent;
use crate::spec::{AfdPlan, Parallel};

/// The libraries searched last, with what has been drawn of them.
static DRAWN: Recent<(Arc<Library>, Arc<Drawn>)> = Recent::new(6);

/// What has been drawn and compiled of a library.
#[derive(Default)]
struct Drawn {
    lines: Arc<Tabulated>,
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
    pub(crate) fn of(lib: &Arc<Library>) -> Arc<Compiled> {
        let drawn = DRAWN.find(|(l, _)| Arc::ptr_eq(l, lib)).map_or_else(
            || {
                let drawn = Arc::<Drawn>::default();
                DRAWN.keep((lib.clone(), drawn.clone()));
                drawn
            },
            |found| found.1,
        );
        Arc::new(Compiled { drawn, prompts: Kept::default() })
    }

    pub(crate) fn lines(&self) -> &Arc<Tabulated> {
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
