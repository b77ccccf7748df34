//! What a worker does in a MoE layer after its mixer: the way to the experts, the experts, the way back.
//!
//! The ways are lanes, of which a step takes the fastest it can have (`worker` names them). A lane's layer is
//! `A(rank) + X(own) + E(all) + S(rank)`: reductions and router over a rank's tokens, the exchange over a GPU's, the
//! experts over those of all ranks, and the shared expert, which in a decode step hides behind the routed path. A fused
//! kernel takes the longest of its exchange and its experts (`overlap`).

use std::sync::Arc;

use crate::cost::Batch;
use crate::cost::ffn::{Experts, GatedMlp, Router};
use crate::cost::library::Library;
use crate::cost::overlap;
use crate::cost::sink::{Op, Sink, Total};
use crate::error::{Error, Result};
use crate::kernels::roofline::BANDWIDTH_EFFICIENCY;
use crate::network::{A2aKind, A2aShape, CommTime, OneNode};
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
    /// The all-to-all that moves the tokens; none: a collective does.
    pub fn exchange(self) -> Option<A2aKind> {
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

/// Seconds of one MoE layer by what two half-batches can overlap.
#[derive(Default)]
pub(super) struct LayerParts {
    /// Blocking exchanges and the router: computed with attention.
    pub before: f64,
    pub out: f64,
    pub experts: f64,
    pub back: f64,
}

impl Sink for LayerParts {
    const DETAIL: bool = true;

    fn add(&mut self, op: Op, count: f64, reading: crate::kernels::Reading) {
        let part = match op {
            Op::Dispatch => &mut self.out,
            Op::Combine => &mut self.back,
            Op::Experts | Op::SharedExpert => &mut self.experts,
            _ => &mut self.before,
        };
        *part += count * reading.seconds;
    }

    fn merge(&mut self, total: &Total) {
        self.before += total.seconds;
    }
}

impl LayerParts {
    /// The layer of both halves. Tensor lane: the two all-reduces are what travels.
    pub fn overlapped(&self, attention: f64, tensor: bool, slowed: f64) -> f64 {
        if tensor {
            // Everything but the router in `before` is the two equal all-reduces; the router is small.
            let reduce = 0.5 * self.before;
            return overlap::two_batches(attention, reduce, self.experts, reduce, slowed);
        }
        overlap::two_batches(attention + self.before, self.out, self.experts, self.back, slowed)
    }
}

pub(super) struct MoePart {
    pub lib: Arc<Library>,
    pub parallel: Parallel,
    pub hidden: f64,
    router: Router,
    pub experts: Experts,
    /// Shared expert split over the TP ranks, and whole.
    pub shared: Option<[GatedMlp; 2]>,
    pub a2a: A2aShape,
    pub lanes: Vec<Lane>,
    /// Rows that stand for the exchange between nodes, whatever the kernel of a lane.
    one_node: Option<OneNode>,
    /// Seconds that HBM needs for all experts of a GPU, and the share of experts that one token misses.
    pub reads: f64,
    pub missed: f64,
    /// Whether experts span nodes.
    pub wide: bool,
    /// Whether the shared expert of a decode step hides behind the routed path.
    pub beside: bool,
    /// What giving SMs to a fused dispatch does to the experts.
    pub slowed: f64,
}

impl MoePart {
    /// None for a dense model.
    pub fn new(lib: &Arc<Library>, parallel: Parallel) -> Result<Option<Arc<MoePart>>> {
        let p = parallel;
        let Some(m) = &lib.model.moe else { return Ok(None) };
        let (mut one_node, mut wide) = (None, false);
        let experts = Experts::new(lib, p.ep(), p.moe_tp)?
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
            hidden: lib.model.hidden,
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
            if lib.assumptions.exchange == Exchange::GatherInNode {
                lanes.clear();
            }
            one_node = lib.one_node(&a2a)?.filter(|_| far);
            wide = far;
            let both = [A2aKind::LowLatency, A2aKind::Normal];
            let kinds = if one_node.is_some() { &both } else { lib.comm.kinds() };
            lanes.extend(kinds.iter().map(|k| Lane::Dispatch(*k)));
            if lib.serving.fused_dispatch && one_node.is_none() {
                lanes.extend(kinds.iter().map(|k| Lane::Fused(*k)));
            }
        }
        let reads = f64::from(m.experts.div_ceil(p.ep())) / f64::from(p.moe_tp)
            * lib.model.expert_weight_bytes(&lib.quant)
            / (lib.cluster.device.hbm_bytes_per_s * BANDWIDTH_EFFICIENCY);
        Ok(Some(Arc::new(MoePart {
            router: Router::new(lib, m.experts)?,
            experts,
            shared,
            a2a,
            lanes,
            one_node,
            reads,
            missed: 1.0 - f64::from(m.topk) / f64::from(m.experts),
            wide,
            parallel,
            hidden: f64::from(lib.model.hidden),
            beside: lib.assumptions.shared_expert_overlap,
            slowed: overlap::fused_slowdown(lib),
            lib: lib.clone(),
        })))
    }

    /// Dispatch (`back`: combine) of a GPU's `own` tokens.
    pub fn exchange(&self, own: f64, kind: A2aKind, decode: bool, back: bool) -> CommTime {
        match &self.one_node {
            Some(rows) => rows.at(own, back, decode),
            None if back => self.lib.comm.combine(&self.a2a, own, kind),
            None => self.lib.comm.dispatch(&self.a2a, own, kind),
        }
    }

    /// Whether a lane takes this batch: buffers, and no host-side sizes under CUDA graphs.
    pub fn takes(&self, lane: Lane, batch: &Batch) -> bool {
        let Some(kind) = lane.exchange() else { return true };
        let own = batch.rank_tokens(f64::from(self.parallel.cp)) / f64::from(self.parallel.tp);
        let decode = !batch.has_prefill();
        if self.one_node.is_some() {
            return decode == (kind == A2aKind::LowLatency);
        }
        own <= kind.most_tokens() && !(kind == A2aKind::Normal && decode && self.lib.graph(true))
    }

    pub fn best_lane(&self, batch: &Batch) -> (Lane, Total) {
        let mut best: Option<(Lane, Total)> = None;
        // The first lane takes any number of tokens.
        for lane in self.lanes.iter().filter(|l| self.takes(**l, batch)) {
            let mut t = Total::default();
            self.layer(*lane, batch, 1.0, &mut t);
            if best.as_ref().is_none_or(|(_, b)| t.seconds < b.seconds) {
                best = Some((*lane, t));
            }
        }
        best.unwrap_or((Lane::Tensor, Total::default()))
    }

    /// Everything of one MoE layer after the attention block.
    pub fn layer<S: Sink>(&self, lane: Lane, batch: &Batch, count: f64, sink: &mut S) {
        self.layer_of(lane, batch, self.beside, count, sink);
    }

    /// The same; `beside`: whether the shared expert of a decode step hides behind the routed path (two half-batches
    /// already fill that time).
    pub fn layer_of<S: Sink>(&self, lane: Lane, batch: &Batch, beside: bool, count: f64, sink: &mut S) {
        let decode = !batch.has_prefill();
        let comm = &self.lib.comm;
        let p = &self.parallel;
        let gpus = p.stage_gpus();
        // Tokens of the busiest attention rank's TP group, and of all ranks together.
        let rank = batch.rank_tokens(f64::from(p.cp));
        let all = f64::from(p.dp) * batch.mean_tokens();
        let row = self.hidden * 2.0;
        match lane {
            Lane::Tensor => {
                if p.tp > 1 {
                    let reduce = comm.all_reduce(rank * row, p.tp, self.lib.reduce_graph(decode));
                    sink.carry(Op::TpReduce, 2.0 * count, reduce, || {
                        comm.report_collective("all_reduce", rank * row, comm.packed(p.tp))
                    });
                }
                self.router.price(rank, decode, count, sink);
                let experts = self.experts.fused(all, decode);
                sink.add(Op::Experts, count, experts);
                if let Some(shared) = &self.shared {
                    let hidden = if decode && beside { experts.seconds } else { 0.0 };
                    let mlp = &shared[usize::from(self.lib.whole_shared())];
                    mlp.price_beside(Op::SharedExpert, rank, decode, count, hidden, sink);
                }
            }
            Lane::Gather | Lane::Dispatch(_) | Lane::Fused(_) => {
                // After attention each TP rank keeps its share of the rows (reduce-scatter), and gets
                // the others' back at the end of the layer (all-gather).
                let own = rank / f64::from(p.tp);
                if p.tp > 1 {
                    let (bytes, seats) = (rank * row, comm.packed(p.tp));
                    let (down, up) = (comm.reduce_scatter(bytes, p.tp), comm.all_gather(bytes, p.tp));
                    sink.carry(Op::TpReduce, count, down, || comm.report_collective("reduce_scatter", bytes, seats));
                    sink.carry(Op::TpReduce, count, up, || comm.report_collective("all_gather", bytes, seats));
                }
                self.router.price(own, decode, count, sink);
                let gathered = all * self.hidden * self.lib.gather_bytes();
                let (out, experts, back) = match lane {
                    Lane::Dispatch(kind) | Lane::Fused(kind) => (
                        self.exchange(own, kind, decode, false),
                        self.experts.dispatched(all, decode),
                        self.exchange(own, kind, decode, true),
                    ),
                    _ => (
                        self.lib.all_gather(gathered, gpus),
                        self.experts.fused(all, decode),
                        self.lib.reduce_scatter(all * row, gpus),
                    ),
                };
                let report = |back: bool| match lane {
                    Lane::Dispatch(kind) | Lane::Fused(kind) => {
                        let report = comm.report_exchange(&self.a2a, own, kind, back, None);
                        match &self.one_node {
                            Some(rows) => report.timed(rows.at(own, back, decode), rows.at(1.0, back, decode).seconds),
                            None => report,
                        }
                    }
                    _ if back => comm.report_collective("reduce_scatter", all * row, comm.packed(gpus)),
                    _ => comm.report_collective("all_gather", gathered, comm.packed(gpus)),
                };
                let routed = if let Lane::Fused(kind) = lane {
                    let starts = [false, true].map(|back| self.exchange(0.0, kind, decode, back));
                    let reads = self.reads * (1.0 - self.missed.powf(all));
                    let (kernel, fused) = overlap::fused(experts, [out, back], starts, reads, self.slowed);
                    sink.carry(Op::Dispatch, count, starts[0], || report(false));
                    sink.add(Op::Experts, count, kernel);
                    sink.carry(Op::Combine, count, starts[1], || report(true));
                    fused
                } else {
                    sink.carry(Op::Dispatch, count, out, || report(false));
                    sink.add(Op::Experts, count, experts);
                    sink.carry(Op::Combine, count, back, || report(true));
                    out.seconds + experts.seconds + back.seconds
                };
                if let Some(shared) = &self.shared {
                    let hidden = if decode && beside { routed } else { 0.0 };
                    shared[1].price_beside(Op::SharedExpert, own, decode, count, hidden, sink);
                }
            }
        }
    }
}
