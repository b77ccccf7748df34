//! One step of a worker whose GPUs do everything: attention, FFN, and the exchange between ranks.
//!
//! `D = dp` attention ranks of `tp x cp` GPUs each; experts over `ep x moe_tp` GPUs. How tokens
//! reach the experts is a lane, and each step takes the fastest it can have:
//! - tensor: all GPUs hold all tokens; all-reduce after attention and after the experts;
//! - gather: all-gather of the tokens, fused expert kernel, reduce-scatter;
//! - dispatch (low-latency, normal or one-sided all-to-all), grouped kernel where measured, combine.
//!
//! Pipeline parallelism: the slowest of `pp` stages holds ceil(L/pp) layers plus one hop.
//! - fused: dispatch, expert GEMMs and combine are one kernel, as in an AFD unit (overlap).
//!
//! Two-batch overlap: a MoE layer runs as two half-batches in turn (overlap) where that is the faster: servers
//! have token thresholds for it. Dense layers, ends and draft passes run whole. MTP: draft passes are whole
//! layers more (draft).

mod lines;

pub use self::lines::WorkerLines;
use super::Batch;
use super::attention::AttentionPart;
use super::draft;
use super::ffn::{self, Experts, GatedMlp, Router};
use super::library::Library;
use super::overlap;
use super::program::{DRAFT_MIXER, Ffn, Surfaces};
use super::sink::{Op, Sink, Total};
use crate::error::{Error, Result};
use crate::kernels::Surface;
use crate::kernels::roofline::BANDWIDTH_EFFICIENCY;
use crate::network::{A2aKind, A2aShape, Comm, CommTime, OneNode};
use crate::spec::assumptions::{Exchange, GroupRouting};
use crate::spec::{Dtype, Parallel};
use std::sync::Arc;

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
struct LayerParts {
    /// Blocking exchanges and the router: computed with attention.
    before: f64,
    out: f64,
    experts: f64,
    back: f64,
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
    fn overlapped(&self, attention: f64, tensor: bool, slowed: f64) -> f64 {
        if tensor {
            // Everything but the router in `before` is the two equal all-reduces; the router is small.
            let reduce = 0.5 * self.before;
            return overlap::two_batches(attention, reduce, self.experts, reduce, slowed);
        }
        overlap::two_batches(attention + self.before, self.out, self.experts, self.back, slowed)
    }
}

struct MoePart {
    router: Router,
    experts: Experts,
    /// Shared expert split over the TP ranks, and whole.
    shared: Option<[GatedMlp; 2]>,
    a2a: A2aShape,
    lanes: Vec<Lane>,
    /// Rows that stand for the exchange between nodes, whatever the kernel of a lane.
    one_node: Option<OneNode>,
    /// Seconds that HBM needs for all experts of a GPU, and the share of experts that one token misses.
    reads: f64,
    missed: f64,
}

impl MoePart {
    /// Dispatch (`back`: combine) of a GPU's `own` tokens.
    fn exchange(&self, comm: &Comm, own: f64, kind: A2aKind, decode: bool, back: bool) -> CommTime {
        match &self.one_node {
            Some(rows) => rows.at(own, back, decode),
            None if back => comm.combine(&self.a2a, own, kind),
            None => comm.dispatch(&self.a2a, own, kind),
        }
    }
}

/// A MoE layer as two half-batches in turn: one of them, their lane, and the seconds of both.
struct Halves {
    half: Batch,
    lane: Lane,
    wall: f64,
}

/// A worker of one layout.
pub struct Worker {
    pub parallel: Parallel,
    lib: Arc<Library>,
    attention: Arc<AttentionPart>,
    dense: Option<GatedMlp>,
    moe: Option<MoePart>,
    logits: [Arc<Surface>; 2],
    draft: Option<[Arc<Surface>; 2]>,
    memory: [Surface; 2],
    hidden: f64,
    overlap: bool,
    /// Whether MoE layers may run as two half-batches in turn.
    two_batches: bool,
    /// What giving SMs to a fused dispatch does to the experts.
    slowed: f64,
    /// Share of a decode layer's time that counts.
    decode_share: f64,
}

/// One pipeline stage of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTime {
    /// From the first operator to the last.
    pub seconds: f64,
    /// Operator time; more than `seconds` where operators overlap.
    pub work: Total,
}

impl Worker {
    /// Batches overlap only where serving says so.
    pub fn new(lib: &Arc<Library>, parallel: Parallel) -> Result<Worker> {
        Worker::overlapping(lib, parallel, lib.serving.two_batch_overlap.unwrap_or(false))
    }

