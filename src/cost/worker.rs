//! One step of a worker whose GPUs do everything: attention, FFN, and the exchange between ranks.
//!
//! `D = dp` attention ranks of `tp x cp` GPUs each; experts over `ep x moe_tp` GPUs. How tokens
//! reach the experts is a lane, and each step takes the fastest it can have:
//! - tensor: all GPUs hold all tokens; all-reduce after attention and after the experts;
//! - gather: all-gather of the tokens, fused expert kernel, reduce-scatter;
//! - dispatch (low-latency, normal or one-sided all-to-all), grouped kernel where measured, combine.
//!
//! Pipeline parallelism: the slowest of `pp` stages holds ceil(L/pp) layers plus one hop.

use super::Batch;
use super::attention::AttentionPart;
use super::ffn::{self, Experts, GatedMlp, Router};
use super::library::Library;
use super::sink::{Op, Sink, Total};
use crate::error::{Error, Result};
use crate::kernels::Surface;
use crate::network::{A2aKind, A2aShape};
use crate::spec::assumptions::Exchange;
use crate::spec::{Attention, Dtype, Model, Parallel};
use std::sync::Arc;

/// How tokens reach the experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Tensor,
    Gather,
    Dispatch(A2aKind),
}

impl Lane {
    pub fn name(self) -> &'static str {
        match self {
            Lane::Tensor => "fused+all-reduce",
            Lane::Gather => "fused+all-gather",
            Lane::Dispatch(A2aKind::LowLatency) => "grouped+low-latency",
            Lane::Dispatch(A2aKind::Normal) => "grouped+normal",
            Lane::Dispatch(A2aKind::OneSided) => "grouped+one-sided",
        }
    }
}

/// Layers of each kind: (dense FFN?, sliding attention?) -> count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerCounts {
    pub dense: [f64; 2],
    pub moe: [f64; 2],
}

impl LayerCounts {
    pub fn of(model: &Model) -> LayerCounts {
        let mut c = LayerCounts::default();
        for layer in 0..model.layers {
            let sliding = usize::from(is_sliding(model, layer));
            if model.moe.is_none() || layer < model.dense_layers {
                c.dense[sliding] += 1.0;
            } else {
                c.moe[sliding] += 1.0;
            }
        }
        c
    }
}

/// Whether a layer attends through a sliding window.
pub fn is_sliding(model: &Model, layer: u32) -> bool {
    match &model.attention {
        Attention::Gqa { window: Some(w), .. } => w.layers.get(layer as usize).copied().unwrap_or(false),
        _ => false,
    }
}

struct MoePart {
    router: Router,
    experts: Experts,
    /// Shared expert split over the TP ranks, and whole.
    shared: Option<[GatedMlp; 2]>,
    a2a: A2aShape,
    lanes: Vec<Lane>,
}

/// A worker of one layout.
pub struct Worker {
    pub parallel: Parallel,
    lib: Arc<Library>,
    counts: LayerCounts,
    attention: AttentionPart,
    dense: Option<GatedMlp>,
    moe: Option<MoePart>,
    logits: [Arc<Surface>; 2],
    memory: [Surface; 2],
    hidden: f64,
    overlap: bool,
}

