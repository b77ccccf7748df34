//! One priced plan, small enough to keep hundreds of thousands of them.
//!
//! Limit: single precision where only ratios are read; a row alone cannot be explained, its engine has to be compiled
//! again.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::columns::{Column, Columns};
use crate::serving::{Binding, SteadyState};
use crate::spec::plan::{Duplex, PipelineMode, Side};
use crate::spec::rules::Shape;
use crate::spec::{AfdPlan, Aggregated, Framework, Level, Parallel, PdPlan, Plan, PoolPlan, Slo, Slot, Workers};
use crate::units::GIB;

/// The shape of one worker or one AFD unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// `overlap`: whether two half-batches may overlap.
    Worker { parallel: Parallel, overlap: bool },
    /// `pp`: stages, each with both pools.
    Afd { attention_gpus: u32, tp: u32, ffn_gpus: u32, ep: u32, moe_tp: u32, microbatches: u32, groups: u32, pp: u32 },
}

impl Layout {
    pub fn gpus(&self) -> u32 {
        match self {
            Layout::Worker { parallel, .. } => parallel.gpus(),
            Layout::Afd { attention_gpus, ffn_gpus, pp, .. } => (attention_gpus + ffn_gpus) * pp,
        }
    }

    /// How it is cut, as far as the rules of servers care.
    pub fn shape(&self) -> Shape {
        match *self {
            // A worker says itself how many ranks share its experts.
            Layout::Worker { parallel, .. } => crate::spec::rules::Layout::shape(&parallel, 0),
            Layout::Afd { attention_gpus, tp, ep, moe_tp, groups, pp, .. } => {
                Shape { tp, dp: (attention_gpus / tp / groups).max(1), cp: 1, pp, ep, moe_tp }
            }
        }
    }

    pub fn is_afd(&self) -> bool {
        matches!(self, Layout::Afd { .. })
    }

    /// Micro-batches of a unit; a worker takes its batch whole.
    pub fn microbatches(&self) -> u32 {
        match self {
            Layout::Worker { .. } => 1,
            Layout::Afd { microbatches, .. } => *microbatches,
        }
    }

    pub fn afd_plan(&self, units: u32, batch: u32, chunk: Option<u32>) -> Option<AfdPlan> {
        let Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp } = *self else {
            return None;
        };
        Some(AfdPlan {
            attention: PoolPlan { gpus: attention_gpus, tp, ep: None, moe_tp: 1, device: None },
            ffn: PoolPlan { gpus: ffn_gpus, tp: 1, ep: Some(ep), moe_tp, device: None },
            microbatches: Some(microbatches),
            batch: Some(batch),
            chunk_tokens: chunk,
            pipeline: PipelineMode::Overlapped,
            duplex: Duplex::Full,
            router: Side::Attention,
            shared_expert: Side::Ffn,
            dense: Side::Attention,
            prereduce: false,
            placement: None,
            attention_groups: groups,
            pp,
            prefill_interval: None,
            units,
        })
    }
}

/// One slot of a deployment: a layout, its batch, its chunk budget (0: none) and how many of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub layout: Layout,
    pub batch: u32,
    pub chunk: u32,
    pub count: u32,
    /// Steps between two that let prompts in, where prompts and decode share them; else 1.
    pub interval: u32,
}

impl Part {
    pub(crate) fn gpus(&self) -> u32 {
        self.layout.gpus() * self.count
    }

    fn slot(&self) -> Slot {
        let chunk = (self.chunk > 0).then_some(self.chunk);
        match self.layout {
            Layout::Worker { parallel, overlap } => Slot::Workers(Workers {
                two_batch_overlap: overlap.then_some(true),
                count: self.count,
                parallel,
                batch: Some(self.batch),
                chunk_tokens: chunk,
                device: None,
            }),
            Layout::Afd { .. } => match self.layout.afd_plan(self.count, self.batch, chunk) {
                Some(a) => Slot::Afd(a),
                None => unreachable!("the arm is an AFD layout"),
            },
        }
    }
}

