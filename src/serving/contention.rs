//! KV on its way beside the steps of both slots of P/D, on the same ports, in steady state.
//!
//! A step of `T` seconds keeps a port of a KV-holding GPU busy for `b` seconds in phases of n flows; KV needs
//! the port for `rho` seconds a second. While both are there, max-min fairness leaves the phase n/(n+1):
//!
//! ```text
//! crowded step      T_c = T + sum b/n           (worker; an AFD unit: its schedule with longer hops)
//! left to KV        g = 1 - b/T_c
//! KV present        q = min(1, rho/g) at one GPU; P = 1 - (1-q)^N at one of the N that wait for each other
//! step              T + P (T_c - T)
//! KV transfer       bytes / (links x rate x g_prefill x g_decode)
//! ```
//!
//! KV into decode shares its NIC with what comes in there (dispatch, combine; of AFD only F2A), out of
//! prefill with what leaves (AFD: A2F). P is a chord: KV transfers last many phases, so a step is crowded or
//! not. Directions and tiers are kept apart. Source: max-min fairness over ports (network.md
//! section 4.5), held against the fluid engine in the tests. Limits: one KV flow a port at a time; KV arrives
//! independently at the GPUs; two-batch overlap and half duplex hide none of the extra.

use super::stages::Extra;
use super::step_engine::{EngineKind, Prefill, StepEngine, Unit};
use crate::cost::program::{DRAFT_MIXER, Ffn};
use crate::cost::{Batch, StepPorts, draft};

/// Least share of a port that KV gets, however busy it is: one flow among the many of a phase.
const LEAST_SHARE: f64 = 0.02;

/// Directions that KV takes through the ports of a slot: in, out.
pub type Ways = [bool; 2];

/// One tier of a slot's ports under its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Crowd {
    /// Seconds of the step that the slot's own bytes keep the port, in and out.
    pub busy_s: [f64; 2],
    /// The step when a KV flow is there throughout.
    pub crowded_s: f64,
}

/// Scale-up, scale-out.
pub type Crowds = [Crowd; 2];

/// What KV and steps do to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    /// The step with KV on its way as often as it is.
    pub seconds: f64,
    /// Share of its port that KV gets, in and out.
    pub share: [f64; 2],
}

impl Crowd {
    /// A step of `alone_s` when KV needs the port for `rho` (in, out) seconds a second at each of `gpus`
    /// GPUs that wait for one another.
    pub fn shared(&self, alone_s: f64, rho: [f64; 2], gpus: f64) -> Shared {
        let crowded = self.crowded_s.max(alone_s).max(f64::MIN_POSITIVE);
        let share = self.busy_s.map(|b| (1.0 - b / crowded).clamp(LEAST_SHARE, 1.0));
        let anywhere = |i: usize| {
            let q = (rho[i] / share[i]).min(1.0);
            // Precise where q is tiny: 1 - (1-q)^N.
            -(gpus * (-q).ln_1p()).exp_m1()
        };
        let present = anywhere(0).max(anywhere(1));
        Shared { seconds: alone_s + present * (crowded - alone_s), share }
    }
}

fn longest(ports: &StepPorts, tier: usize, ways: Ways) -> f64 {
    (0..2).filter(|i| ways[*i]).map(|i| ports.tiers[tier][i].extra_s).fold(0.0, f64::max)
}

fn crowds(ports: &StepPorts, crowded_s: impl Fn(usize) -> f64) -> Crowds {
    std::array::from_fn(|tier| Crowd {
        busy_s: std::array::from_fn(|i| ports.tiers[tier][i].busy_s),
        crowded_s: crowded_s(tier),
    })
}