    /// `two_batches`: whether MoE layers may run as two half-batches in turn.
    pub fn overlapping(lib: &Arc<Library>, parallel: Parallel, two_batches: bool) -> Result<Worker> {
        let p = parallel;
        let dense = if lib.program.layers_with(Ffn::Dense) > 0.0 {
            Some(GatedMlp::new(lib, lib.formats.dense_gemm, lib.model.dense_intermediate, p.tp)?)
        } else {
            None
        };
        let (mut one_node, mut wide) = (None, false);
        let moe = match &lib.model.moe {
            Some(m) => {
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
                Some(MoePart {
                    router: Router::new(lib, m.experts)?,
                    experts,
                    shared,
                    a2a,
                    lanes,
                    one_node,
                    reads,
                    missed: 1.0 - f64::from(m.topk) / f64::from(m.experts),
                })
            }
            None => None,
        };
        let vocab = lib.model.vocab.div_ceil(p.tp);
        Ok(Worker {
            parallel,
            attention: Arc::new(AttentionPart::new(lib, p.tp, p.cp)?),
            dense,
            moe,
            logits: [
                lib.gemm(false, Dtype::Bf16, vocab, lib.model.hidden)?,
                lib.gemm(true, Dtype::Bf16, vocab, lib.model.hidden)?,
            ],
            draft: draft::draft_projection(lib)?,
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(lib.model.hidden),
            overlap: lib.assumptions.shared_expert_overlap,
            two_batches,
            slowed: overlap::fused_slowdown(lib),
            decode_share: if wide { lib.wide_ep_decode() } else { 1.0 },
            lib: lib.clone(),
        })
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.lib
    }

    /// Attention-DP ranks.
    pub fn ranks(&self) -> f64 {
        f64::from(self.parallel.dp)
    }

    /// One step through all layers, as a total.
    pub fn step(&self, batch: &Batch) -> Total {
        let mut t = Total::default();
        self.price(batch, &mut t);
        t
    }

    /// One pipeline stage of that step (the slowest), hop included. Equal to the step without PP.
    pub fn stage(&self, batch: &Batch) -> StageTime {
        let mut whole = Total::default();
        let hidden = self.price_all(batch, &mut whole);
        let t = StageTime { seconds: whole.seconds - hidden, work: whole };
        let pp = self.parallel.pp;
        if pp <= 1 {
            return t;
        }
        let layers = self.lib.model.layers;
        let share = f64::from(layers.div_ceil(pp)) / f64::from(layers);
        let mut work = whole.times(share);
        let per_gpu = batch.tokens() * self.hidden * 2.0 / f64::from(self.parallel.tp);
        let hop = self.lib.comm.p2p(per_gpu, true);
        work.add(Op::PipelineHop, 1.0, hop.into());
        StageTime { seconds: t.seconds * share + hop.seconds, work }
    }

    /// The lane that a step of this batch takes; `None` for a dense model.
    pub fn lane(&self, batch: &Batch) -> Option<Lane> {
        let mixer = self.lib.program.first_with(Ffn::Experts);
        let lane = |m: &MoePart| self.halves(m, batch, mixer).map_or_else(|| self.best_lane(m, batch).0, |h| h.lane);
        self.moe.as_ref().map(lane)
    }

    /// One step through all layers.
    pub fn price<S: Sink>(&self, batch: &Batch, sink: &mut S) {
        self.price_all(batch, sink);
    }

    /// Prices a step and gives the operator seconds that two-batch overlap hides.
    fn price_all<S: Sink>(&self, batch: &Batch, sink: &mut S) -> f64 {
        let decode = !batch.has_prefill();
        let tokens = self.rank_tokens(batch);
        let bytes = tokens * self.hidden * 4.0;
        sink.add(Op::Embedding, 1.0, self.memory[usize::from(decode)].at(&[bytes]));
        let mut hidden = 0.0;
        let share = |b: &Batch| if b.has_prefill() { 1.0 } else { self.decode_share };
        for kind in self.lib.program.kinds() {
            let count = f64::from(kind.layers) * share(batch);
            match kind.ffn {
                Ffn::Dense => self.dense_layers(batch, kind.mixer, count, sink),
                Ffn::Experts => hidden += self.moe_layers(batch, kind.mixer, count, sink),
            }
        }
        self.price_logits(batch, batch.decode * batch.per_decode + batch.ending, 1.0, sink);
        if let Some(projection) = &self.draft {
            for (b, count) in draft::passes(self.lib.serving.mtp, batch).into_iter().filter(|(_, n)| *n > 0.0) {
                let mode = usize::from(!b.has_prefill());
                sink.add(Op::Draft, count, projection[mode].at(&[self.rank_tokens(&b) / f64::from(self.parallel.tp)]));
                if self.moe.is_some() {
                    self.whole_moe_layers(&b, DRAFT_MIXER, count * share(&b), sink);
                } else {
                    self.dense_layers(&b, DRAFT_MIXER, count * share(&b), sink);
                }
                // One row a sequence: the last accepted token's.
                self.price_logits(&b, b.decode + b.ending, count, sink);
            }
        }
        hidden
    }

