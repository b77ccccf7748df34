//! What a worker does in a MoE layer after its mixer: the way to the experts, the experts, the way back.
//!
//! The ways are lanes, of which a step takes the fastest it can have (`worker` names them). Here the parts of a lane are
//! priced operator by operator; `lane` adds them up. A dispatch, the experts and the way back as one kernel (DeepGEMM's
//! MegaMoE) take the longest of the three, and only the start-up of either way stands alone; the experts have fewer SMs,
//! which slows all but what HBM needs for the weights (`overlap`).
//!
//! Limit: one lane for all tokens of a step; a server that splits a batch between kernels is not modelled.

use std::sync::Arc;

use super::lane::{self, LaneParts, LayerTokens, Turns};
use crate::cost::Batch;
use crate::cost::ffn::{Experts, GatedMlp, Router};
use crate::cost::ledger::{Ledger, Op, Total};
use crate::cost::library::Library;
use crate::cost::overlap;
use crate::error::{Error, Result};
use crate::kernels::Reading;
use crate::network::report::Report;
use crate::network::{A2aKind, A2aShape, Collective, CommTime, OneNode};
use crate::spec::Parallel;
use crate::spec::assumptions::{Exchange, GroupRouting};

/// How tokens reach the experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Tensor,
    Gather,
    Dispatch(A2aKind),
    /// An all-to-all inside the experts' kernel.
    Fused(A2aKind),
}

impl Lane {
    /// Whether its exchange stands apart from the experts: a fused kernel leaves nothing for another half to hide.
    pub(super) fn apart(self) -> bool {
        !matches!(self, Lane::Fused(_))
    }

    /// The all-to-all that moves the tokens; none: a collective does.
    pub(crate) fn exchange(self) -> Option<A2aKind> {
        match self {
            Lane::Dispatch(kind) | Lane::Fused(kind) => Some(kind),
            Lane::Tensor | Lane::Gather => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Lane::Tensor => "fused+all-reduce",
            Lane::Gather => "fused+all-gather",
            Lane::Dispatch(A2aKind::LowLatency) => "grouped+low-latency",
            Lane::Dispatch(A2aKind::Normal) => "grouped+normal",
            Lane::Dispatch(A2aKind::OneSided) => "grouped+one-sided",
            Lane::Fused(A2aKind::LowLatency) => "fused dispatch, low-latency",
            Lane::Fused(A2aKind::Normal) => "fused dispatch, normal",
            Lane::Fused(A2aKind::OneSided) => "fused dispatch, one-sided",
        }
    }
}

pub(super) struct MoePart {
    pub lib: Arc<Library>,
    pub parallel: Parallel,
    /// Width of what experts read.
    hidden: f64,
    router: Router,
    experts: Experts,
    /// Shared expert split over the TP ranks, and whole.
    pub shared: Option<[GatedMlp; 2]>,
    pub a2a: A2aShape,
    pub lanes: Vec<Lane>,
    /// Whether collectives carry only what no all-to-all takes.
    gathers_last: bool,
    /// Rows that stand for the exchange between nodes, whatever the kernel of a lane.
    one_node: Option<OneNode>,
    /// Whether experts span nodes.
    pub wide: bool,
    /// Whether the shared expert of a decode step hides behind the routed path.
    beside: bool,
    /// What giving SMs to a fused dispatch does to the experts, and what separate kernels of theirs take that it does not.
    slowed: f64,
    between: f64,
}

