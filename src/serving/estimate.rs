//! What an engine says about its plan in single values: rates, latencies, costs, and how well they are known.
//!
//! Limit: means and shares of a steady state; percentiles of requests are the study's (`queueing`) and the simulator's.

mod intervals;
mod tables;
mod told;

pub use self::intervals::{Ends, Intervals};
pub use self::tables::breakdown_columns;
use self::told::ToldStep;
pub use self::told::{BarRow, MemoryRow, StageRow, Tables};
use super::defaults;
use super::domain_fit;
use super::engine::{Compiled, Engine};
use super::phase::StepKind;
use super::queueing;
use super::residuals::CHANCE;
use super::steady_state::Binding;
use super::step_engine::{EngineKind, StepEngine};
use crate::cost::Batch;
use crate::error::{Error, Result};
use crate::kernels::{CLASSES, Evidence};
use crate::spec::{Framework, Rules};
use crate::units::GIB;

pub use super::operators::BreakdownRow;

/// A struct that tells Python what its fields are: their documentation by name.
macro_rules! told {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $(#[serde($($how:tt)*)])? pub $field:ident: $kind:ty, )*
        }
    ) => {
        $(#[$about])*
        pub struct $name {
            $( $(#[doc = $doc])+ $(#[serde($($how)*)])? pub $field: $kind, )*
        }

        impl $name {
            /// What each field is, line by line.
            pub const FIELDS: &'static [(&'static str, &'static [&'static str])] =
                &[$( (stringify!($field), &[$($doc),+]) ),*];
        }
    };
}

told! {
    /// Scalars of an estimate; frames beside them.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Scalars {
        /// ``aggregated``, ``pd``, ``aggregated+afd`` or ``pd+afd``.
        pub level: String,
        /// Name of the model.
        pub model: String,
        /// The system preset.
        pub system: String,
        /// Framework whose kernels were used.
        pub framework: Framework,
        /// Name of the workload.
        pub workload: String,
        /// Whether the plan fits into memory and meets what was asked.
        pub feasible: bool,
        /// What limits it: ``ttft``, ``tpot``, ``memory:<pool>``, ``bandwidth:<port>`` ...
        pub binding: String,
        /// Time to first token, milliseconds: what an SLO limits. As the client sees it; with
        /// ``Assumptions(request_path='service')`` that of the steps which serve a request.
        pub ttft_ms: f64,
        /// The same without what a request waits for outside of the steps that serve it (`ttft_path_ms`).
        pub ttft_service_ms: f64,
        /// Those waits by name, milliseconds.
        pub ttft_path_ms: Shares,
        /// Part of `ttft_ms` under ``load=`` that is waiting: step in flight, prefill, seat; 0 in a closed loop.
        pub wait_ms: f64,
        /// Name of the queueing formula behind `wait_ms`; None in a closed loop.
        pub queueing: Option<&'static str>,
        /// Mean time between later tokens of one request, milliseconds.
        pub tpot_ms: f64,
        /// Intervals that hold what is measured with a chance of 80 %, by figure.
        pub intervals: Intervals,
        /// Longest time between two tokens, milliseconds.
        pub itl_worst_ms: f64,
        /// Finished requests per second.
        pub requests_per_s: f64,
        /// Output tokens per second of the whole deployment.
        pub tokens_per_s: f64,
        /// Output tokens per second and GPU of the budget.
        pub tokens_per_s_per_gpu: f64,
        /// Output tokens per second of one user: 1000 / tpot_ms.
        pub tokens_per_s_per_user: f64,
        /// Requests in flight.
        pub concurrency: f64,
        /// GPUs of the budget.
        pub gpus: u32,
        /// GPUs of the plan; the rest of the budget idles and is counted.
        pub gpus_used: u32,
        /// US dollars per million output tokens.
        pub usd_per_mtok: f64,
        /// Power of all GPUs at their board limit, watts.
        pub watts: f64,
        /// Power that all GPUs draw at this load, watts: by tokens a rank and step and by the time in which it has steps
        /// to run, as measured servers do. No host, no network.
        pub watts_drawn: f64,
        /// Energy per output token at `watts_drawn`, joules.
        pub joules_per_token: f64,
        /// Whether the workload is longer than the model's context.
        pub context_exceeded: bool,
        /// Whether a released server starts the plan, which one, and the rules that it breaks.
        #[serde(flatten)]
        pub verdict: crate::spec::Verdict,
        /// Memory per GPU of the fullest pool, GiB.
        pub memory_gib: f64,
        /// KV tokens that fit one attention rank as its server is set up, whatever the plan's batch.
        pub kv_tokens: f64,
        /// Requests of the workload's lengths that fit the whole deployment at a time.
        ///
        /// Whole sequences on every attention rank, all replicas, workers and units together; of P/D the decode slot's,
        /// of AFD the attention pool's. More requests wait outside.
        pub max_sequences: f64,
        /// Sequences of a decode step, per attention rank.
        pub decode_batch: f64,
        /// Share of the time behind TTFT per class.
        ///
        /// ``measured`` and ``interpolated`` rest on rows of the device's own tables, ``scaled`` on rows of the device
        /// that a what-if device stands on, ``extrapolated`` goes beyond them, ``roofline`` has none.
        pub evidence_ttft: Shares,
        /// Share of the time behind TPOT per class, as `evidence_ttft`; empty where nothing is decoded.
        pub evidence_tpot: Shares,
        /// Share per class of all a request pays for: prefill and decode of P/D together, the mean step of others.
        ///
        /// A long prefill hides a decode step here: how well a latency is known say `evidence_ttft` and `evidence_tpot`.
        pub evidence: Shares,
        /// As `evidence`, of computing alone, without communication.
        pub compute_evidence: Shares,
        /// Measured or interpolated share of the less known of TTFT and TPOT.
        pub measured_share: f64,
        /// The same of computing alone.
        pub compute_measured_share: f64,
        /// Which implementation of the expert layers was taken, by phase.
        pub lanes: Vec<String>,
        /// Number format of each part in force, and whether it was asked for, the checkpoint's or the server's.
        pub formats: std::collections::BTreeMap<&'static str, String>,
        /// Which tables answer: their version, and imports in front of them.
        pub kernels: String,
        /// What should be known, in words.
        pub warnings: Vec<String>,
    }
}

