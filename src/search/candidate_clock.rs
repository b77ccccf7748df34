//! A layout with the clock it is searched by: lines where its steps add up, else the engine itself.
//!
//! Limit: scans in a closed loop at the workload's means; what leads is priced by the engine again.

use std::ops::Deref;
use std::sync::Arc;

use crate::serving::pd::{self, DecodeSide, PrefillSide, Several};
use crate::serving::{Load, Scan, SteadyState, StepEngine, Tables, aggregated};

/// A compiled layout. Reads as its step engine, which is exact; what it prices itself may be scanned.
pub struct CandidateClock {
    engine: Arc<StepEngine>,
    scan: Option<Scan>,
}

impl Deref for CandidateClock {
    type Target = StepEngine;

    fn deref(&self) -> &StepEngine {
        &self.engine
    }
}

impl CandidateClock {
    pub(crate) fn new(engine: StepEngine, tables: Option<&Arc<Tables>>) -> CandidateClock {
        let engine = Arc::new(engine);
        let scan = tables.and_then(|t| Scan::new(&engine, t));
        CandidateClock { engine, scan }
    }

    /// Whether what it prices is scanned.
    pub(crate) fn scans(&self) -> bool {
        self.scan.is_some()
    }

    pub(crate) fn mixed(&self, load: &Load, [batch, chunk, interval]: [u32; 3], count: u32) -> SteadyState {
        let (batch, chunk) = (f64::from(batch), f64::from(chunk));
        match &self.scan {
            Some(s) => aggregated::solve_paced(s, load, batch, chunk, count, interval),
            None => aggregated::solve_paced(&**self, load, batch, chunk, count, interval),
        }
    }

    pub(crate) fn prefill_side(&self, load: &Load, sequences: f64, chunk: f64) -> PrefillSide {
        match &self.scan {
            Some(s) => pd::prefill_side_by(s, load, sequences, chunk),
            None => pd::prefill_side(self, load, sequences, chunk),
        }
    }

    pub fn decode_side(&self, load: &Load, batch: f64) -> DecodeSide {
        match &self.scan {
            Some(s) => pd::decode_side_by(s, load, batch),
            None => pd::decode_side(self, load, batch),
        }
    }
}

/// Steady state of a prefill and a decode slot, by the clock of decode.
pub(crate) fn combine(
    prefill: Several<'_, CandidateClock, PrefillSide>,
    decode: Several<'_, CandidateClock, DecodeSide>,
    load: &Load,
) -> SteadyState {
    let (d, prefill) = (decode.one, Several::of(&**prefill.one, prefill.side, prefill.count));
    match &d.scan {
        Some(s) => pd::combine(prefill, Several::of(s, decode.side, decode.count), load),
        None => pd::combine(prefill, Several::of(&**d, decode.side, decode.count), load),
    }
}
