//! Where the time of a step goes, operator by operator: the rows of a breakdown.
//!
//! A worker's rows are one step's. An AFD unit's are those of all its micro-batches: of one attention group on the
//! attention pool and the network (groups work side by side), of all groups on the FFN pool they share, and of all
//! stages where layers are split over a pipeline.
//!
//! Limit: operator time, which is more than wall time where operators overlap; waits are told apart.

use super::path::PathS;
use super::phase::{Phase, Site, StepKind};
use super::steady_state::KvCost;
use super::step_engine::{EngineKind, StepEngine, Unit};
use crate::cost::program::{DRAFT_MIXER, Ffn};
use crate::cost::{Batch, Detail, Op, draft};
use crate::kernels::Evidence;
use crate::network::{Link, Tier};
use crate::spec::Pool;

pub(crate) const WORKER: Site = Site::Gpus(Pool::Worker);
const ATTENTION: Site = Site::Gpus(Pool::Attention);
const FFN: Site = Site::Gpus(Pool::Ffn);

/// One line of a breakdown: an operator of one phase on one pool.
#[derive(Clone, Debug)]
pub struct BreakdownRow {
    pub phase: Phase,
    pub pool: Site,
    pub op: Op,
    pub ms: f64,
    pub evidence: Evidence,
    /// None: nothing crosses the fabric.
    pub tier: Option<Tier>,
}

/// Rows of the operators of a step, each `scale` times.
pub fn rows(kind: StepKind, pool: Site, scale: f64, d: &Detail) -> Vec<BreakdownRow> {
    d.entries
        .iter()
        .map(|e| BreakdownRow {
            phase: Phase::StepClock(kind),
            pool,
            op: e.op,
            ms: e.seconds * scale * 1e3,
            evidence: e.evidence,
            tier: e.tier,
        })
        .collect()
}

/// Operator rows of one step.
pub(super) fn step_rows(s: &StepEngine, kind: StepKind, batch: &Batch) -> Vec<BreakdownRow> {
    match &s.kind {
        EngineKind::Worker(w, _) => {
            let mut d = Detail::default();
            w.price(batch, &mut d);
            rows(kind, WORKER, 1.0, &d)
        }
        EngineKind::Afd(u) => unit_rows(u, kind, &u.parts(batch)),
    }
}

/// Operator rows of all steps or micro-batches of a prefill round.
pub(super) fn prefill_rows(s: &StepEngine, parts: &[Batch]) -> Vec<BreakdownRow> {
    match &s.kind {
        EngineKind::Worker(..) => merge(parts.iter().flat_map(|b| step_rows(s, StepKind::Prefill, b)).collect()),
        EngineKind::Afd(u) => unit_rows(u, StepKind::Prefill, parts),
    }
}

/// Operator rows of micro-batches on an AFD unit: those of one attention group, and the FFN pool's for all groups.
fn unit_rows(u: &Unit, step: StepKind, parts: &[Batch]) -> Vec<BreakdownRow> {
    let mut out = Vec::new();
    let mut seen: Vec<(Batch, f64)> = Vec::new();
    for p in parts {
        match seen.iter_mut().find(|(b, _)| b == p) {
            Some((_, n)) => *n += 1.0,
            None => seen.push((*p, 1.0)),
        }
    }
    let kinds = u.program().kinds();
    for (b, n) in seen {
        if u.sequence.pp > 1 {
            let hop = u.stage_hop(&b);
            out.push(BreakdownRow {
                phase: Phase::StepClock(step),
                pool: Site::Network,
                op: Op::PipelineHop,
                ms: n * f64::from(u.sequence.pp) * hop.seconds * 1e3,
                evidence: hop.evidence,
                tier: Some(Link::of(u.near).tier()),
            });
        }
        let mut ends = Detail::default();
        u.unit.price_ends(&b, &mut ends);
        out.extend(rows(step, ATTENTION, n, &ends));
        for kind in kinds.iter().filter(|k| k.ffn == Ffn::Dense) {
            dense_rows(u, step, &b, kind.mixer, n * f64::from(kind.layers), &mut out);
        }
        for kind in kinds.iter().filter(|k| k.ffn == Ffn::Experts) {
            moe_rows(u, step, &b, kind.mixer, n * f64::from(kind.layers), &mut out);
        }
        for (b, passes) in draft::passes(u.unit.library().serving.mtp, &b) {
            if passes > 0.0 {
                let rows_of = if u.program().has_experts() { moe_rows } else { dense_rows };
                rows_of(u, step, &b, DRAFT_MIXER, n * passes, &mut out);
                let mut ends = Detail::default();
                u.unit.price_draft_ends(&b, &mut ends);
                out.extend(rows(step, ATTENTION, n * passes, &ends));
            }
        }
    }
    merge(out)
}

