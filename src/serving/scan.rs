//! Step times from lines (`cost::piecewise`): the clock of a search that scans, ten to twenty times the engine's speed.
//!
//! A scan says where to look; whatever is reported is priced by the engine again. Lines exist where the parts of
//! a step add up; where an assumption mixes them (published step counts and pipeline formulas, prompts cut as one
//! sequence, attention by name, one-link hops, whole FFN pools), [`Tables::new`] gives none and the search asks the
//! engine. Error bound, held in tests/rust/scan.rs
//! over random layouts, batches, chunks, models, frameworks and switches: rate, TTFT, TPOT and ITL within 0.1 %
//! of the engine's in 99 of 100 points (median 2e-6) and within 1 % in every one, the worst beside a jump of a
//! table (rows at 256 and 257 tokens).
//!
//! Limit: a closed loop on packed GPUs; at most 512 ranks, and no assumption that mixes the parts of a step.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::layer_sequence::MOST_ROWS;
use super::pipeline::Stages;
use super::steady_state::Load;
use super::step_clock::{Carried, StepClock, Untold};
use super::step_engine::{EngineKind, Prefill, StepEngine, StepTime, Unit};
use crate::cost::afd::{AfdLines, LayerStages, rows};
use crate::cost::ledger::Seconds;
use crate::cost::piecewise::Tabulated;
use crate::cost::program::MOST_MIXERS;
use crate::cost::worker::WorkerLines;
use crate::cost::{Batch, Lengths, Library, Total};
use crate::math::normal;
use crate::spec::Workload;
use crate::spec::assumptions::{
    Copies, FarExchange, FfnPool, MixedAttention, MixedSteps, PipelineFormula, PrefillSplit, WideEpDecode,
};

/// A round of prompts on one width of attention: its shape, sequences and tokens of a chunk, chunks.
type Round = ([u32; 3], u64, u64, u32);

/// The lines of one library and workload, shared by all its layouts.
#[derive(Debug)]
pub struct Tables {
    lines: Arc<Tabulated>,
    attention: Tabulated,
    lengths: Lengths,
    /// Attention kernels of the chunks of a round, chunk by chunk and kind by kind.
    rounds: Mutex<FxHashMap<Round, Arc<[f64]>>>,
}

/// More ranks than any search has.
const MOST_RANKS: f64 = 512.0;

/// Whether steps of this library are sums of lines.
pub fn tabulates(lib: &Library) -> bool {
    let a = &lib.assumptions;
    a.mixed_steps == MixedSteps::SteadyState
        && a.pipeline_formula == PipelineFormula::Schedule
        && a.prefill_split == PrefillSplit::Chunks
        && a.mixed_attention == MixedAttention::Counted
        && a.ffn_pool == FfnPool::Spread
        && a.copies != Copies::OneLink
        && a.far_exchange == FarExchange::Law
        && a.wide_ep_decode == WideEpDecode::Whole
}

impl Tables {
    /// None where the steps of this library are no sums. `lines`: of this library.
    pub fn new(lib: &Library, workload: &Workload, lines: &Arc<Tabulated>) -> Option<Tables> {
        if !tabulates(lib) {
            return None;
        }
        let load = Load::of(workload);
        let mut longest = load.context;
        if lib.assumptions.attention_barrier {
            let most = load.context + workload.slot_load_std() * normal::expected_max(MOST_RANKS);
            longest = most.min(workload.peak_tokens().max(load.context));
        }
        Some(Tables {
            lines: lines.clone(),
            attention: Tabulated::default(),
            lengths: Lengths { prefix: load.prefix, isl: load.isl, context: load.context, longest },
            rounds: Mutex::default(),
        })
    }

    /// Lines kept, and the bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let (a, b) = (self.lines.size(), self.attention.size());
        (a.0 + b.0, a.1 + b.1)
    }

    fn round(&self, key: Round, make: impl FnOnce() -> Vec<f64>) -> Arc<[f64]> {
        let lock = || self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return found.clone();
        }
        let made: Arc<[f64]> = make().into();
        lock().entry(key).or_insert(made).clone()
    }
}