/// One priced plan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub level: Level,
    /// Index into the study's frameworks.
    pub framework: u8,
    /// The deployment, or its decode slot.
    pub main: Part,
    pub prefill: Option<Part>,
    pub point: SteadyState,
    /// Whether the point was read from lines (serving::scan), not priced by the engine.
    pub scanned: bool,
    /// Whether it leads its level on its framework (search::leaders).
    pub leads: bool,
}

impl Row {
    /// Every step is what servers do anyhow.
    fn cadence(&self) -> Option<u32> {
        (self.main.interval > 1).then_some(self.main.interval)
    }

    pub fn gpus(&self) -> u32 {
        self.main.gpus() + self.prefill.map_or(0, |p| p.gpus())
    }

    /// The plan in full.
    pub fn plan(&self) -> Plan {
        match (self.prefill, self.main.slot()) {
            (Some(p), decode) => Plan::Pd(PdPlan { prefill: p.slot(), decode }),
            (None, Slot::Workers(w)) => Plan::Aggregated(Aggregated {
                parallel: w.parallel,
                batch: w.batch,
                chunk_tokens: w.chunk_tokens,
                replicas: w.count,
                two_batch_overlap: w.two_batch_overlap,
                prefill_interval: self.cadence(),
            }),
            (None, Slot::Afd(a)) => Plan::Afd(AfdPlan { prefill_interval: self.cadence(), ..a }),
        }
    }
}