impl Worker {
    pub fn new(lib: &Arc<Library>, parallel: Parallel) -> Result<Worker> {
        let p = parallel;
        let counts = LayerCounts::of(&lib.model);
        let dense = if counts.dense[0] + counts.dense[1] > 0.0 {
            Some(GatedMlp::new(lib, lib.formats.dense_gemm, lib.model.dense_intermediate, p.tp)?)
        } else {
            None
        };
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
                    lanes.extend(lib.comm.kinds().iter().map(|k| Lane::Dispatch(*k)));
                }
                let a2a = A2aShape {
                    hidden: lib.model.hidden,
                    topk: m.topk,
                    experts: m.experts,
                    groups: m.groups,
                    topk_groups: m.topk_groups,
                    ep: p.ep(),
                    dispatch_dtype: lib.formats.comm,
                };
                Some(MoePart { router: Router::new(lib, m.experts)?, experts, shared, a2a, lanes })
            }
            None => None,
        };
        let vocab = lib.model.vocab.div_ceil(p.tp);
        Ok(Worker {
            parallel,
            counts,
            attention: AttentionPart::new(lib, p.tp, p.cp)?,
            dense,
            moe,
            logits: [
                lib.gemm(false, Dtype::Bf16, vocab, lib.model.hidden)?,
                lib.gemm(true, Dtype::Bf16, vocab, lib.model.hidden)?,
            ],
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(lib.model.hidden),
            overlap: lib.assumptions.shared_expert_overlap,
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
    pub fn stage(&self, batch: &Batch) -> Total {
        let t = self.step(batch);
        let pp = self.parallel.pp;
        if pp <= 1 {
            return t;
        }
        let layers = self.lib.model.layers;
        let mut stage = t.times(f64::from(layers.div_ceil(pp)) / f64::from(layers));
        let per_gpu = batch.tokens() * self.hidden * 2.0 / f64::from(self.parallel.tp);
        stage.add(Op::PipelineHop, 1.0, self.lib.comm.p2p(per_gpu, true).into());
        stage
    }

    /// The lane that a step of this batch takes; `None` for a dense model.
    pub fn lane(&self, batch: &Batch) -> Option<Lane> {
        self.moe.as_ref().map(|m| self.best_lane(m, batch).0)
    }

    /// One step through all layers.
    pub fn price<S: Sink>(&self, batch: &Batch, sink: &mut S) {
        let decode = !batch.has_prefill();
        let mode = usize::from(decode);
        let cp = f64::from(self.parallel.cp);
        let tp = self.parallel.tp;
        let tokens = batch.decode * batch.per_decode + batch.sequences * batch.new / cp;
        sink.add(Op::Embedding, 1.0, self.memory[mode].at(&[tokens * self.hidden * 4.0]));
        for sliding in [0, 1] {
            let count = self.counts.dense[sliding];
            if count > 0.0 {
                self.attention.price(&self.lib.comm, batch, sliding == 1, count, sink);
                let bytes = tokens * self.hidden * 2.0;
                if tp > 1 {
                    let reduce = self.lib.comm.all_reduce(bytes, tp, self.lib.graph(decode));
                    sink.add(Op::TpReduce, 2.0 * count, reduce.into());
                }
                ffn::norm(&self.memory, self.hidden, tokens, decode, count, sink);
                if let Some(mlp) = &self.dense {
                    mlp.price(Op::DenseFfn, tokens, decode, count, sink);
                }
            }
            let count = self.counts.moe[sliding];
            if let (true, Some(moe)) = (count > 0.0, &self.moe) {
                self.attention.price(&self.lib.comm, batch, sliding == 1, count, sink);
                let (lane, total) = self.best_lane(moe, batch);
                if S::DETAIL {
                    self.moe_layer(moe, lane, batch, count, sink);
                } else {
                    sink.merge(&total.times(count));
                }
            }
        }
        let rows = batch.decode * batch.per_decode + batch.ending;
        if rows > 0.0 {
            ffn::norm(&self.memory, self.hidden, rows, decode, 1.0, sink);
            sink.add(Op::Logits, 1.0, self.logits[mode].at(&[rows]));
        }
    }

    fn best_lane(&self, moe: &MoePart, batch: &Batch) -> (Lane, Total) {
        let mut best: Option<(Lane, Total)> = None;
        // The first lane takes any number of tokens.
        let own = (batch.decode * batch.per_decode + batch.sequences * batch.new / f64::from(self.parallel.cp))
            / f64::from(self.parallel.tp);
        for lane in &moe.lanes {
            if matches!(lane, Lane::Dispatch(kind) if own > kind.most_tokens()) {
                continue;
            }
            // The normal kernels read their sizes on the host, so a decode step under graphs cannot have them.
            let decode = !batch.has_prefill();
            if *lane == Lane::Dispatch(A2aKind::Normal) && decode && self.lib.graph(true) {
                continue;
            }
            let mut t = Total::default();
            self.moe_layer(moe, *lane, batch, 1.0, &mut t);
            if best.as_ref().is_none_or(|(_, b)| t.seconds < b.seconds) {
                best = Some((*lane, t));
            }
        }
        best.unwrap_or((Lane::Tensor, Total::default()))
    }

    /// Everything of one MoE layer after the attention block.
    fn moe_layer<S: Sink>(&self, moe: &MoePart, lane: Lane, batch: &Batch, count: f64, sink: &mut S) {
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
                    let reduce = comm.all_reduce(rank * row, p.tp, self.lib.graph(decode));
                    sink.add(Op::TpReduce, 2.0 * count, reduce.into());
                }
                moe.router.price(rank, decode, count, sink);
                let experts = moe.experts.fused(all, decode);
                sink.add(Op::Experts, count, experts);
                if let Some(shared) = &moe.shared {
                    let beside = if decode && self.overlap { experts.seconds } else { 0.0 };
                    shared[0].price_beside(Op::SharedExpert, rank, decode, count, beside, sink);
                }
            }
            Lane::Gather | Lane::Dispatch(_) => {
                // After attention each TP rank keeps its share of the rows (reduce-scatter), and gets
                // the others' back at the end of the layer (all-gather).
                let own = rank / f64::from(p.tp);
                if p.tp > 1 {
                    sink.add(Op::TpReduce, count, comm.reduce_scatter(rank * row, p.tp).into());
                    sink.add(Op::TpReduce, count, comm.all_gather(rank * row, p.tp).into());
                }
                moe.router.price(own, decode, count, sink);
                let (out, experts, back) = match lane {
                    Lane::Dispatch(kind) => (
                        comm.dispatch(&moe.a2a, own, kind),
                        moe.experts.dispatched(all, decode),
                        comm.combine(&moe.a2a, own, kind),
                    ),
                    _ => (
                        self.lib.all_gather(all * self.hidden * self.lib.formats.comm.activation_bytes(), gpus),
                        moe.experts.fused(all, decode),
                        self.lib.reduce_scatter(all * row, gpus),
                    ),
                };
                sink.add(Op::Dispatch, count, out.into());
                sink.add(Op::Experts, count, experts);
                sink.add(Op::Combine, count, back.into());
                if let Some(shared) = &moe.shared {
                    let beside =
                        if decode && self.overlap { out.seconds + experts.seconds + back.seconds } else { 0.0 };
                    shared[1].price_beside(Op::SharedExpert, own, decode, count, beside, sink);
                }
            }
        }
    }
}