#[derive(Debug)]
enum Of {
    Worker(Box<WorkerLines>),
    Afd(Box<AfdLines>),
}

/// A step engine read from lines.
pub struct Scan {
    engine: Arc<StepEngine>,
    tables: Arc<Tables>,
    of: Of,
}

impl Scan {
    /// None for an AFD unit whose stages are no sums of lines.
    pub fn new(engine: &Arc<StepEngine>, tables: &Arc<Tables>) -> Option<Scan> {
        let (lines, attention, lengths) = (&tables.lines, &tables.attention, tables.lengths);
        let of = match &engine.kind {
            EngineKind::Worker(w, _) => Of::Worker(Box::new(WorkerLines::new(w, lines, attention, lengths))),
            EngineKind::Afd(u) if u.unit.tabulates() && !u.sequence.half_duplex => {
                Of::Afd(Box::new(AfdLines::new(&u.unit, lines, attention, lengths, u.microbatches)))
            }
            EngineKind::Afd(_) => return None,
        };
        Some(Scan { engine: engine.clone(), tables: tables.clone(), of })
    }

    fn step(&self, b: &Batch, rest: bool) -> StepTime<Untold> {
        let seconds = match (&self.of, &self.engine.kind) {
            (Of::Worker(w), _) => w.step(b, rest),
            (Of::Afd(lines), EngineKind::Afd(u)) => {
                let prompts = lines.prompts(b, rest);
                let pass = fastest(u, |slowed| {
                    let mut parts = Parts::default();
                    u.for_each_part(b, |part| parts.push(&part, || stages(u, lines, &part, prompts, slowed)));
                    [parts.pass(u, u.overlapped)]
                })[0];
                let mut hop = 0.0_f64;
                if u.sequence.pp > 1 {
                    u.for_each_part(b, |part| hop = hop.max(u.stage_hop(&part).seconds));
                }
                f64::from(u.sequence.pp) * (pass + hop)
            }
            (Of::Afd(_), EngineKind::Worker(..)) => f64::NAN,
        };
        StepTime { seconds, work: Untold }
    }
}

impl StepClock for Scan {
    type StepWork = Untold;

    const TOLERANCE: f64 = 1e-4;

    fn engine(&self) -> &StepEngine {
        &self.engine
    }

    fn mixed(&self, batch: &Batch, carried: Carried) -> StepTime<Untold> {
        self.step(batch, carried == Carried::Rest)
    }

    fn decode(&self, batch: f64, context: f64) -> StepTime<Untold> {
        self.step(&Batch::decode(batch, context, 1.0 + f64::from(self.engine.library().serving.mtp)), false)
    }

    fn prefill(&self, sequences: f64, isl: f64, prefix: f64, chunk: f64) -> Prefill {
        let parts = self.engine.prefill_parts(sequences, isl, prefix, chunk);
        let (first, n) = (parts[0], parts.len());
        let chunks = (isl / first.new).round().max(1.0);
        // Groups of sequences, if there are several, repeat the same chunks.
        let each = (chunks as usize).clamp(1, n);
        let key = |w: [u32; 3]| (w, first.sequences.to_bits(), first.new.to_bits(), each as u32);
        let mut out = Prefill {
            latency_s: 0.0,
            period_s: 0.0,
            requests: sequences * self.engine.ranks(),
            chunks,
            together: first.sequences,
            work: Total::default(),
        };
        match (&self.of, &self.engine.kind) {
            (Of::Worker(lines), EngineKind::Worker(w, _)) => {
                let p = &w.parallel;
                let width = lines.width();
                let which = key([p.tp, p.cp, 2 * u32::from(w.overlaps())]);
                let kernels =
                    self.tables.round(which, || parts.iter().flat_map(|b| lines.prompt_kernels(w, b)).collect());
                let mut slowest = 0.0_f64;
                for (b, kernels) in parts.iter().zip(kernels.chunks(width)) {
                    let t = lines.chunk(b, kernels);
                    out.period_s += t;
                    slowest = slowest.max(t);
                }
                out.latency_s = out.period_s + (f64::from(p.pp) - 1.0) * slowest;
            }
            (Of::Afd(lines), EngineKind::Afd(u)) => {
                let mixers = lines.mixers();
                let kernels = self.tables.round(key([u.unit.attention_tp, 1, 1]), || {
                    parts[..each].iter().flat_map(|b| u.unit.prompt_kernels(b)).collect()
                });
                // A wave of micro-batches, alone and overlapped with the next.
                let pass = |from: usize, wave: &[Batch]| {
                    let [alone, overlapped] = fastest(u, |slowed| {
                        let mut all = Parts::default();
                        for (i, b) in wave.iter().enumerate() {
                            let at = (from + i) % each * mixers;
                            let mut prompts = [0.0; MOST_MIXERS];
                            prompts[..mixers].copy_from_slice(&kernels[at..at + mixers]);
                            all.push(b, || stages(u, lines, b, prompts, slowed));
                        }
                        [all.pass(u, false), if u.overlapped { all.pass(u, true) } else { f64::INFINITY }]
                    });
                    let hop = u.hop_seconds(wave);
                    [alone + hop, overlapped + hop]
                };
                // With one stage all micro-batches are one wave.
                let wave = if u.sequence.pp == 1 { n } else { u.wave() };
                let mut alone = Vec::with_capacity(n.div_ceil(wave));
                for (k, of) in parts.chunks(wave).enumerate() {
                    let [t, overlapped] = pass(k * wave, of);
                    out.period_s += overlapped.min(t);
                    alone.push(t);
                }
                out.latency_s = u.through(alone.into_iter());
            }
            _ => {}
        }
        out
    }
}