    /// Whether batches may overlap.
    pub fn overlaps(&self) -> bool {
        self.two_batches
    }

    /// Tokens of one GPU group of the busiest attention rank.
    fn rank_tokens(&self, batch: &Batch) -> f64 {
        batch.decode * batch.per_decode + batch.sequences * batch.new / f64::from(self.parallel.cp)
    }

    fn price_logits<S: Sink>(&self, batch: &Batch, rows: f64, count: f64, sink: &mut S) {
        let decode = !batch.has_prefill();
        if rows > 0.0 {
            ffn::norm(&self.memory, self.hidden, rows, decode, count, sink);
            sink.add(Op::Logits, count, self.logits[usize::from(decode)].at(&[rows]));
        }
    }

    fn dense_layers<S: Sink>(&self, batch: &Batch, mixer: usize, count: f64, sink: &mut S) {
        if count <= 0.0 {
            return;
        }
        let decode = !batch.has_prefill();
        let tokens = self.rank_tokens(batch);
        self.attention.price(&self.lib.comm, batch, mixer, count, sink);
        if self.parallel.tp > 1 {
            let (comm, tp, bytes) = (&self.lib.comm, self.parallel.tp, tokens * self.hidden * 2.0);
            let reduce = comm.all_reduce(bytes, tp, self.lib.reduce_graph(decode));
            sink.carry(Op::TpReduce, 2.0 * count, reduce, || {
                comm.report_collective("all_reduce", bytes, comm.packed(tp))
            });
        }
        ffn::norm(&self.memory, self.hidden, tokens, decode, count, sink);
        if let Some(mlp) = &self.dense {
            mlp.price(Op::DenseFfn, tokens, decode, count, sink);
        }
    }

    /// MoE layers, overlapped if serving says so; gives the operator seconds hidden.
    fn moe_layers<S: Sink>(&self, batch: &Batch, mixer: usize, count: f64, sink: &mut S) -> f64 {
        let Some(moe) = &self.moe else { return 0.0 };
        if count <= 0.0 {
            return 0.0;
        }
        let Some(Halves { half, lane, wall }) = self.halves(moe, batch, mixer) else {
            self.whole_moe_layers(batch, mixer, count, sink);
            return 0.0;
        };
        let mut t = Total::default();
        self.attention.price(&self.lib.comm, &half, mixer, 1.0, &mut t);
        self.layer_of(moe, lane, &half, false, 1.0, &mut t);
        if S::DETAIL {
            self.attention.price(&self.lib.comm, &half, mixer, 2.0 * count, sink);
            self.layer_of(moe, lane, &half, false, 2.0 * count, sink);
        } else {
            sink.merge(&t.times(2.0 * count));
        }
        count * (2.0 * t.seconds - wall)
    }

    fn whole_moe_layers<S: Sink>(&self, batch: &Batch, mixer: usize, count: f64, sink: &mut S) {
        if let (true, Some(moe)) = (count > 0.0, &self.moe) {
            self.attention.price(&self.lib.comm, batch, mixer, count, sink);
            let (lane, total) = self.best_lane(moe, batch);
            if S::DETAIL {
                self.moe_layer(moe, lane, batch, count, sink);
            } else {
                sink.merge(&total.times(count));
            }
        }
    }

    /// The two half-batches of a MoE layer, where they may overlap, there is something to halve, and the layer is the
    /// faster for it.
    fn halves(&self, moe: &MoePart, batch: &Batch, mixer: usize) -> Option<Halves> {
        let splits = batch.decode >= 2.0 || batch.has_prefill();
        if !self.two_batches || !splits {
            return None;
        }
        let half = batch.part(2);
        let (lane, wall) = self.best_overlap(moe, &half, mixer);
        let mut attention = Total::default();
        self.attention.price(&self.lib.comm, batch, mixer, 1.0, &mut attention);
        let whole = attention.seconds + self.best_lane(moe, batch).1.seconds;
        (wall < whole).then_some(Halves { half, lane, wall })
    }

    /// Whether a lane takes this batch: buffers, and no host-side sizes under CUDA graphs.
    fn takes(&self, lane: Lane, batch: &Batch) -> bool {
        let Some(kind) = lane.exchange() else { return true };
        let own = self.rank_tokens(batch) / f64::from(self.parallel.tp);
        let decode = !batch.has_prefill();
        if self.moe.as_ref().is_some_and(|m| m.one_node.is_some()) {
            return decode == (kind == A2aKind::LowLatency);
        }
        own <= kind.most_tokens() && !(kind == A2aKind::Normal && decode && self.lib.graph(true))
    }

