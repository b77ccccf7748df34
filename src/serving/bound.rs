//! What a slot of P/D gives alone: bounds on a plan before its two slots are put together.
//!
//! `pd::combine` takes min(supply, demand, wire) for the rate. KV on the ports of a slot only lengthens
//! its round (`Shared::seconds` is at least that of the slot alone), so nP mu_P and nD mu_D of the slots
//! alone bound the rate from above; TTFT is a factor of at least 1 times that round, and a wait of at
//! least 0. The memory of a slot knows nothing of the other. Nothing is said of TPOT: a slow prefill
//! lets decode run smaller batches. Limits: closed loop.

use std::sync::Arc;

use super::engine::{choose_decode, choose_prefill};
use super::steady_state::Load;
use crate::cost::Library;
use crate::error::Result;
use crate::spec::{Slot, Workload};

/// One worker or unit of a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotBound {
    /// Requests per second at most.
    pub rate: f64,
    /// TTFT at least; 0 for decode.
    pub ttft_s: f64,
    pub memory_bytes: f64,
    /// Whether it does not fit into memory.
    pub short: bool,
    pub gpus: u32,
}

/// Of the prefill slot; the plan must have passed its check.
pub(crate) fn prefill_slot(lib: &Arc<Library>, workload: &Workload, slot: &Slot) -> Result<SlotBound> {
    let (engine, _, side, _) = choose_prefill(lib, workload, &Load::of(workload), slot)?;
    Ok(SlotBound {
        rate: side.rate,
        ttft_s: side.prefill.latency_s,
        memory_bytes: side.memory_bytes,
        short: side.short.is_some(),
        gpus: engine.gpus(),
    })
}

/// Of the decode slot; an answer of one token is no work for it.
pub(crate) fn decode_slot(lib: &Arc<Library>, workload: &Workload, slot: &Slot) -> Result<SlotBound> {
    let load = Load::of(workload);
    let (engine, _, _, side) = choose_decode(lib, workload, &load, slot)?;
    Ok(SlotBound {
        rate: if load.osl > 1.0 { side.rate } else { f64::INFINITY },
        ttft_s: 0.0,
        memory_bytes: side.memory_bytes,
        short: side.short.is_some(),
        gpus: engine.gpus(),
    })
}