/// Operator rows of `layers` dense layers of one micro-batch.
fn dense_rows(u: &Unit, step: StepKind, b: &Batch, mixer: usize, layers: f64, out: &mut Vec<BreakdownRow>) {
    let mut d = Detail::default();
    u.unit.price_dense(b, mixer, &mut d);
    out.extend(rows(step, ATTENTION, layers, &d));
    if u.unit.dense_on_ffn {
        let mut hops = Detail::default();
        u.unit.hops().price_home(b, false, &mut hops);
        u.unit.hops().price_home(b, true, &mut hops);
        out.extend(rows(step, Site::Network, layers, &hops));
        let mut d = Detail::default();
        u.unit.price_dense_ffn(b, &mut d);
        out.extend(rows(step, FFN, f64::from(u.unit.groups) * layers, &d));
    }
}

/// Operator rows of `layers` MoE layers of one micro-batch.
fn moe_rows(u: &Unit, step: StepKind, b: &Batch, mixer: usize, layers: f64, out: &mut Vec<BreakdownRow>) {
    let mut parts: [Detail; 4] = Default::default();
    u.unit.price_attention(b, mixer, &mut parts[0]);
    u.unit.hops().price(b, false, &mut parts[1]);
    u.unit.price_ffn(b, &mut parts[2]);
    u.unit.hops().price(b, true, &mut parts[3]);
    for (pool, d) in [ATTENTION, Site::Network, FFN, Site::Network].into_iter().zip(&parts) {
        let groups = if pool == FFN { f64::from(u.unit.groups) } else { 1.0 };
        out.extend(rows(step, pool, groups * layers, d));
    }
}

fn merge(rows: Vec<BreakdownRow>) -> Vec<BreakdownRow> {
    let mut out: Vec<BreakdownRow> = Vec::new();
    for r in rows {
        match out
            .iter_mut()
            .find(|o| (o.phase, o.pool, o.op, o.evidence, o.tier) == (r.phase, r.pool, r.op, r.evidence, r.tier))
        {
            Some(o) => o.ms += r.ms,
            None => out.push(r),
        }
    }
    out
}

/// What moving KV costs: the wait before the first token, and what both slots lose on shared ports.
pub(super) fn kv_rows(kv: &KvCost) -> Vec<BreakdownRow> {
    [
        (Phase::Transfer, Op::KvTransfer, kv.wait_s),
        (Phase::StepClock(StepKind::Prefill), Op::KvContention, kv.prefill_s),
        (Phase::StepClock(StepKind::Decode), Op::KvContention, kv.decode_s),
    ]
    .into_iter()
    .filter(|(_, _, seconds)| *seconds > 0.0)
    .map(|(phase, op, seconds)| BreakdownRow {
        phase,
        pool: Site::Network,
        op,
        ms: seconds * 1e3,
        evidence: Evidence::Extrapolated,
        tier: Some(Link::of(kv.same_domain).tier()),
    })
    .collect()
}

/// What a request waits for outside of the steps that serve it.
pub(super) fn path_rows(path: &PathS) -> Vec<BreakdownRow> {
    let waits = path.terms().into_iter().filter(|(_, seconds)| *seconds > 0.0);
    waits
        .map(|(op, seconds)| BreakdownRow {
            phase: Phase::Path,
            pool: Site::Host,
            op,
            ms: seconds * 1e3,
            evidence: Evidence::Extrapolated,
            tier: None,
        })
        .collect()
}
