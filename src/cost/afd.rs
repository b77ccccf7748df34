//! One AFD unit: an attention pool and an FFN pool, and the four stages of a layer between them.
//!
//! Attention pool: `D = gpus / tp` ranks; embedding and LM head live here.
//! FFN pool: replicas of `ep x moe_tp` GPUs holding all routed experts.
//! Router, dense layers and shared expert stand on either side. With the router on the FFN side a
//! token travels once to one FFN GPU and once back, and the pool exchanges rows between its experts
//! itself. A dense layer on the FFN side is a data-parallel copy on every moe-TP group.
//! Stages of one micro-batch and layer (physics.md section 5): attention, A2F, FFN, F2A; attention
//! TP ends in a reduce-scatter (the all-gather of the way back is part of F2A), MoE-TP in a
//! reduce-scatter inside the FFN pool. Neither is free.
//! A shared expert on the attention side runs there beside nothing: it lengthens that stage.
//! Fused dispatch: the way in, the expert GEMMs and the way back are one kernel that works in waves
//! of experts (DeepGEMM's MegaMoE), and gives some of its SMs to communication. The stage takes the
//! longest of the three; only the start-up of either way is a stage of its own. Fewer SMs slow the
//! GEMMs, but not below the time that HBM needs for the experts' weights. Where the FFN GPUs route,
//! the exchange into their experts is fused and the two hops are not.
//! Attention groups: the unit is one group's, A/G attention GPUs before all F FFN GPUs, which serve the other groups
//! too; how the groups take turns is the schedule's business (`serving::pipeline`).
//! A dense model: every layer is a dense one whose FFN stands on the FFN pool, and so are its draft layers.
//! MTP: each draft pass is one more layer with its own projection and logits, a MoE layer where the model has any.
//!
//! Limit: the FFN pool sees the same number of tokens on every replica, and both pools keep step; hosts and launches
//! are priced elsewhere.

mod hops;
mod lines;
mod parts;
mod stages;

use std::sync::Arc;

pub use self::hops::Hops;
pub use self::lines::AfdLines;
pub use self::stages::{LayerStages, MicroRow, UnitParts, rows};
use super::attention::AttentionPart;
use super::ends::Ends;
use super::ffn::{self, Experts, GatedMlp, Router};
use super::ledger::{Ledger, Op, Total};
use super::library::Library;
use super::overlap::fused_slowdown;
use super::program::{Ffn, Surfaces};
use super::{Batch, published};
use crate::error::{Error, Result};
use crate::kernels::Surface;
use crate::kernels::roofline::BANDWIDTH_EFFICIENCY;
use crate::math::combinatorics::distinct_groups;
use crate::network::report::Report;
use crate::network::{A2aKind, A2aShape, AfdShape, Collective, CommTime};
use crate::spec::AfdPlan;
use crate::spec::assumptions::{Copies, Exchange, FfnPool};
use crate::spec::plan::Side;

/// An exchange between the experts' GPUs: tokens per GPU by an all-to-all, or bytes by collectives.
struct Exchanged {
    out: CommTime,
    back: CommTime,
    kind: Option<A2aKind>,
    amount: f64,
}

impl Exchanged {
    fn seconds(&self) -> f64 {
        self.out.seconds + self.back.seconds
    }
}

/// An AFD unit of one layout.
pub struct AfdUnit {
    /// Of one group.
    pub attention_gpus: u32,
    /// Groups of attention GPUs that share the FFN pool.
    pub groups: u32,
    pub attention_tp: u32,
    pub ffn_gpus: u32,
    pub replicas: u32,
    lib: Arc<Library>,
    /// Library of the FFN pool (other hardware if the plan says so).
    ffn_lib: Arc<Library>,
    attention: Arc<AttentionPart>,
    /// None: a dense model.
    router: Option<Router>,
    router_on_ffn: bool,
    dense: Option<GatedMlp>,
    /// Whether dense layers run through all four stages.
    pub dense_on_ffn: bool,
    /// None: a dense model, whose FFNs the pool holds: a copy on every moe-TP group.
    experts: Option<Experts>,
    pub ep: u32,
    pub moe_tp: u32,
    shared: Option<GatedMlp>,
    shared_on_ffn: bool,
    hops: Hops,
    /// Whether the pools stand on GPUs named by the plan.
    placed: bool,
    /// The exchange between FFN GPUs when they route.
    inner: A2aShape,
    ends: Ends,
    /// What a fused dispatch does to the rest of the FFN stage; none: not fused.
    pub slowed: Option<f64>,
    /// Start-up of A2F and F2A, where a fused kernel hides the rest of them.
    starts: [f64; 2],
    /// What separate kernels of the experts take beside reading and computing.
    between: f64,
    memory: [Surface; 2],
    ffn_memory: [Surface; 2],
    hidden: f64,
    overlap: bool,
    /// Whether attention ranks and moe-TP groups are charged their reductions.
    reduces: bool,
    /// Whether experts may run on the grouped kernel, or on the fused one alone.
    grouped: bool,
    /// Whether every FFN GPU routes all tokens and computes the shared expert on them.
    whole_ffn: bool,
    /// Whether one link brings a node's tokens, which are then exchanged inside it.
    one_link: bool,
}