/// An estimate: single values and tables. What it is of, the engine says: its plan with every choice made, and its
/// library with the assumptions.
pub struct Estimate {
    pub scalars: Scalars,
    pub tables: Tables,
}

/// Shares by the name of the class.
pub type Shares = std::collections::BTreeMap<&'static str, f64>;

const KINDS: [Evidence; CLASSES] =
    [Evidence::Measured, Evidence::Interpolated, Evidence::Scaled, Evidence::Extrapolated, Evidence::Roofline];

/// Shares of each evidence class, `scaled` only where there is any; empty where there is no time at all.
pub(crate) fn shares(seconds: &[f32; CLASSES]) -> Shares {
    let all: f64 = seconds.iter().copied().map(f64::from).sum();
    let share = |e: Evidence| (e.name(), f64::from(seconds[e as usize]) / all);
    let told = |e: &Evidence| *e != Evidence::Scaled || seconds[*e as usize] > 0.0;
    if all > 0.0 { KINDS.into_iter().filter(told).map(share).collect() } else { Shares::new() }
}

impl Engine {
    /// Everything there is to say about the plan.
    ///
    /// # Errors
    /// If the workload is longer than the model's context and asks for an error then.
    pub fn estimate(&self) -> Result<Estimate> {
        Ok(Estimate { scalars: self.scalars()?, tables: self.tables() })
    }

    /// Whether requests of this length may be priced, and how far they go beyond the model's context, in words.
    ///
    /// # Errors
    /// If they go beyond it and the workload asks for an error then.
    pub(crate) fn context_exceeded(&self) -> Result<Option<String>> {
        let (peak, most) = (self.workload.peak_tokens(), self.library().model.max_context);
        if peak <= f64::from(most) {
            return Ok(None);
        }
        let text = format!(
            "context_exceeded: {peak:.0} tokens on a model trained for {most}; times beyond the tables are extrapolated"
        );
        if self.workload.strict_context {
            return Err(Error::spec("workload", text, "leave strict_context off to price it all the same"));
        }
        Ok(Some(text))
    }

