//! One step of a worker whose GPUs do everything: attention, FFN, and the exchange between ranks.
//!
//! `D = dp` attention ranks of `tp x cp` GPUs each; experts over `ep x moe_tp` GPUs. How tokens
//! reach the experts is a lane, and each step takes the fastest it can have:
//! - tensor: all GPUs hold all tokens; all-reduce after attention and after the experts;
//! - gather: all-gather of the tokens, fused expert kernel, reduce-scatter;
//! - dispatch (low-latency, normal or one-sided all-to-all), grouped kernel where measured, combine;
//! - fused: dispatch, expert GEMMs and combine are one kernel, as in an AFD unit (overlap).
//!
//! Pipeline parallelism: the slowest of `pp` stages holds ceil(L/pp) layers plus one hop.
//!
//! Two-batch overlap: a MoE layer runs as two half-batches in turn (overlap) where that is the faster: servers
//! have token thresholds for it. Dense layers, ends and draft passes run whole. MTP: draft passes are whole
//! layers more (draft).
//!
//! Limit: all ranks start together and the fullest sets the pace; stragglers and clock drift are not seen.

mod lane;
mod lane_lines;
mod lines;
mod moe;
mod step;

pub use self::lines::WorkerLines;
pub use self::moe::Lane;
use self::moe::{MoePart, Priced};
use self::step::{Order, StepParts, splits};
use super::Batch;
use super::attention::AttentionPart;
use super::ends::Ends;
use super::ffn::{self, GatedMlp};
use super::ledger::{Ledger, Op, Total};
use super::library::Library;
use super::program::{Ffn, LayerKind, Surfaces};
use crate::error::Result;
use crate::kernels::Surface;
use crate::network::{Collective, CommTime};
use crate::spec::Parallel;
use std::sync::Arc;

/// A MoE layer as two half-batches in turn: one of them, its parts on their lane, and the seconds of both.
struct Halves<'a> {
    half: Batch,
    parts: Priced<'a>,
    wall: f64,
}

/// A worker of one layout.
pub struct Worker {
    pub parallel: Parallel,
    lib: Arc<Library>,
    order: Order,
    attention: Arc<AttentionPart>,
    dense: Option<GatedMlp>,
    moe: Option<Arc<MoePart>>,
    ends: Ends,
    memory: [Surface; 2],
    hidden: f64,
    /// Whether MoE layers may run as two half-batches in turn.
    two_batches: bool,
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
    pub(crate) fn overlapping(lib: &Arc<Library>, parallel: Parallel, two_batches: bool) -> Result<Worker> {
        let p = parallel;
        let dense = if lib.program.layers_with(Ffn::Dense) > 0.0 {
            Some(GatedMlp::new(lib, lib.formats.dense_gemm, lib.model.dense_intermediate, p.tp)?)
        } else {
            None
        };
        let moe = MoePart::new(lib, parallel)?;
        let wide = moe.as_ref().is_some_and(|m| m.wide);
        Ok(Worker {
            parallel,
            order: Order::new(lib, p.pp),
            attention: Arc::new(AttentionPart::new(lib, p.tp, p.cp)?),
            dense,
            moe,
            ends: Ends::new(lib, p.tp)?,
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(lib.model.hidden),
            two_batches,
            decode_share: if wide { lib.wide_ep_decode() } else { 1.0 },
            lib: lib.clone(),
        })
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.lib
    }

    /// Attention-DP ranks.
    pub(crate) fn ranks(&self) -> f64 {
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
        let seconds = whole.seconds - hidden;
        let Some(share) = self.order.cut() else { return StageTime { seconds, work: whole } };
        let (mut work, hop) = (whole.times(share), self.hop(batch.tokens()));
        work.add(Op::PipelineHop, 1.0, hop.into());
        StageTime { seconds: seconds * share + hop.seconds, work }
    }

    /// Hidden states of so many tokens on their way to the next pipeline stage.
    fn hop(&self, tokens: f64) -> CommTime {
        self.lib.comm.p2p(tokens * self.lib.model.residual_row() / f64::from(self.parallel.tp), true)
    }

    /// The lane that a step of this batch takes; `None` for a dense model.
    pub fn lane(&self, batch: &Batch) -> Option<Lane> {
        let mixer = self.lib.program.first_with(Ffn::Experts);
        let moe = self.moe.as_ref()?;
        let parts = self.halves(moe, batch, mixer).map(|h| h.parts).or_else(|| Some(moe.best_lane(batch)?.0));
        parts.map(|p| p.lane)
    }

    /// One step through all layers.
    pub fn price<S: Ledger>(&self, batch: &Batch, ledger: &mut S) {
        self.price_all(batch, ledger);
    }

    /// Prices a step and gives the operator seconds that two-batch overlap hides.
    fn price_all<S: Ledger>(&self, batch: &Batch, ledger: &mut S) -> f64 {
        let mut parts = PricedStep { worker: self, ledger, hidden: 0.0 };
        self.order.step(&mut parts, batch);
        parts.hidden
    }

    /// Whether batches may overlap.
    pub(crate) fn overlaps(&self) -> bool {
        self.two_batches
    }

