//! Computation and communication side by side: two half-batches, and exchanges fused into the GEMMs.
//!
//! Two-batch overlap: the halves of a step take turns, one computing while the other communicates.
//! A layer is attention A, dispatch X, experts E, combine Y; the order on the SMs is A1 A2 E1 E2, on
//! the wire X1 X2 Y1 Y2. That ring's period is the sum of four slots in which one computes while
//! the other sends,
//!
//! ```text
//! T = s(A, Y) + s(A, X) + s(E, X) + s(E, Y),     s(c, d) = max(d, c + d (1 - 1/k))
//! ```
//!
//! with k >= 1 how much slower the SMs compute while a communication kernel holds some of them
//! (k = 1: plain max; the max-plus recurrence of the ring is the twin in the tests). Each stage is
//! priced at the half-batch: weights are read twice, which is why small batches lose.
//! Source of the schedule: SGLang two-batch overlap (lmsys.org, 2025-05-05).
//!
//! Limit: two half-batches of equal size; SMs that communication takes are those of published kernels (`FUSED_SMS`,
//! `COMM_SMS`) on every device.

use super::library::Library;
use crate::network::A2aKind;
use crate::spec::Device;

/// SMs that a fused dispatch keeps for communication: 24 of 148 (FastAFD, haoailab.com, 2026-07).
const FUSED_SMS: f64 = 24.0;
/// SMs of DeepEP's normal kernels by default; assumed of collectives and one-sided kernels too.
const COMM_SMS: f64 = 20.0;

/// SMs of a device, by generation: 132 on Hopper SXM, 148 on Blackwell (vendor data sheets).
fn sms(device: &Device) -> f64 {
    if device.sm >= 100 { 148.0 } else { 132.0 }
}

/// How much slower GEMMs run beside a dispatch fused into them.
pub fn fused_slowdown(lib: &Library) -> f64 {
    let n = sms(&lib.cluster.device);
    n / (n - FUSED_SMS)
}

/// Seconds of experts in one kernel with their exchange, which take `experts` as separate kernels: less what stands
/// `between` those beside reading and computing, and slower by the SMs that the exchange has, but for the seconds that HBM
/// needs for the weights.
pub fn beside_exchange(experts: f64, reads: f64, between: f64, slowed: f64) -> f64 {
    let reads = reads.min(experts);
    reads + ((experts - between).max(reads) - reads) * slowed
}

/// How much slower SMs compute while this exchange is under way; none: a collective.
/// Low-latency kernels are issued by hooks and leave the SMs alone while the wire works.
pub(crate) fn slowdown(lib: &Library, kind: Option<A2aKind>) -> f64 {
    let n = sms(&lib.cluster.device);
    match kind {
        Some(A2aKind::LowLatency) => 1.0,
        _ => n / (n - COMM_SMS),
    }
}

/// One half computes for `c`, the other communicates for `d`.
fn slot(c: f64, d: f64, slowed: f64) -> f64 {
    d.max(c + d * (1.0 - 1.0 / slowed))
}

/// Seconds of both halves through one layer in the steady state of the ring.
pub(crate) fn two_batches(attention: f64, out: f64, experts: f64, back: f64, slowed: f64) -> f64 {
    slot(attention, back, slowed)
        + slot(attention, out, slowed)
        + slot(experts, out, slowed)
        + slot(experts, back, slowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring itself: two halves, two servers, fixed order on each.
    fn recurrence(a: f64, x: f64, e: f64, y: f64) -> f64 {
        let layers = 64;
        let (mut sm, mut wire) = (0.0_f64, 0.0_f64);
        let mut done = [0.0_f64; 2];
        let mut at = Vec::new();
        for _ in 0..layers {
            let mut attended = [0.0; 2];
            for i in 0..2 {
                sm = sm.max(done[i]) + a;
                attended[i] = sm;
            }
            let mut arrived = [0.0; 2];
            for i in 0..2 {
                wire = wire.max(attended[i]) + x;
                arrived[i] = wire;
            }
            let mut computed = [0.0; 2];
            for i in 0..2 {
                sm = sm.max(arrived[i]) + e;
                computed[i] = sm;
            }
            for i in 0..2 {
                wire = wire.max(computed[i]) + y;
                done[i] = wire;
            }
            at.push(done[1]);
        }
        (at[layers - 1] - at[layers - 25]) / 24.0
    }

    #[test]
    fn four_slots_are_the_ring() {
        let times = [0.0, 0.3, 1.0, 2.2, 5.0];
        for a in times {
            for x in times {
                for e in times {
                    for y in times {
                        let (form, ring) = (two_batches(a, x, e, y, 1.0), recurrence(a, x, e, y));
                        assert!((form - ring).abs() < 1e-9, "{a} {x} {e} {y}: {form} against {ring}");
                    }
                }
            }
        }
    }

    #[test]
    fn lent_sms_only_slow() {
        assert_eq!(slot(3.0, 2.0, 1.0), 3.0);
        assert!((slot(3.0, 2.0, 2.0) - 4.0).abs() < 1e-12, "two seconds at half speed do one second's work");
        assert_eq!(slot(1.0, 5.0, 1.25), 5.0);
    }
}
