//! Bounds on points from parts that many points share: a slot of P/D, or one replica.
//!
//! The points of a space are products: of prefill slots, decode slots and counts. A slot is priced once
//! for all its partners, and bounds them all (`serving::bound`). Replicas and units serve side by side:
//! the rate of r of them is r times that of one, latencies and memory are those of one (where
//! batch and chunk are given; else what is chosen could, by rounding, differ between two plans of one rate,
//! and only the rate is used). GPUs and the bill follow from the plan. `SLACK` covers the rounding of a
//! different order of the same arithmetic.
//!
//! Limit: TPOT of P/D and plans that leave batch or chunk open have no bound on latencies here.

use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use crate::control::Control;
use crate::design::{Interval, Metric, Reader, Space};
use crate::error::Result;
use crate::kernels::KernelDb;
use crate::serving::bill::bill;
use crate::serving::steady_state::Load;
use crate::serving::{Engine, bound};
use crate::spec::{Plan, Slot};
use crate::units::GIB;

const SLACK: f64 = 1e-9;
/// Points that one thread looks at, or parts that it prices, at a time.
const BLOCK: usize = 4096;
const PARTS: usize = 16;

const ANY: Interval = (f64::NEG_INFINITY, f64::INFINITY);

/// What is known of a part.
#[derive(Clone, Copy, Debug)]
struct PlanPart {
    /// Whether it can stand at all.
    stands: bool,
    rate: f64,
    /// TTFT; exact of a replica whose fields are all given, else from below.
    ttft_s: Interval,
    tpot_s: Interval,
    memory_bytes: f64,
    gpus: f64,
    /// How many, where no axis says so.
    count: f64,
    /// US dollars an hour that each one adds to those of the cluster.
    usd: f64,
    /// Of the question: US dollars an hour of the cluster, its GPUs, output tokens of a request.
    cluster_usd: f64,
    budget: f64,
    osl: f64,
}

/// A part, if anything is known of it, under its key.
type Keyed = (u64, Option<PlanPart>);

/// One kind of part: the axes that tell it from others, and the axis that counts it.
struct PartKind {
    axes: Vec<usize>,
    count: Option<usize>,
    lengths: Vec<usize>,
    keys: Vec<u64>,
    parts: Vec<Option<PlanPart>>,
}

/// Everything that bounds the points of a space.
pub(super) struct Bounds {
    slots: Option<[PartKind; 2]>,
    replica: Option<PartKind>,
    /// Whether plans leave nothing open that the number of replicas could, by rounding, decide.
    exact: bool,
}

/// What a point may reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    rate: f64,
    ttft_s: Interval,
    tpot_s: Interval,
    memory_bytes: f64,
    gpus: f64,
    usd: f64,
    budget: f64,
    osl: f64,
}

/// Why a point cannot stand, or what it may reach.
pub(super) enum Verdict {
    Out(Proof),
    Reach(Option<Reach>),
}

/// What leaves a point out without a price, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    Gpus,
    Memory,
    Objective,
    Replica,
    Slot,
}

impl Reach {
    pub(crate) fn of(&self, metric: Metric) -> Interval {
        let times = |(low, high): Interval, by: f64| (low * by * (1.0 - SLACK), high * by * (1.0 + SLACK));
        let most = self.rate * (1.0 + SLACK);
        match metric {
            Metric::TtftMs => times(self.ttft_s, 1e3),
            Metric::TpotMs => times(self.tpot_s, 1e3),
            Metric::RequestsPerS => (0.0, most),
            Metric::TokensPerS => (0.0, most * self.osl),
            Metric::TokensPerSPerGpu => (0.0, most * self.osl / self.budget),
            Metric::UsdPerMtok => (self.usd / 3600.0 / (most * self.osl) * 1e6 * (1.0 - SLACK), f64::INFINITY),
            Metric::MemoryGib => times((self.memory_bytes, self.memory_bytes), 1.0 / GIB),
            Metric::Gpus => (self.gpus, self.gpus),
            Metric::ItlWorstMs
            | Metric::TokensPerSPerUser
            | Metric::Concurrency
            | Metric::MeasuredShare
            | Metric::TpotMeasuredShare
            | Metric::TtftMeasuredShare => ANY,
        }
    }
}