    /// What is said of the plan in single values.
    ///
    /// # Errors
    /// As [`Engine::estimate`].
    pub(crate) fn scalars(&self) -> Result<Scalars> {
        let lib = self.library();
        let mut warnings = Vec::new();
        let exceeded = self.context_exceeded()?;
        let context_exceeded = exceeded.is_some();
        warnings.extend(exceeded);
        warnings.extend(domain_fit::warning(&self.plan, &lib.cluster));
        warnings.extend(self.what_if()?);
        // Of a round of prompts the middle chunk.
        let lane_of = |s: ToldStep<'_>| lane(s.kind, s.engine, s.batches.get(s.batches.len() / 2)?);
        let lanes = self.told().into_iter().filter_map(lane_of).collect();
        let gpus = lib.cluster.gpus;
        let tokens = self.tokens_per_s();
        let (_, watts) = self.bill();
        let user = if self.point.tpot_s > 0.0 { 1.0 / self.point.tpot_s } else { f64::NAN };
        let known = &self.point.evidence;
        let pooled = match &self.compiled {
            Compiled::Pd { .. } => known.pooled(),
            Compiled::Mixed { .. } if self.point.decode_batch > 0.0 => known.tpot,
            Compiled::Mixed { .. } => known.ttft,
        };
        let intervals = self.intervals(CHANCE);
        Ok(Scalars {
            level: self.plan.level().name().to_string(),
            model: lib.model.name.clone(),
            system: lib.cluster.system.clone(),
            framework: lib.framework,
            workload: self.workload.name.clone(),
            feasible: self.point.stands(),
            binding: if self.point.binding == Binding::None { String::new() } else { self.point.binding.label() },
            ttft_ms: self.point.ttft_s * 1e3,
            ttft_service_ms: self.point.service_ttft_s() * 1e3,
            ttft_path_ms: self.point.path.terms().into_iter().map(|(op, s)| (op.name(), s * 1e3)).collect(),
            wait_ms: self.open_loop.map_or(0.0, |(_, wait)| wait * 1e3),
            queueing: self.open_loop.map(|_| queueing::FORMULA),
            tpot_ms: self.point.tpot_s * 1e3,
            intervals,
            itl_worst_ms: self.point.itl_worst_s * 1e3,
            requests_per_s: self.point.requests_per_s,
            tokens_per_s: tokens,
            tokens_per_s_per_gpu: tokens / f64::from(gpus),
            tokens_per_s_per_user: user,
            concurrency: self.point.concurrency,
            gpus,
            gpus_used: self.gpus(),
            usd_per_mtok: self.usd_per_mtok(),
            watts,
            watts_drawn: self.watts_drawn(),
            joules_per_token: self.joules_per_token(),
            context_exceeded,
            verdict: self.verdict()?,
            memory_gib: self.point.memory_bytes / GIB,
            kv_tokens: self.kv_tokens(),
            max_sequences: self.max_sequences(),
            decode_batch: self.point.decode_batch,
            evidence_ttft: shares(&known.ttft.all),
            evidence_tpot: shares(&known.tpot.all),
            evidence: shares(&pooled.all),
            compute_evidence: shares(&pooled.compute),
            measured_share: known.share(),
            compute_measured_share: known.compute_share(),
            lanes,
            formats: defaults::provenance(lib),
            kernels: lib.tables.clone(),
            warnings,
        })
    }
}

impl Engine {
    /// What stands in for measurements of the plan's devices, each in words.
    fn what_if(&self) -> Result<Vec<String>> {
        let lib = self.library();
        let roles = self.plan.hardware();
        let pools = roles.iter().map(|r| r.device);
        let mut out: Vec<String> = Vec::new();
        for device in std::iter::once(None).chain(pools) {
            out.extend(lib.on(device)?.what_if().filter(|w| !out.contains(w)));
        }
        Ok(out)
    }

    /// Whether a released server of the framework whose kernels price starts the plan.
    pub(crate) fn verdict(&self) -> Result<crate::spec::Verdict> {
        let lib = self.library();
        Ok(Rules::new(lib.framework, None, &lib.model, &lib.cluster)?.verdict(&self.plan))
    }
}

fn lane(phase: StepKind, s: &StepEngine, batch: &Batch) -> Option<String> {
    match &s.kind {
        EngineKind::Worker(w, _) => w.lane(batch).map(|l| format!("{}: {}", phase.name(), l.name())),
        EngineKind::Afd(u) => {
            let also = |n: u32, what: &str| if n > 1 { format!(", {n} {what}") } else { String::new() };
            let (groups, stages) = (also(u.unit.groups, "attention groups"), also(u.sequence.pp, "pipeline stages"));
            Some(format!("{}: AFD, {} micro-batches{groups}{stages}", phase.name(), u.microbatches))
        }
    }
}