impl AfdUnit {
    pub fn new(lib: &Arc<Library>, ffn_lib: &Arc<Library>, plan: &AfdPlan) -> Result<AfdUnit> {
        let moe = lib.model.moe.as_ref();
        let all = moe.map_or(1, |m| m.experts);
        let tp = plan.attention.tp;
        let moe_tp = plan.ffn.moe_tp;
        let ep = plan.ffn.ep_for(all);
        let replicas = plan.ffn.groups_for(all).max(1);
        let (router_on_ffn, dense_on_ffn) = (plan.router == Side::Ffn, plan.dense_side(moe.is_some()) == Side::Ffn);
        let dense = if lib.program.layers_with(Ffn::Dense) > 0.0 {
            let (home, shards) = if dense_on_ffn { (ffn_lib, moe_tp) } else { (lib, tp) };
            Some(GatedMlp::new(home, home.formats.dense_gemm, home.model.dense_intermediate, shards)?)
        } else {
            None
        };
        let shared_on_ffn = plan.shared_expert == Side::Ffn;
        let shared = match moe.map_or(0, |m| m.shared_intermediate) {
            0 => None,
            wide => {
                let home = if shared_on_ffn { ffn_lib } else { lib };
                Some(GatedMlp::new(home, lib.formats.shared_gemm, wide, 1)?)
            }
        };
        let experts = Experts::new(ffn_lib, ep, moe_tp, true)?;
        if moe.is_some() && experts.is_none() {
            return Err(Error::data("kernels", "no expert kernel for a model with experts"));
        }
        let [topk, limits] = [moe.map_or(1, |m| m.topk), moe.map_or(1, |m| m.groups)];
        let topk_groups = moe.map_or(1, |m| m.topk_groups);
        let shape = AfdShape {
            hidden: if router_on_ffn { lib.model.hidden } else { lib.model.expert_hidden() },
            topk,
            experts: all,
            groups: limits,
            topk_groups,
            attention_gpus: plan.group_gpus(),
            attention_tp: tp,
            ffn_gpus: plan.ffn.gpus,
            ep,
            moe_tp,
            dispatch_dtype: lib.formats.comm,
            prereduce: plan.prereduce,
            shared_copy: shared.is_some() && shared_on_ffn,
            half_duplex: plan.duplex == crate::spec::plan::Duplex::Half,
            spread: hops::spread(plan, lib.cluster.fabric.domain_gpus),
        };
        let mut unit = AfdUnit {
            attention_gpus: plan.group_gpus(),
            groups: plan.attention_groups.max(1),
            attention_tp: tp,
            ffn_gpus: plan.ffn.gpus,
            replicas,
            attention: Arc::new(AttentionPart::new(lib, tp, 1)?),
            router: moe.map(|m| Router::new(if router_on_ffn { ffn_lib } else { lib }, m.experts)).transpose()?,
            router_on_ffn,
            dense,
            dense_on_ffn,
            experts,
            ep,
            moe_tp,
            shared,
            shared_on_ffn,
            hops: Hops { lib: lib.clone(), shape, groups: plan.attention_groups.max(1), replicas, router_on_ffn },
            placed: plan.placement.is_some(),
            inner: A2aShape {
                hidden: lib.model.expert_hidden(),
                topk,
                experts: all,
                groups: limits,
                topk_groups,
                ep,
                dispatch_dtype: lib.formats.comm,
            },
            ends: Ends::new(lib, tp)?,
            slowed: (lib.serving.fused_dispatch && moe.is_some()).then(|| fused_slowdown(ffn_lib)),
            starts: [0.0; 2],
            between: 0.0,
            memory: [lib.memory(false), lib.memory(true)],
            ffn_memory: [ffn_lib.memory(false), ffn_lib.memory(true)],
            hidden: f64::from(lib.model.hidden),
            overlap: lib.assumptions.shared_expert_overlap,
            reduces: lib.assumptions.afd_reductions,
            grouped: lib.assumptions.exchange == Exchange::Best,
            whole_ffn: lib.assumptions.ffn_pool == FfnPool::Whole,
            one_link: lib.assumptions.copies == Copies::OneLink,
            lib: lib.clone(),
            ffn_lib: ffn_lib.clone(),
        };
        if unit.slowed.is_some() && !router_on_ffn {
            unit.starts = [false, true].map(|back| unit.hops.transfer(0.0, back).seconds);
            unit.between = unit.experts.as_ref().map_or(0.0, |e| e.between(lib));
        }
        Ok(unit)
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.lib
    }