    /// Tokens of a rank's TP group.
    fn tokens(&self, batch: &Batch) -> f64 {
        batch.rank_tokens(f64::from(self.parallel.cp))
    }

    fn dense_layers<S: Ledger>(&self, batch: &Batch, mixer: usize, count: f64, ledger: &mut S) {
        if count <= 0.0 {
            return;
        }
        let decode = !batch.has_prefill();
        let tokens = self.tokens(batch);
        self.attention.price(&self.lib.comm, batch, mixer, count, ledger);
        if self.parallel.tp > 1 {
            let (comm, tp, bytes) = (&self.lib.comm, self.parallel.tp, tokens * self.hidden * 2.0);
            let reduce = comm.all_reduce(bytes, tp, self.lib.reduce_graph(decode));
            ledger.carry(Op::TpReduce, 2.0 * count, reduce, || {
                comm.report_collective(Collective::AllReduce, bytes, comm.packed(tp))
            });
        }
        ffn::norm(&self.memory, self.hidden, tokens, decode, count, ledger);
        if let Some(mlp) = &self.dense {
            mlp.price(Op::DenseFfn, tokens, decode, count, ledger);
        }
    }

    /// MoE layers, overlapped if serving says so; gives the operator seconds hidden.
    fn moe_layers<S: Ledger>(&self, batch: &Batch, mixer: usize, count: f64, ledger: &mut S) -> f64 {
        let Some(moe) = &self.moe else { return 0.0 };
        if count <= 0.0 {
            return 0.0;
        }
        let Some(Halves { half, parts, wall }) = self.halves(moe, batch, mixer) else {
            self.whole_moe_layers(batch, mixer, count, ledger);
            return 0.0;
        };
        let mut t = Total::default();
        self.attention.price(&self.lib.comm, &half, mixer, 1.0, &mut t);
        lane::layer(&parts, false, 1.0, &mut t);
        if S::DETAIL {
            self.attention.price(&self.lib.comm, &half, mixer, 2.0 * count, ledger);
            lane::layer(&parts, false, 2.0 * count, ledger);
        } else {
            ledger.merge(&t.times(2.0 * count));
        }
        count * (2.0 * t.seconds - wall)
    }

    fn whole_moe_layers<S: Ledger>(&self, batch: &Batch, mixer: usize, count: f64, ledger: &mut S) {
        if let (true, Some(moe)) = (count > 0.0, &self.moe) {
            self.attention.price(&self.lib.comm, batch, mixer, count, ledger);
            match moe.best_lane(batch) {
                Some((parts, _)) if S::DETAIL => parts.layer(count, ledger),
                Some((_, total)) => ledger.merge(&total.times(count)),
                None => {}
            }
        }
    }

    /// The two half-batches of a MoE layer, where they may overlap, there is something to halve, and the layer is the
    /// faster for it.
    fn halves<'a>(&self, moe: &'a MoePart, batch: &Batch, mixer: usize) -> Option<Halves<'a>> {
        if !self.two_batches || !splits(batch) {
            return None;
        }
        let attention = |b: &Batch| {
            let mut t = Total::default();
            self.attention.price(&self.lib.comm, b, mixer, 1.0, &mut t);
            t.seconds
        };
        let half = batch.part(2);
        let of_half = attention(&half);
        let apart = moe.taken(&half).filter(|p| p.lane.apart());
        let walls = apart.map(|parts| Halves { half, parts, wall: moe.turns(parts.lane).wall(&parts, of_half) });
        let best = walls.min_by(|a, b| a.wall.total_cmp(&b.wall))?;
        (best.wall < attention(batch) + moe.best_lane(batch)?.1.seconds).then_some(best)
    }
}

/// A step priced operator by operator.
struct PricedStep<'a, S> {
    worker: &'a Worker,
    ledger: &'a mut S,
    /// Operator seconds that two-batch overlap hides.
    hidden: f64,
}

impl<S: Ledger> StepParts for PricedStep<'_, S> {
    type At = Batch;

    fn at(&self, batch: &Batch) -> Batch {
        *batch
    }

    fn embedding(&mut self, b: &Batch) {
        self.worker.ends.embedding(self.worker.tokens(b), !b.has_prefill(), self.ledger);
    }

    fn layers(&mut self, b: &Batch, kind: LayerKind, count: f64, may_halve: bool) {
        let (w, mixer) = (self.worker, kind.mixer);
        let count = count * if b.has_prefill() { 1.0 } else { w.decode_share };
        match kind.ffn {
            Ffn::Dense => w.dense_layers(b, mixer, count, self.ledger),
            Ffn::Experts if may_halve => self.hidden += w.moe_layers(b, mixer, count, self.ledger),
            Ffn::Experts => w.whole_moe_layers(b, mixer, count, self.ledger),
        }
    }

    fn projection(&mut self, b: &Batch, count: f64) {
        self.worker.ends.projection(self.worker.tokens(b), !b.has_prefill(), count, self.ledger);
    }

    fn logits(&mut self, b: &Batch, rows: f64, count: f64) {
        self.worker.ends.logits(rows, !b.has_prefill(), count, self.ledger);
    }
}