    fn best_lane(&self, moe: &MoePart, batch: &Batch) -> (Lane, Total) {
        let mut best: Option<(Lane, Total)> = None;
        // The first lane takes any number of tokens.
        for lane in moe.lanes.iter().filter(|l| self.takes(**l, batch)) {
            let mut t = Total::default();
            self.moe_layer(moe, *lane, batch, 1.0, &mut t);
            if best.as_ref().is_none_or(|(_, b)| t.seconds < b.seconds) {
                best = Some((*lane, t));
            }
        }
        best.unwrap_or((Lane::Tensor, Total::default()))
    }

    /// The lane with the shortest layer of two overlapped halves, and its seconds.
    fn best_overlap(&self, moe: &MoePart, half: &Batch, mixer: usize) -> (Lane, f64) {
        let mut attention = Total::default();
        self.attention.price(&self.lib.comm, half, mixer, 1.0, &mut attention);
        let mut best: Option<(Lane, f64)> = None;
        // A fused kernel leaves nothing for the other half to hide.
        let apart = moe.lanes.iter().filter(|l| !matches!(l, Lane::Fused(_)));
        for lane in apart.filter(|l| self.takes(**l, half)) {
            let mut parts = LayerParts::default();
            self.layer_of(moe, *lane, half, false, 1.0, &mut parts);
            let slowed = overlap::slowdown(&self.lib, lane.exchange());
            let wall = parts.overlapped(attention.seconds, *lane == Lane::Tensor, slowed);
            if best.is_none_or(|(_, b)| wall < b) {
                best = Some((*lane, wall));
            }
        }
        best.unwrap_or((Lane::Tensor, 0.0))
    }

    /// Everything of one MoE layer after the attention block.
    fn moe_layer<S: Sink>(&self, moe: &MoePart, lane: Lane, batch: &Batch, count: f64, sink: &mut S) {
        self.layer_of(moe, lane, batch, self.overlap, count, sink);
    }

    /// The same; `beside`: whether the shared expert of a decode step hides behind the routed path (two half-batches
    /// already fill that time).
    fn layer_of<S: Sink>(&self, moe: &MoePart, lane: Lane, batch: &Batch, beside: bool, count: f64, sink: &mut S) {
        let decode = !batch.has_prefill();
        let comm = &self.lib.comm;
        let p = &self.parallel;
        let gpus = p.stage_gpus();
        let cp = f64::from(p.cp);
        // Tokens of the busiest attention rank's TP group, and of all ranks together.
        let rank = batch.decode * batch.per_decode + batch.sequences * batch.new / cp;
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
                moe.router.price(rank, decode, count, sink);
                let experts = moe.experts.fused(all, decode);
                sink.add(Op::Experts, count, experts);
                if let Some(shared) = &moe.shared {
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
                moe.router.price(own, decode, count, sink);
                let gathered = all * self.hidden * self.lib.gather_bytes();
                let (out, experts, back) = match lane {
                    Lane::Dispatch(kind) | Lane::Fused(kind) => (
                        moe.exchange(comm, own, kind, decode, false),
                        moe.experts.dispatched(all, decode),
                        moe.exchange(comm, own, kind, decode, true),
                    ),
                    _ => (
                        self.lib.all_gather(gathered, gpus),
                        moe.experts.fused(all, decode),
                        self.lib.reduce_scatter(all * row, gpus),
                    ),
                };
                let report = |back: bool| match lane {
                    Lane::Dispatch(kind) | Lane::Fused(kind) => {
                        let report = comm.report_exchange(&moe.a2a, own, kind, back, None);
                        match &moe.one_node {
                            Some(rows) => report.timed(rows.at(own, back, decode), rows.at(1.0, back, decode).seconds),
                            None => report,
                        }
                    }
                    _ if back => comm.report_collective("reduce_scatter", all * row, comm.packed(gpus)),
                    _ => comm.report_collective("all_gather", gathered, comm.packed(gpus)),
                };
                let routed = if let Lane::Fused(kind) = lane {
                    let starts = [false, true].map(|back| moe.exchange(comm, 0.0, kind, decode, back));
                    let reads = moe.reads * (1.0 - moe.missed.powf(all));
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
                if let Some(shared) = &moe.shared {
                    let hidden = if decode && beside { routed } else { 0.0 };
                    shared[1].price_beside(Op::SharedExpert, own, decode, count, hidden, sink);
                }
            }
        }
    }
}