    /// What travels between its pools.
    pub fn hops(&self) -> &Hops {
        &self.hops
    }

    /// Attention-DP ranks of one group: those that step together.
    pub fn ranks(&self) -> f64 {
        f64::from(self.attention_gpus / self.attention_tp)
    }

    /// Embedding, final norm and LM head of one micro-batch: attention-pool work once a step.
    pub fn price_ends<S: Ledger>(&self, batch: &Batch, ledger: &mut S) {
        stages::ends(self, batch, batch, ledger);
    }

    /// What a draft pass adds to its layer on the attention pool: the projection before it and the logits after.
    pub(crate) fn price_draft_ends<S: Ledger>(&self, batch: &Batch, ledger: &mut S) {
        stages::draft_ends(self, batch, batch, ledger);
    }

    /// Attention stage of a dense layer; with its FFN when that stands here.
    pub fn price_dense<S: Ledger>(&self, batch: &Batch, mixer: usize, ledger: &mut S) {
        let decode = !batch.has_prefill();
        let tokens = batch.tokens();
        self.attention.price(&self.lib.comm, batch, mixer, 1.0, ledger);
        let bytes = tokens * self.hidden * 2.0;
        if self.dense_on_ffn {
            self.price_scatter(bytes, ledger);
            return;
        }
        if self.attention_tp > 1 && self.reduces {
            let (comm, tp) = (&self.lib.comm, self.attention_tp);
            let reduce = comm.all_reduce(bytes, tp, self.lib.reduce_graph(decode));
            ledger.carry(Op::TpReduce, 2.0, reduce, || {
                comm.report_collective(Collective::AllReduce, bytes, comm.packed(tp))
            });
        }
        ffn::norm(&self.memory, self.hidden, tokens, decode, 1.0, ledger);
        if let Some(mlp) = &self.dense {
            mlp.price(Op::DenseFfn, tokens, decode, 1.0, ledger);
        }
    }

    /// FFN stage of a dense layer whose FFN stands on the FFN pool.
    pub fn price_dense_ffn<S: Ledger>(&self, batch: &Batch, ledger: &mut S) {
        self.price_dense_ffn_of(self.ranks() * batch.mean_tokens(), !batch.has_prefill(), ledger);
    }

    /// The same where the micro-batches of all ranks together have `all` tokens.
    fn price_dense_ffn_of<S: Ledger>(&self, all: f64, decode: bool, ledger: &mut S) {
        let shards = f64::from(self.moe_tp);
        let tokens = all * shards / f64::from(self.ffn_gpus);
        let bytes = tokens * self.hidden * 2.0;
        if self.moe_tp > 1 {
            // A token comes to one GPU; all of its group need it.
            let comm = &self.ffn_lib.comm;
            let gathered = comm.all_gather(bytes, self.moe_tp);
            ledger.carry(Op::MoeTpReduce, 1.0, gathered, || {
                comm.report_collective(Collective::AllGather, bytes, comm.packed(self.moe_tp))
            });
        }
        ledger.add(Op::Norm, 1.0, self.ffn_memory[usize::from(decode)].at(&[tokens * self.hidden * 8.0]));
        if let Some(mlp) = &self.dense {
            mlp.price(Op::DenseFfn, tokens, decode, 1.0, ledger);
        }
        if self.moe_tp > 1 {
            self.moe_reduce(bytes, ledger);
        }
    }

    /// Reduce-scatter inside a moe-TP group; gives its seconds.
    fn moe_reduce<S: Ledger>(&self, bytes: f64, ledger: &mut S) -> f64 {
        let (comm, moe_tp) = (&self.ffn_lib.comm, self.moe_tp);
        let reduce = comm.reduce_scatter(bytes, moe_tp);
        ledger.carry(Op::MoeTpReduce, 1.0, reduce, || {
            comm.report_collective(Collective::ReduceScatter, bytes, comm.packed(moe_tp))
        });
        reduce.seconds
    }