/// Steps with the hops on their own or, where there is such a kernel, inside the FFN stage: of each the faster.
fn fastest<const N: usize>(u: &Unit, steps: impl Fn(Option<f64>) -> [f64; N]) -> [f64; N] {
    let plain = steps(None);
    if u.unit.slowed.is_none() {
        return plain;
    }
    let fused = steps(u.unit.slowed);
    std::array::from_fn(|i| plain[i].min(fused[i]))
}

/// Stages of one micro-batch, row by row.
type PartStages = [Stages; MOST_ROWS];

/// Those of a micro-batch whose prompt kernels take `prompts`; `slowed`: with the hops inside the FFN stage.
fn stages(u: &Unit, lines: &AfdLines, b: &Batch, prompts: [f64; MOST_MIXERS], slowed: Option<f64>) -> PartStages {
    let mut out = PartStages::default();
    let mtp = u.unit.library().serving.mtp;
    rows(&lines.with_prompts(prompts), u.program(), mtp, b, |row, s: LayerStages<Seconds>, own, _| {
        out[u.sequence.row(row)] = u.stages_of(row, &s, own.0, slowed);
    });
    out
}

/// Stage times of micro-batches; equal ones once.
#[derive(Default)]
struct Parts {
    n: usize,
    first: PartStages,
    last: Option<Batch>,
    /// All of them, once two have differed.
    all: Vec<PartStages>,
    drafts: bool,
}

impl Parts {
    fn push(&mut self, part: &Batch, stages: impl FnOnce() -> PartStages) {
        self.drafts |= part.decode > 0.0;
        if self.n == 0 {
            self.first = stages();
        } else if self.last.as_ref() != Some(part) {
            let n = self.n;
            if self.all.is_empty() {
                self.all.resize(n, self.first);
            }
            self.all.push(stages());
        } else if let Some(s) = self.all.last().copied() {
            self.all.push(s);
        }
        self.n += 1;
        self.last = Some(*part);
    }

    fn pass(&self, u: &Unit, overlapped: bool) -> f64 {
        let rows = u.sequence.rows();
        if self.all.is_empty()
            && let Some(t) = u.sequence.uniform(&self.first, self.drafts, self.n, overlapped)
        {
            return t;
        }
        let mut all = vec![Stages::default(); rows * self.n];
        for i in 0..self.n {
            let part = self.all.get(i).unwrap_or(&self.first);
            part[..rows].iter().enumerate().for_each(|(row, stages)| all[row * self.n + i] = *stages);
        }
        let rows = u.sequence.assemble(|row| &all[row * self.n..][..self.n], self.drafts);
        u.sequence.slowest_stage(&rows, overlapped)
    }
}