/// The axis at `path`, unless another axis replaces what lies above it.
pub(super) fn axis(space: &Space, path: &str) -> Option<usize> {
    let axes = &space.description.axes;
    let above = |p: &str| path.strip_prefix(p).is_some_and(|rest| rest.starts_with('.'));
    if axes.iter().any(|a| above(&a.path)) {
        return None;
    }
    axes.iter().position(|a| a.path == path)
}

/// Whether every point says what stands at `path` of the question.
pub(super) fn given(space: &Space, path: &str) -> bool {
    if let Some(a) = axis(space, path) {
        return space.description.axes[a].values.iter().all(|v| !v.is_null());
    }
    let mut parts = path.split('.');
    let mut at = parts.next().and_then(|root| space.description.question.get(root));
    for part in parts {
        at = at.and_then(|v| v.get(part));
    }
    at.is_some_and(|v| !v.is_null()) && !space.description.axes.iter().any(|a| path.starts_with(&a.path))
}

impl PartKind {
    /// `without`: path of what does not matter to it.
    fn new(space: &Space, without: Option<&str>, counts: [&str; 2]) -> PartKind {
        let count = counts.into_iter().find_map(|c| axis(space, c));
        let left_out = |path: &str| {
            without.is_some_and(|w| path == w || path.strip_prefix(w).is_some_and(|rest| rest.starts_with('.')))
        };
        let paths = space.description.axes.iter().map(|a| a.path.as_str()).enumerate();
        let axes = paths.filter(|(i, p)| Some(*i) != count && !left_out(p)).map(|(i, _)| i).collect();
        PartKind { axes, count, lengths: space.lengths(), keys: Vec::new(), parts: Vec::new() }
    }

    fn key(&self, choices: &[usize]) -> u64 {
        self.axes.iter().fold(0, |key, a| key * self.lengths[*a] as u64 + choices[*a] as u64)
    }

    fn part(&self, choices: &[usize]) -> Option<&PlanPart> {
        let at = self.keys.binary_search(&self.key(choices)).ok()?;
        self.parts[at].as_ref()
    }

    fn count(&self, space: &Space, choices: &[usize], part: &PlanPart) -> f64 {
        self.count.map_or(part.count, |a| space.number(a, choices[a]))
    }

    /// The parts that points have and that are not known yet: their keys, and a point with each.
    fn missing(&self, space: &Space, points: &[u64], control: &Control) -> Result<Vec<(u64, u64)>> {
        let found: Vec<Result<Vec<(u64, u64)>>> = crate::pool::install(|| {
            let block = |block: &[u64]| {
                control.check()?;
                let mut keys: Vec<(u64, u64)> = block.iter().map(|p| (self.key(&space.choices(*p)), *p)).collect();
                keys.sort_unstable();
                keys.dedup_by_key(|k| k.0);
                keys.retain(|k| self.keys.binary_search(&k.0).is_err());
                Ok(keys)
            };
            points.par_chunks(BLOCK).map(block).collect()
        })?;
        let mut all: Vec<(u64, u64)> = found.into_iter().collect::<Result<Vec<_>>>()?.concat();
        all.sort_unstable();
        all.dedup_by_key(|k| k.0);
        Ok(all)
    }