    fn price_scatter<S: Ledger>(&self, bytes: f64, ledger: &mut S) {
        if self.attention_tp > 1 && self.reduces {
            let (comm, tp) = (&self.lib.comm, self.attention_tp);
            let reduce = comm.reduce_scatter(bytes, tp);
            ledger.carry(Op::TpReduce, 1.0, reduce, || {
                comm.report_collective(Collective::ReduceScatter, bytes, comm.packed(tp))
            });
        }
    }

    /// Attention stage of a MoE layer.
    pub fn price_attention<S: Ledger>(&self, batch: &Batch, mixer: usize, ledger: &mut S) {
        let decode = !batch.has_prefill();
        let tokens = batch.tokens();
        self.attention.price(&self.lib.comm, batch, mixer, 1.0, ledger);
        self.price_scatter(tokens * self.hidden * 2.0, ledger);
        let own = tokens / f64::from(self.attention_tp);
        if self.whole_ffn {
            // The router stands with the experts, its norm does not; the results of the EP ranks are added up here.
            ffn::norm(&self.memory, self.hidden, own, decode, 1.0, ledger);
            let bytes = published::combine_bytes(tokens, self.hidden, self.ep, self.attention_tp);
            ledger.add(Op::Combine, 1.0, self.memory[usize::from(decode)].at(&[bytes]));
        } else if let (Some(router), false) = (&self.router, self.router_on_ffn) {
            router.price(own, decode, 1.0, ledger);
        }
        if let (Some(shared), false) = (&self.shared, self.shared_on_ffn) {
            shared.price(Op::SharedExpert, own, decode, 1.0, ledger);
        }
    }

    /// What aiconfigurator adds to the FFN stage when one link brings a node's tokens: all-gather and
    /// reduce-scatter inside the node (of one rank's share, where its table counts whole buffers), and,
    /// for models whose decode experts are one fused operator there, two all-reduces of all tokens.
    fn node_exchange<S: Ledger>(&self, batch: &Batch, ledger: &mut S) -> f64 {
        let decode = !batch.has_prefill();
        let node = self.lib.cluster.fabric.node_gpus.max(1);
        let local = self.ffn_gpus.min(node);
        let mut seconds = 0.0;
        if local > 1 {
            let link = self.hops.transfer_bytes(batch.mean_tokens(), false, Copies::OneLink);
            let bytes = link * self.ranks() / f64::from(local);
            let comm = &self.ffn_lib.comm;
            for (op, time) in [
                (Collective::AllGather, comm.all_gather(bytes, local)),
                (Collective::ReduceScatter, comm.reduce_scatter(bytes, local)),
            ] {
                ledger.carry(Op::MoeTpReduce, 1.0, time, || comm.report_collective(op, bytes, comm.packed(local)));
                seconds += time.seconds;
            }
        }
        if decode && self.lib.model.is_mla() && self.ffn_gpus > 1 {
            let all = self.ranks() * batch.mean_tokens() * self.hidden * 2.0;
            let reduce = self.ffn_lib.all_reduce(all, self.ffn_gpus, true);
            let comm = &self.ffn_lib.comm;
            ledger.carry(Op::MoeTpReduce, 2.0, reduce, || {
                comm.report_collective(Collective::AllReduce, all, comm.packed(self.ffn_gpus))
            });
            seconds += 2.0 * reduce.seconds;
        }
        seconds
    }

    /// Tokens of one FFN GPU when they lie evenly on the pool.
    fn own_tokens(&self, batch: &Batch) -> f64 {
        self.ranks() * batch.mean_tokens() / f64::from(self.ffn_gpus)
    }

    /// The fastest exchange among the experts' GPUs when the FFN side routes.
    fn exchange(&self, batch: &Batch) -> Option<Exchanged> {
        if !self.router_on_ffn || self.ep <= 1 {
            return None;
        }
        let decode = !batch.has_prefill();
        let comm = &self.ffn_lib.comm;
        // Each EP rank is a moe-TP group whose GPUs all need the row.
        let own = self.own_tokens(batch) * f64::from(self.moe_tp);
        let graph = decode && self.ffn_lib.graph(true);
        // Beyond what any kernel takes: gather all rows, scatter the sums.
        let rows = own * f64::from(self.ep) * self.hidden * 2.0;
        comm.kinds()
            .iter()
            .filter(|k| own <= k.most_tokens() && !(graph && **k == A2aKind::Normal))
            .map(|k| Exchanged {
                out: comm.dispatch(&self.inner, own, *k),
                back: comm.combine(&self.inner, own, *k),
                kind: Some(*k),
                amount: own,
            })
            .min_by(|a, b| a.seconds().total_cmp(&b.seconds()))
            .or_else(|| {
                let ep = self.ep;
                Some(Exchanged {
                    out: comm.all_gather(rows, ep),
                    back: comm.reduce_scatter(rows, ep),
                    kind: None,
                    amount: rows,
                })
            })
    }