impl MoePart {
    /// None for a dense model.
    pub(crate) fn new(lib: &Arc<Library>, parallel: Parallel) -> Result<Option<Arc<MoePart>>> {
        let p = parallel;
        let Some(m) = &lib.model.moe else { return Ok(None) };
        let (mut one_node, mut wide) = (None, false);
        let experts = Experts::new(lib, p.ep(), p.moe_tp, p.dp * p.cp > 1)?
            .ok_or_else(|| Error::data("kernels", "no expert kernel for a model with experts"))?;
        let shared = if m.shared_intermediate > 0 {
            Some([
                GatedMlp::new(lib, lib.formats.shared_gemm, m.shared_intermediate, p.tp)?,
                GatedMlp::new(lib, lib.formats.shared_gemm, m.shared_intermediate, 1)?,
            ])
        } else {
            None
        };
        let a2a = A2aShape {
            hidden: lib.model.expert_hidden(),
            topk: m.topk,
            experts: m.experts,
            groups: if lib.assumptions.group_routing == GroupRouting::Counted { m.groups } else { 0 },
            topk_groups: m.topk_groups,
            ep: p.ep(),
            dispatch_dtype: lib.formats.comm,
        };
        let mut lanes = Vec::new();
        if p.dp == 1 && p.cp == 1 {
            lanes.push(Lane::Tensor);
        } else {
            lanes.push(Lane::Gather);
        }
        let far = p.stage_gpus() > lib.cluster.fabric.node_gpus;
        let may_dispatch = match lib.assumptions.exchange {
            Exchange::Best => true,
            Exchange::Gather => false,
            Exchange::GatherInNode => far,
        };
        if may_dispatch && p.moe_tp == 1 && p.ep() > 1 && p.ep() == p.stage_gpus() && p.dp * p.cp > 1 {
            one_node = lib.one_node(&a2a)?.filter(|_| far);
            wide = far;
            let both = [A2aKind::LowLatency, A2aKind::Normal];
            let kinds = if one_node.is_some() { &both } else { lib.comm.kinds() };
            lanes.extend(kinds.iter().map(|k| Lane::Dispatch(*k)));
            if lib.serving.fused_dispatch && one_node.is_none() {
                lanes.extend(kinds.iter().map(|k| Lane::Fused(*k)));
            }
        }
        let fused = lanes.iter().any(|l| matches!(l, Lane::Fused(_)));
        let between = if fused { experts.between(lib) } else { 0.0 };
        Ok(Some(Arc::new(MoePart {
            router: Router::new(lib, m.experts)?,
            experts,
            shared,
            a2a,
            gathers_last: lib.assumptions.exchange == Exchange::GatherInNode && lanes.len() > 1,
            lanes,
            one_node,
            wide,
            parallel,
            hidden: f64::from(lib.model.expert_hidden()),
            beside: lib.assumptions.shared_expert_overlap,
            slowed: overlap::fused_slowdown(lib),
            between,
            lib: lib.clone(),
        })))
    }

    /// Bytes that collectives gather for the experts of `all` tokens, and scatter after them.
    fn gathered(&self, all: f64) -> f64 {
        all * self.hidden * self.lib.gather_bytes()
    }

    fn scattered(&self, all: f64) -> f64 {
        all * self.hidden * 2.0
    }

    /// Dispatch (`back`: combine) of a GPU's `own` tokens.
    fn exchange(&self, own: f64, kind: A2aKind, decode: bool, back: bool) -> CommTime {
        match &self.one_node {
            Some(rows) => rows.at(own, back, decode),
            None if back => self.lib.comm.combine(&self.a2a, own, kind),
            None => self.lib.comm.dispatch(&self.a2a, own, kind),
        }
    }

    /// Tokens of a GPU that a lane takes in a mode: more than the first and at most the second.
    pub(crate) fn takes(&self, lane: Lane, decode: bool) -> [f64; 2] {
        match lane.exchange() {
            Some(kind) => [f64::NEG_INFINITY, self.most_tokens(kind, decode)],
            None if self.gathers_last => {
                let kinds = self.lanes.iter().filter_map(|l| l.exchange());
                [kinds.map(|k| self.most_tokens(k, decode)).fold(f64::NEG_INFINITY, f64::max), f64::INFINITY]
            }
            None => [f64::NEG_INFINITY, f64::INFINITY],
        }
    }

    /// Most tokens of a GPU that an all-to-all takes in a mode, below 0: it takes no such step. Buffers are full, or
    /// sizes are known on the host alone, which CUDA graphs rule out.
    fn most_tokens(&self, kind: A2aKind, decode: bool) -> f64 {
        if self.one_node.is_some() {
            return if decode == (kind == A2aKind::LowLatency) { f64::INFINITY } else { -1.0 };
        }
        if kind == A2aKind::Normal && decode && self.lib.graph(true) { -1.0 } else { kind.most_tokens() }
    }

    /// What two half-batches in turn are told of a lane.
    pub(crate) fn turns(&self, lane: Lane) -> Turns {
        Turns { tensor: lane == Lane::Tensor, slowed: overlap::slowdown(&self.lib, lane.exchange()) }
    }

    /// The parts of every lane that takes this batch: some lane takes any number of tokens.
    pub(crate) fn taken(&self, batch: &Batch) -> impl Iterator<Item = Priced<'_>> {
        let p = &self.parallel;
        let (decode, rank) = (!batch.has_prefill(), batch.rank_tokens(f64::from(p.cp)));
        let (own, all) = (rank / f64::from(p.tp), f64::from(p.dp) * batch.mean_tokens());
        let tokens = LayerTokens { rank, own, all };
        let taken = self.lanes.iter().filter(move |l| {
            let [above, most] = self.takes(**l, decode);
            above < own && own <= most
        });
        taken.map(move |lane| Priced { moe: self, lane: *lane, tokens, decode })
    }

    /// The lane with the shortest layer, and that layer.
    pub(crate) fn best_lane(&self, batch: &Batch) -> Option<(Priced<'_>, Total)> {
        let layers = self.taken(batch).map(|p| {
            let mut t = Total::default();
            p.layer(1.0, &mut t);
            (p, t)
        });
        layers.min_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds))
    }
}