/// Columns of points, in the names of the public contract.
/// `limits`: that a row must keep, by framework and level.
pub(crate) fn columns(
    rows: &[Row],
    frameworks: &[Framework],
    system: &str,
    osl: f64,
    gpus: u32,
    limits: &Array2<Slo>,
) -> Columns {
    let binding = |r: &Row| r.point.binding_under(&limits[[usize::from(r.framework), r.level.index()]]);
    let mut c = Columns::new();
    let int = |f: &dyn Fn(&Row) -> u32| Column::I64(rows.iter().map(|r| i64::from(f(r))).collect());
    let float = |f: &dyn Fn(&Row) -> f64| Column::F64(rows.iter().map(f).collect());
    let split = |layout: &Layout| match *layout {
        Layout::Worker { parallel, .. } => parallel,
        Layout::Afd { tp, attention_gpus, ep, moe_tp, pp, .. } => {
            Parallel { tp, dp: attention_gpus / tp, pp, cp: 1, ep: Some(ep), moe_tp }
        }
    };
    let none = Parallel { tp: 0, dp: 0, pp: 0, cp: 0, ep: Some(0), moe_tp: 0 };
    let parallel = |r: &Row| split(&r.main.layout);
    let prefill_parallel = |r: &Row| r.prefill.map_or(none, |p| split(&p.layout));
    let afd = |p: &Part| match p.layout {
        Layout::Afd { attention_gpus, ffn_gpus, tp, microbatches, .. } => (attention_gpus, ffn_gpus, tp, microbatches),
        Layout::Worker { .. } => (0, 0, 0, 0),
    };
    let groups = |p: &Part| if let Layout::Afd { groups, .. } = p.layout { groups } else { 0 };
    let ep = |p: &Parallel| p.ep();
    c.push(
        "level",
        Column::Cat {
            codes: rows.iter().map(|r| r.level as i32).collect(),
            labels: Level::NAMES.iter().map(|l| (*l).to_string()).collect(),
        },
    );
    c.push(
        "framework",
        Column::Cat {
            codes: rows.iter().map(|r| i32::from(r.framework)).collect(),
            labels: frameworks.iter().map(|f| f.name().to_string()).collect(),
        },
    );
    c.push("system", Column::Cat { codes: vec![0; rows.len()], labels: vec![system.to_string()] });
    c.push("gpus", Column::I64(vec![i64::from(gpus); rows.len()]));
    c.push("gpus_used", int(&Row::gpus));
    c.push("tp", int(&|r| parallel(r).tp));
    c.push("dp", int(&|r| parallel(r).dp));
    c.push("pp", int(&|r| parallel(r).pp));
    c.push("ep", int(&|r| ep(&parallel(r))));
    c.push("moe_tp", int(&|r| parallel(r).moe_tp));
    c.push("attention_gpus", int(&|r| afd(&r.main).0));
    c.push("ffn_gpus", int(&|r| afd(&r.main).1));
    c.push("attention_tp", int(&|r| afd(&r.main).2));
    c.push("microbatches", int(&|r| afd(&r.main).3));
    c.push("attention_groups", int(&|r| groups(&r.main)));
    c.push("batch", int(&|r| r.main.batch));
    c.push("chunk_tokens", int(&|r| r.prefill.map_or(r.main.chunk, |p| p.chunk)));
    c.push("prefill_interval", int(&|r| if r.prefill.is_none() { r.main.interval } else { 1 }));
    let overlaps = |p: &Part| matches!(p.layout, Layout::Worker { overlap: true, .. });
    c.push("two_batch_overlap", Column::Bool(rows.iter().map(|r| overlaps(&r.main)).collect()));
    c.push("prefill_workers", int(&|r| r.prefill.map_or(0, |p| p.count)));
    c.push("decode_workers", int(&|r| if r.prefill.is_some() { r.main.count } else { 0 }));
    c.push("replicas", int(&|r| if r.prefill.is_none() && !r.main.layout.is_afd() { r.main.count } else { 0 }));
    c.push("units", int(&|r| if r.main.layout.is_afd() { r.main.count } else { 0 }));
    c.push("prefill_gpus", int(&|r| r.prefill.map_or(0, |p| p.layout.gpus())));
    c.push("prefill_tp", int(&|r| prefill_parallel(r).tp));
    c.push("prefill_dp", int(&|r| prefill_parallel(r).dp));
    c.push("prefill_pp", int(&|r| prefill_parallel(r).pp));
    c.push("prefill_cp", int(&|r| prefill_parallel(r).cp));
    c.push("prefill_ep", int(&|r| r.prefill.map_or(0, |_| ep(&prefill_parallel(r)))));
    c.push("prefill_moe_tp", int(&|r| prefill_parallel(r).moe_tp));
    c.push("prefill_batch", int(&|r| r.prefill.map_or(0, |p| p.batch)));
    let prefill_overlaps = |r: &Row| r.prefill.is_some_and(|p| overlaps(&p));
    c.push("prefill_two_batch_overlap", Column::Bool(rows.iter().map(prefill_overlaps).collect()));
    c.push("prefill_attention_gpus", int(&|r| r.prefill.map_or(0, |p| afd(&p).0)));
    c.push("prefill_ffn_gpus", int(&|r| r.prefill.map_or(0, |p| afd(&p).1)));
    c.push("prefill_microbatches", int(&|r| r.prefill.map_or(0, |p| afd(&p).3)));
    c.push("ttft_ms", float(&|r| r.point.ttft_s * 1e3));
    c.push("tpot_ms", float(&|r| r.point.tpot_s * 1e3));
    c.push("itl_worst_ms", float(&|r| r.point.itl_worst_s * 1e3));
    c.push("tokens_per_s", float(&|r| r.point.requests_per_s * osl));
    c.push("tokens_per_s_per_gpu", float(&|r| r.point.requests_per_s * osl / f64::from(gpus)));
    c.push("tokens_per_s_per_user", float(&|r| if r.point.tpot_s > 0.0 { 1.0 / r.point.tpot_s } else { f64::NAN }));
    c.push("requests_per_s", float(&|r| r.point.requests_per_s));
    c.push("concurrency", float(&|r| r.point.concurrency));
    c.push("memory_gib", float(&|r| r.point.memory_bytes / GIB));
    c.push("feasible", Column::Bool(rows.iter().map(|r| binding(r) == Binding::None).collect()));
    c.push("binding", Column::from_strings(rows.iter().map(|r| binding(r).label())));
    c.push("measured_share", float(&|r| if r.scanned { f64::NAN } else { r.point.evidence.share() }));
    c.push("tpot_measured_share", float(&|r| if r.scanned { f64::NAN } else { r.point.evidence.tpot.share() }));
    c.push("ttft_measured_share", float(&|r| if r.scanned { f64::NAN } else { r.point.evidence.ttft.share() }));
    c.push(
        "priced",
        Column::Cat {
            codes: rows.iter().map(|r| i32::from(r.scanned)).collect(),
            labels: vec!["exact".into(), "scan".into()],
        },
    );
    c
}