    /// What one direction of that exchange moves.
    fn report_exchange(&self, e: &Exchanged, back: bool) -> Report {
        let comm = &self.ffn_lib.comm;
        match e.kind {
            Some(kind) => comm.report_exchange(&self.inner, e.amount, kind, back, None),
            None => {
                let op = if back { Collective::ReduceScatter } else { Collective::AllGather };
                comm.report_collective(op, e.amount, comm.packed(self.ep))
            }
        }
    }

    /// FFN stage: experts on the tokens of all attention ranks, and the shared expert. Gives the
    /// seconds of its own exchange into the experts.
    pub fn price_ffn<S: Ledger>(&self, batch: &Batch, ledger: &mut S) -> f64 {
        self.price_ffn_of(self.ranks() * batch.mean_tokens(), batch, ledger)
    }

    /// The same where the micro-batches of all ranks together have `all` tokens.
    fn price_ffn_of<S: Ledger>(&self, all: f64, batch: &Batch, ledger: &mut S) -> f64 {
        let decode = !batch.has_prefill();
        let tokens = all / f64::from(self.replicas);
        let exchange = self.exchange(batch);
        let mut beside = 0.0;
        let Some((experts, router)) = self.experts.as_ref().zip(self.router.as_ref()) else { return 0.0 };
        if self.whole_ffn {
            beside += router.price_gemm(tokens, decode, 1.0, ledger);
        } else if self.router_on_ffn {
            router.price(self.own_tokens(batch), decode, 1.0, ledger);
        }
        if let Some(e) = &exchange {
            ledger.carry(Op::Dispatch, 1.0, e.out, || self.report_exchange(e, false));
        }
        let experts = if self.grouped { experts.best(tokens, decode) } else { experts.fused(tokens, decode) };
        ledger.add(Op::Experts, 1.0, experts);
        beside += experts.seconds;
        if self.one_link {
            beside += self.node_exchange(batch, ledger);
        }
        if self.moe_tp > 1 && self.reduces {
            // Rows on one EP group: the expected copies of all tokens, spread over the groups.
            let copies = distinct_groups(self.inner.experts, self.ep, self.inner.topk);
            let rows = tokens * copies / f64::from(self.ep);
            beside += self.moe_reduce(rows * self.hidden * 2.0, ledger);
        }
        if let Some(e) = &exchange {
            ledger.carry(Op::Combine, 1.0, e.back, || self.report_exchange(e, true));
            beside += e.seconds();
        }
        if let (Some(shared), true) = (&self.shared, self.shared_on_ffn) {
            let beside = if decode && self.overlap { beside } else { 0.0 };
            let rows = if self.whole_ffn { tokens } else { all / f64::from(self.ffn_gpus) };
            shared.price_beside(Op::SharedExpert, rows, decode, 1.0, beside, ledger);
        }
        exchange.map_or(0.0, |e| e.out.seconds)
    }

    /// Seconds that HBM needs for the experts that the tokens of all ranks reach.
    fn reads(&self, all: f64) -> f64 {
        self.experts.as_ref().map_or(0.0, |e| e.reads(all / f64::from(self.replicas)))
    }

    /// Seconds that HBM needs for the weights of a mixer on one rank.
    pub(super) fn attention_traffic(&self, mixer: usize) -> f64 {
        let lib = &self.lib;
        let weights = lib.program.mixers()[mixer].weight_bytes(&lib.model, &lib.quant, self.attention_tp);
        weights / (lib.cluster.device.hbm_bytes_per_s * BANDWIDTH_EFFICIENCY)
    }

    /// The four stages of a MoE layer.
    pub fn stages(&self, batch: &Batch, mixer: usize) -> LayerStages {
        stages::stages(self, batch, mixer)
    }

    /// The stages of a dense layer: attention only, unless its FFN stands on the FFN pool.
    pub fn dense(&self, batch: &Batch, mixer: usize) -> LayerStages {
        UnitParts::dense(self, batch, mixer)
    }

    pub fn ends(&self, batch: &Batch) -> Total {
        let mut t = Total::default();
        self.price_ends(batch, &mut t);
        t
    }
}

/// Seconds of an attention stage that hide behind another micro-batch's attention kernel, where `rest` are those of all but
/// the kernel: what is not the traffic of its weights, as far as the kernel lasts.
fn behind_attention(traffic: f64, rest: f64, kernel: f64) -> f64 {
    (rest - traffic).clamp(0.0, kernel.max(0.0))
}
