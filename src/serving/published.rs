//! Steps, pipelines and waiting as published planners compute them: the formulas behind the
//! switches of [`Assumptions`](crate::spec::Assumptions).
//!
//! `paper`: the public code behind arXiv 2605.28302; `cycle`: aiconfigurator 0.12. To be compared
//! with the schedule, not preferred to it.
//!
//! Limit: formulas as published, errors included; nothing here is part of `Assumptions::physical`.

use super::pipeline::Stages;

/// The paper's first formula, from stage sums (over all layers) measured at the FULL batch:
/// t = sum / M + (M - 1)/M max.
pub fn pipeline_v1(sums: [f64; 4], m: u32) -> f64 {
    let (total, most) = (sums.iter().sum::<f64>(), largest(sums));
    let m = f64::from(m.max(1));
    total / m + (m - 1.0) / m * most
}

/// The paper's second formula, from stage sums at the MICRO-batch: t = M s_max + (others) / L. One
/// micro-batch alone is the plain sum, as that code's later test has it. Exact for
/// M s_max >= sum s, too small below (M of 2 or 3 with even stages).
pub fn pipeline_v2(sums: [f64; 4], m: u32, layers: u32) -> f64 {
    let total: f64 = sums.iter().sum();
    if m <= 1 {
        return total;
    }
    let most = largest(sums);
    f64::from(m) * most + (total - most) / f64::from(layers.max(1))
}

/// The same before that test: one micro-batch costs its slowest stage and the fill.
pub fn pipeline_v2_before(sums: [f64; 4], m: u32, layers: u32) -> f64 {
    let most = largest(sums);
    f64::from(m.max(1)) * most + (sums.iter().sum::<f64>() - most) / f64::from(layers.max(1))
}

/// aiconfigurator's cycle from layer times. Communication hides (max(A, F, X + Y)) when
/// M >= 2 + C / max(A, F); else max(A + X, F + Y). One micro-batch is serial.
pub(crate) fn cycle(layer: &Stages, m: u32) -> f64 {
    let Stages { attention: a, a2f: x, ffn: f, f2a: y, .. } = *layer;
    if m <= 1 {
        a + f + x + y
    } else if f64::from(m) >= 2.0 + (x + y) / a.max(f) {
        a.max(f).max(x + y)
    } else {
        (a + x).max(f + y)
    }
}

/// aiconfigurator's decode step: one fill and M L - 1 cycles.
pub fn cycle_step(layer: &Stages, m: u32, layers: u32) -> f64 {
    layer.sum() + cycle(layer, m) * (f64::from(m.max(1)) * f64::from(layers) - 1.0)
}

/// aiconfigurator's prefill: L cycles, one shot, however many micro-batches.
pub(crate) fn cycle_prefill(layer: &Stages, m: u32, layers: u32) -> f64 {
    cycle(layer, m) * f64::from(layers)
}

fn largest(sums: [f64; 4]) -> f64 {
    sums.into_iter().fold(0.0, f64::max)
}

/// Factor on TTFT for waiting in chunked prefill: 2 + (steps - 3)/20, at most 4. `steps` finish the
/// prompts of one full batch: 1.9 at 1, 2.35 at 10, 3.0 at 23, 4.0 from 43 on.
pub fn ttft_factor(steps: f64) -> f64 {
    (2.0 + (steps - 3.0) / 20.0).min(4.0)
}

/// Factor on the prefill time of P/D.
pub const PD_TTFT_FACTOR: f64 = 1.8;
/// Corrections of P/D workers: prefill time, decode time, and the shares of their rates that count.
pub const PREFILL_CORRECTION: f64 = 1.1;
pub const DECODE_CORRECTION: f64 = 1.08;
pub const PREFILL_SHARE: f64 = 0.9;
pub const DECODE_SHARE: f64 = 0.92;

/// Steps of one full batch under chunked prefill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCount {
    /// Steps that finish all prompts, and so are mixed.
    pub mixed: f64,
    /// Those that count in TPOT (three fewer).
    pub mixed_for_tpot: f64,
    /// Sequences that decode in a mixed step.
    pub decoding: f64,
    /// Steps of decode alone.
    pub decode: f64,
}

/// Counts them for `batch` prompts of `prompt` tokens (cached ones included) under a budget of
/// `chunk` tokens, `osl` tokens out.
pub fn count_steps(batch: f64, prompt: f64, chunk: f64, osl: f64) -> StepCount {
    if batch <= 1.0 {
        let mixed = 1.0;
        return StepCount { mixed, mixed_for_tpot: 1.0, decoding: 0.0, decode: (osl - 1.0).max(0.0) };
    }
    let mixed = (prompt * batch / chunk).ceil();
    let (decoding, decode) = if mixed >= osl {
        ((batch / (mixed / osl)).floor().max(1.0), 0.0)
    } else {
        ((batch - (chunk / prompt).ceil()).max(0.0), osl - mixed)
    };
    StepCount { mixed, mixed_for_tpot: (mixed - 3.0).max(1.0), decoding, decode }
}

impl StepCount {
    /// Mean time between tokens, and the time of the whole batch.
    pub(crate) fn times(&self, mixed_s: f64, decode_s: f64) -> (f64, f64) {
        let tpot = (mixed_s * self.mixed_for_tpot + decode_s * self.decode) / (self.mixed_for_tpot + self.decode);
        (tpot, mixed_s * self.mixed + decode_s * self.decode)
    }
}

/// Tokens and past of one micro-batch of AFD prefill "as one sequence": `sequences` prompts of `new`
/// tokens over `past`, cut in `m`. Below `m` sequences the quotient is 0 and the past is gone.
pub fn one_sequence(sequences: f64, new: f64, past: f64, m: u32) -> (f64, f64) {
    let tokens = (sequences * new / f64::from(m.max(1))).floor().max(1.0);
    (tokens, past * (tokens / new.max(1.0)).floor())
}