    /// Prices parts, in the order of the points that have them, and knows them from now on.
    fn learn(
        &mut self,
        db: &Arc<KernelDb>,
        space: &Space,
        mut missing: Vec<(u64, u64)>,
        control: &Control,
        part: impl Fn(&mut Reader<'_>, u64) -> Option<PlanPart> + Sync,
    ) -> Result<()> {
        missing.sort_unstable_by_key(|m| m.1);
        let blocks: Vec<Result<Vec<Keyed>>> = crate::pool::install(|| {
            let block = |block: &[(u64, u64)]| {
                let mut reader = Reader::new(db, space);
                let mut one = |(key, point): &(u64, u64)| {
                    control.check()?;
                    Ok((*key, part(&mut reader, *point)))
                };
                block.iter().map(&mut one).collect()
            };
            missing.par_chunks(PARTS).map(block).collect()
        })?;
        let known = std::mem::take(&mut self.keys).into_iter().zip(std::mem::take(&mut self.parts));
        let new = blocks.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let mut all: Vec<Keyed> = known.chain(new).collect();
        all.sort_unstable_by_key(|p| p.0);
        (self.keys, self.parts) = all.into_iter().unzip();
        Ok(())
    }
}

/// A slot of the point's plan, if that is P/D and nothing is wrong with it.
fn slot(reader: &mut Reader<'_>, point: u64, decode: bool) -> Option<PlanPart> {
    let (lib, workload, plan) = reader.parts(point).ok()?;
    let Plan::Pd(pd) = plan else { return None };
    let slot = if decode { &pd.decode } else { &pd.prefill };
    // What is wrong with a slot is left to the engine to say; units that are placed are told apart by where they stand.
    let own = if decode { "plan.decode" } else { "plan.prefill" };
    let placed = matches!(slot, Slot::Afd(a) if a.placement.is_some());
    if placed || plan.check(&lib.model, &lib.cluster).0.iter().any(|p| p.path.starts_with(own)) {
        return None;
    }
    let found = if decode { bound::decode_slot(lib, workload, slot) } else { bound::prefill_slot(lib, workload, slot) };
    let found = found.ok()?;
    let cluster = &lib.cluster;
    let cluster_usd = cluster.device.usd_per_hour * f64::from(cluster.gpus);
    let (count, usd) = match slot {
        Slot::Workers(w) => (w.count, 0.0),
        Slot::Afd(a) => {
            let mut one = a.clone();
            one.units = 1;
            (a.units, bill(&Plan::Afd(one), cluster).0 - cluster_usd)
        }
    };
    Some(PlanPart {
        stands: !found.short,
        rate: found.rate,
        ttft_s: (found.ttft_s, f64::INFINITY),
        tpot_s: ANY,
        memory_bytes: found.memory_bytes,
        gpus: f64::from(found.gpus),
        count: f64::from(count),
        usd,
        cluster_usd,
        budget: f64::from(cluster.gpus),
        osl: Load::of(workload).osl,
    })
}

/// The point's plan, once.
fn replica(reader: &mut Reader<'_>, point: u64, exact: bool) -> Option<PlanPart> {
    let (lib, workload, plan) = reader.parts(point).ok()?;
    let mut one = plan.clone();
    let count = match &mut one {
        Plan::Aggregated(a) => std::mem::replace(&mut a.replicas, 1),
        Plan::Afd(a) if a.placement.is_none() => std::mem::replace(&mut a.units, 1),
        Plan::Afd(_) | Plan::Pd(_) => return None,
    };
    let engine = Engine::new(lib, workload, &one).ok()?;
    let cluster = &lib.cluster;
    let cluster_usd = cluster.device.usd_per_hour * f64::from(cluster.gpus);
    let time = |t: f64| if exact { (t, t) } else { ANY };
    Some(PlanPart {
        stands: engine.point.stands(),
        rate: engine.point.requests_per_s,
        ttft_s: time(engine.point.ttft_s),
        tpot_s: time(engine.point.tpot_s),
        memory_bytes: engine.point.memory_bytes,
        gpus: f64::from(engine.gpus()),
        count: f64::from(count),
        usd: bill(&one, cluster).0 - cluster_usd,
        cluster_usd,
        budget: f64::from(cluster.gpus),
        osl: engine.load.osl,
    })
}

impl Bounds {
    pub(crate) fn new(space: &Space) -> Bounds {
        let kind = space.description.question.get("plan").and_then(|p| p.get("kind")).and_then(Value::as_str);
        let whole_plans = space.description.axes.iter().any(|a| a.path == "plan");
        let side = |without, slot: &str| {
            PartKind::new(space, Some(without), [&format!("plan.{slot}.count"), &format!("plan.{slot}.units")])
        };
        let replica = PartKind::new(space, None, ["plan.replicas", "plan.units"]);
        let exact = ["plan.batch", "plan.chunk_tokens"].into_iter().all(|f| given(space, f))
            && (kind != Some("afd") || given(space, "plan.microbatches"));
        Bounds {
            slots: (kind == Some("pd") || whole_plans)
                .then(|| [side("plan.decode", "prefill"), side("plan.prefill", "decode")]),
            replica: (kind != Some("pd") && replica.count.is_some()).then_some(replica),
            exact,
        }
    }