/// The parts of one lane, priced operator by operator.
#[derive(Clone, Copy)]
pub(super) struct Priced<'a> {
    pub moe: &'a MoePart,
    pub lane: Lane,
    pub tokens: LayerTokens<f64>,
    pub decode: bool,
}

impl Priced<'_> {
    /// Everything of one whole layer after its mixer.
    pub(crate) fn layer<S: Ledger>(&self, count: f64, ledger: &mut S) {
        lane::layer(self, self.decode && self.moe.beside, count, ledger);
    }

    fn report(&self, back: bool) -> Report {
        let (moe, LayerTokens { own, all, .. }) = (self.moe, self.tokens);
        let (comm, gpus) = (&moe.lib.comm, moe.parallel.stage_gpus());
        match self.lane.exchange() {
            Some(kind) => {
                let report = comm.report_exchange(&moe.a2a, own, kind, back, None);
                match &moe.one_node {
                    Some(rows) => {
                        let at = |own| rows.at(own, back, self.decode);
                        report.timed(at(own), at(1.0).seconds)
                    }
                    None => report,
                }
            }
            None if back => comm.report_collective(Collective::ReduceScatter, moe.scattered(all), comm.packed(gpus)),
            None => comm.report_collective(Collective::AllGather, moe.gathered(all), comm.packed(gpus)),
        }
    }
}

impl LaneParts for Priced<'_> {
    fn around<S: Ledger>(&self, count: f64, ledger: &mut S) {
        let (moe, LayerTokens { rank, own, .. }) = (self.moe, self.tokens);
        let (comm, tp) = (&moe.lib.comm, moe.parallel.tp);
        let (bytes, seats) = (rank * f64::from(moe.lib.model.hidden) * 2.0, comm.packed(tp));
        if self.lane == Lane::Tensor {
            if tp > 1 {
                let reduce = comm.all_reduce(bytes, tp, moe.lib.reduce_graph(self.decode));
                ledger.carry(Op::TpReduce, 2.0 * count, reduce, || {
                    comm.report_collective(Collective::AllReduce, bytes, seats)
                });
            }
            moe.router.price(rank, self.decode, count, ledger);
            return;
        }
        // After attention each TP rank keeps its share of the rows (reduce-scatter), and gets the others' back at the
        // end of the layer (all-gather).
        if tp > 1 {
            let (down, up) = (comm.reduce_scatter(bytes, tp), comm.all_gather(bytes, tp));
            ledger.carry(Op::TpReduce, count, down, || comm.report_collective(Collective::ReduceScatter, bytes, seats));
            ledger.carry(Op::TpReduce, count, up, || comm.report_collective(Collective::AllGather, bytes, seats));
        }
        moe.router.price(own, self.decode, count, ledger);
    }

    fn way<S: Ledger>(&self, back: bool, count: f64, ledger: &mut S) -> f64 {
        let (moe, LayerTokens { own, all, .. }) = (self.moe, self.tokens);
        let gpus = moe.parallel.stage_gpus();
        let time = match self.lane {
            Lane::Tensor => return 0.0,
            Lane::Gather if back => moe.lib.reduce_scatter(moe.scattered(all), gpus),
            Lane::Gather => moe.lib.all_gather(moe.gathered(all), gpus),
            Lane::Dispatch(kind) => moe.exchange(own, kind, self.decode, back),
            Lane::Fused(kind) => moe.exchange(0.0, kind, self.decode, back),
        };
        ledger.carry(if back { Op::Combine } else { Op::Dispatch }, count, time, || self.report(back));
        time.seconds
    }

    fn experts(&self) -> Reading {
        let (moe, all) = (self.moe, self.tokens.all);
        match self.lane {
            Lane::Tensor | Lane::Gather => moe.experts.fused(all, self.decode),
            Lane::Dispatch(_) => moe.experts.dispatched(all, self.decode),
            Lane::Fused(_) => {
                let alone = moe.experts.dispatched(all, self.decode);
                let seconds = overlap::beside_exchange(alone.seconds, moe.experts.reads(all), moe.between, moe.slowed);
                Reading { seconds, ..alone }
            }
        }
    }

    fn moved(&self) -> f64 {
        let Lane::Fused(kind) = self.lane else { return 0.0 };
        let seconds = |own, back| self.moe.exchange(own, kind, self.decode, back).seconds;
        let beyond_start = |back| seconds(self.tokens.own, back) - seconds(0.0, back);
        beyond_start(false).max(beyond_start(true))
    }

    fn shared<S: Ledger>(&self, beside: f64, count: f64, ledger: &mut S) {
        let Some([split, whole]) = &self.moe.shared else { return };
        let (mlp, tokens) = match self.lane {
            Lane::Tensor if !self.moe.lib.whole_shared() => (split, self.tokens.rank),
            Lane::Tensor => (whole, self.tokens.rank),
            _ => (whole, self.tokens.own),
        };
        mlp.price_beside(Op::SharedExpert, tokens, self.decode, count, beside, ledger);
    }
}