/// Of a decode step of `batch` sequences per rank that takes `alone_s`.
pub fn decode(s: &StepEngine, batch: f64, context: f64, alone_s: f64, ways: Ways) -> Crowds {
    let b = Batch::decode(batch, context, 1.0 + f64::from(s.library().serving.mtp));
    match &s.kind {
        EngineKind::Worker(w, _) => {
            let mut ports = StepPorts::default();
            w.price(&b, &mut ports);
            crowds(&ports, |tier| alone_s + longest(&ports, tier, ways))
        }
        EngineKind::Afd(u) => {
            let parts = u.parts(&b);
            let beside: Vec<Beside> = besides(u, &parts);
            crowds(&total(u, &parts, &beside), |tier| {
                let step = u.schedule_beside(&parts, u.overlapped, |i| beside[i].extra(tier, ways));
                alone_s.max(step)
            })
        }
    }
}

/// Of a prefill round: its latency and ports; the period stretches as the latency does.
pub(crate) fn prefill(
    s: &StepEngine,
    round: &Prefill,
    sequences: f64,
    lengths: [f64; 2],
    chunk: f64,
    ways: Ways,
) -> Crowds {
    let [isl, prefix] = lengths;
    let parts = s.prefill_parts(sequences, isl, prefix, chunk);
    match &s.kind {
        EngineKind::Worker(w, _) => {
            // Chunks are equal but for their past, and a past moves nothing.
            let mut one = StepPorts::default();
            w.price(&parts[parts.len() / 2], &mut one);
            let ports = StepPorts::default().plus(&one, parts.len() as f64);
            crowds(&ports, |tier| round.latency_s + longest(&ports, tier, ways))
        }
        EngineKind::Afd(u) => {
            let beside: Vec<Beside> = besides(u, &parts);
            crowds(&total(u, &parts, &beside), |tier| {
                let step = u.round_beside(&parts, |i| beside[i].extra(tier, ways));
                round.latency_s.max(step)
            })
        }
    }
}

/// Ports of the attention GPUs under one micro-batch, by stage of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beside {
    attention: StepPorts,
    a2f: StepPorts,
    f2a: StepPorts,
    dense: StepPorts,
}

impl Beside {
    fn extra(&self, tier: usize, ways: Ways) -> Extra {
        let of = |p: &StepPorts| longest(p, tier, ways);
        Extra { attention: of(&self.attention), a2f: of(&self.a2f), f2a: of(&self.f2a), dense: of(&self.dense) }
    }
}

fn besides(u: &Unit, parts: &[Batch]) -> Vec<Beside> {
    let mut out: Vec<Beside> = Vec::with_capacity(parts.len());
    for (i, b) in parts.iter().enumerate() {
        if i > 0 && *b == parts[i - 1] {
            out.push(out[i - 1]);
            continue;
        }
        let mut x = Beside::default();
        // What crosses the ports hangs on tokens, not on the mixer.
        u.unit.price_attention(b, DRAFT_MIXER, &mut x.attention);
        u.unit.hops().price(b, false, &mut x.a2f);
        u.unit.hops().price(b, true, &mut x.f2a);
        if u.program().layers_with(Ffn::Dense) > 0.0 {
            u.unit.price_dense(b, DRAFT_MIXER, &mut x.dense);
            if u.unit.dense_on_ffn {
                u.unit.hops().price_home(b, false, &mut x.dense);
                u.unit.hops().price_home(b, true, &mut x.dense);
            }
        }
        out.push(x);
    }
    out
}

fn total(u: &Unit, parts: &[Batch], beside: &[Beside]) -> StepPorts {
    let [dense, moe] = [Ffn::Dense, Ffn::Experts].map(|ffn| u.program().layers_with(ffn));
    let mtp = u.unit.library().serving.mtp;
    parts.iter().zip(beside).fold(StepPorts::default(), |sum, (b, x)| {
        // Draft passes are layers with fewer rows.
        let drafts: f64 =
            draft::passes(mtp, b).into_iter().map(|(d, n)| n * d.tokens() / b.tokens().max(f64::MIN_POSITIVE)).sum();
        // Those of a dense model are dense layers.
        let (moe, dense) = if moe > 0.0 { (moe + drafts, dense) } else { (0.0, dense + drafts) };
        let layers = moe;
        sum.plus(&x.attention, layers).plus(&x.a2f, layers).plus(&x.f2a, layers).plus(&x.dense, dense)
    })
}