    /// Prices the parts of points. Kinds of parts that are nearly as many as the points are given up.
    pub(crate) fn learn(&mut self, db: &Arc<KernelDb>, space: &Space, points: &[u64], control: &Control) -> Result<()> {
        let pays = |parts: usize| parts * 2 <= points.len();
        if let Some([prefill, decode]) = &mut self.slots {
            let missing = [prefill.missing(space, points, control)?, decode.missing(space, points, control)?];
            if pays(missing[0].len() + missing[1].len()) {
                let [first, second] = missing;
                prefill.learn(db, space, first, control, |r, p| slot(r, p, false))?;
                decode.learn(db, space, second, control, |r, p| slot(r, p, true))?;
            } else {
                self.slots = None;
            }
        }
        if let Some(kind) = &mut self.replica {
            let missing = kind.missing(space, points, control)?;
            if pays(missing.len()) {
                let exact = self.exact;
                kind.learn(db, space, missing, control, |r, p| replica(r, p, exact))?;
            } else {
                self.replica = None;
            }
        }
        Ok(())
    }

    pub(crate) fn judge(&self, space: &Space, choices: &[usize]) -> Verdict {
        if let Some([prefill, decode]) = &self.slots
            && let (Some(p), Some(d)) = (prefill.part(choices), decode.part(choices))
        {
            if !p.stands || !d.stands {
                return Verdict::Out(Proof::Slot);
            }
            let (np, nd) = (prefill.count(space, choices, p), decode.count(space, choices, d));
            let gpus = np * p.gpus + nd * d.gpus;
            if gpus > p.budget {
                return Verdict::Out(Proof::Gpus);
            }
            return Verdict::Reach(Some(Reach {
                rate: (np * p.rate).min(nd * d.rate),
                ttft_s: p.ttft_s,
                tpot_s: ANY,
                memory_bytes: p.memory_bytes.max(d.memory_bytes),
                gpus,
                usd: p.cluster_usd + np * p.usd + nd * d.usd,
                budget: p.budget,
                osl: p.osl,
            }));
        }
        if let Some(kind) = &self.replica
            && let Some(p) = kind.part(choices)
        {
            if !p.stands {
                return Verdict::Out(Proof::Replica);
            }
            let n = kind.count(space, choices, p);
            if n * p.gpus > p.budget {
                return Verdict::Out(Proof::Gpus);
            }
            return Verdict::Reach(Some(Reach {
                rate: n * p.rate,
                ttft_s: p.ttft_s,
                tpot_s: p.tpot_s,
                memory_bytes: p.memory_bytes,
                gpus: n * p.gpus,
                usd: p.cluster_usd + n * p.usd,
                budget: p.budget,
                osl: p.osl,
            }));
        }
        Verdict::Reach(None)
    }
}
