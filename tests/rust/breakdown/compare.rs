//! Single prefill steps priced operator by operator, beside another tool's numbers for the same step.
//!
//! Both read the same measured tables; `Class` says where they do and where they cannot agree.
//! Their times are sums over all layers, all priced as MoE layers: everything here is per layer.

// Shared by the test and by the example that prints it: neither reads every field.
#![allow(dead_code)]

use disagg::spec::Framework;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use disagg::cost::ffn::Experts;
use disagg::cost::program::Surfaces;
use disagg::cost::{Batch, Library, Worker};
use disagg::kernels::ops::{self, Source};
use disagg::kernels::{Evidence, KernelDb, Reading};
use disagg::network::CommTime;
use disagg::spec::{Assumptions, Attention, Dtype, MatrixPart, Model, Moe, Parallel, Quant, Serving, catalog};

/// What the two tools have in common for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The same rows of the same table, at or between grid points.
    SameRows,
    /// The same table, asked beyond its last row.
    BeyondRows,
    /// No table: each tool's own formula.
    Formula,
    /// Something else is priced.
    OtherModel,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::SameRows => "same rows",
            Class::BeyondRows => "beyond rows",
            Class::Formula => "formula",
            Class::OtherModel => "other model",
        }
    }
}

/// One operator of one step.
#[derive(Clone, Debug)]
pub struct Pair {
    pub op: &'static str,
    pub class: Class,
    pub step: String,
    /// Microseconds a layer (once a step for embedding and logits).
    pub theirs: f64,
    pub ours: f64,
    pub evidence: Evidence,
    /// Why they differ, where it is known.
    pub cause: &'static str,
}

impl Pair {
    /// ours / theirs - 1.
    pub fn difference(&self) -> f64 {
        self.ours / self.theirs - 1.0
    }
}

/// A whole step, all layers and ours as served: dense layers dense, the best lane to the experts.
#[derive(Clone, Debug)]
pub struct Whole {
    pub step: String,
    pub theirs_ms: f64,
    pub ours_ms: f64,
    pub lane: &'static str,
}

/// One step of the file: its configuration and its operators in milliseconds over all layers.
struct Step {
    key: Vec<String>,
    ops: BTreeMap<String, f64>,
    total_ms: f64,
}

impl Step {
    fn text(&self, i: usize) -> &str {
        &self.key[i]
    }

    fn number(&self, i: usize) -> u32 {
        self.key[i].parse().unwrap()
    }

    fn label(&self) -> String {
        let model = self.text(0).rsplit('/').next().unwrap();
        let (tp, dp, ep) = (self.text(4), self.text(6), self.text(8));
        format!("{model} {} {} tp{tp} dp{dp} ep{ep} {}", self.text(1), self.text(2), self.text(15))
    }
}

/// The steps, one a configuration, in the order of the file.
fn read(path: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines().skip(1) {
        let mut cells: Vec<String> = line.split(',').map(str::to_string).collect();
        assert_eq!(cells.len(), 19, "{line}");
        let tail = cells.split_off(16);
        if steps.last().is_none_or(|s| s.key != cells) {
            steps.push(Step { key: cells, ops: BTreeMap::new(), total_ms: tail[2].parse().unwrap() });
        }
        let op = tail[0].strip_prefix("context_").unwrap().to_string();
        steps.last_mut().unwrap().ops.insert(op, tail[1].parse().unwrap());
    }
    steps
}

fn format(name: &str) -> Option<Dtype> {
    Some(Dtype::named(name).unwrap())
}

/// Bytes that they gather per element of NVFP4, scales included (inferred from these steps).
const GATHER_NVFP4: f64 = 0.5625;

/// Prices one step; adds its operators to `out`.
struct Pricer<'a> {
    step: &'a Step,
    lib: Arc<Library>,
    parallel: Parallel,
    layers: f64,
    /// Tokens of one attention rank, and of all.
    tokens: f64,
    all: f64,
    hidden: u32,
    out: &'a mut Vec<Pair>,
}

impl Pricer<'_> {
    fn theirs(&self, op: &str) -> Option<f64> {
        self.step.ops.get(op).copied().filter(|ms| *ms > 0.0).map(|ms| ms * 1e3)
    }

    /// `theirs` in microseconds.
    fn push(&mut self, op: &'static str, class: Class, theirs: f64, ours: Reading, cause: &'static str) {
        let (step, ours_us) = (self.step.label(), ours.seconds * 1e6);
        self.out.push(Pair { op, class, step, theirs, ours: ours_us, evidence: ours.evidence, cause });
    }

    fn gemm_reading(&self, dtype: Dtype, n: u32, k: u32, m: f64) -> Reading {
        self.lib.gemm(false, dtype, n, k).unwrap().at(&[m])
    }

    /// A GEMM that runs in every layer.
    fn gemm(&mut self, name: &str, op: &'static str, dtype: Dtype, n: u32, k: u32) {
        if let Some(theirs) = self.theirs(name) {
            let ours = self.gemm_reading(dtype, n, k, self.tokens);
            self.push(op, Class::SameRows, theirs / self.layers, ours, "off the grid: interpolated otherwise");
        }
    }

    fn memory(&mut self, name: &str, op: &'static str, per: f64, bytes: f64, cause: &'static str) {
        if let Some(theirs) = self.theirs(name) {
            let ours = self.lib.memory(false).at(&[bytes]);
            self.push(op, Class::Formula, theirs / per, ours, cause);
        }
    }

    fn elementwise(&mut self) {
        let row = self.tokens * f64::from(self.hidden);
        let launch = "their launch is 3 us, ours 2 to 2.5 us";
        self.memory("embedding", "embedding", 1.0, row * 4.0, "they charge the row once, ours is read and written");
        self.memory("add_norm_1", "norm", self.layers, row * 8.0, launch);
        self.memory("add_norm_2", "norm", self.layers, row * 8.0, launch);
    }

    fn experts(&mut self, model: &Model, moe: &Moe) {
        let (lib, tokens) = (self.lib.clone(), self.tokens);
        self.gemm("router_gemm", "router", Dtype::Bf16, moe.experts, self.hidden);
        if moe.shared_intermediate > 0 {
            // They split the shared expert over TP for MLA models and leave it whole for DSA models.
            let sparse = matches!(&model.attention, Attention::Mla { indexer: Some(_), .. });
            let width = moe.shared_intermediate / if sparse { 1 } else { self.parallel.tp };
            self.gemm("shared_gate_up_gemm", "shared gate, up", lib.formats.shared_gemm, 2 * width, self.hidden);
            self.gemm("shared_ffn2_gemm", "shared down", lib.formats.shared_gemm, self.hidden, width);
            let bytes = tokens * f64::from(width) * 6.0;
            self.memory("shared_act_gate", "shared act", self.layers, bytes, "their launch is 3 us, ours 2 to 2.5 us");
        }
        let theirs = self.theirs("moe").unwrap() / self.layers;
        let ours = Experts::new(&lib, self.parallel.ep(), 1, true).unwrap().unwrap().fused(self.all, false);
        // The tables end at 16,384 tokens.
        let (class, cause) = if self.all > 16_384.0 {
            (Class::BeyondRows, "they hold the utilisation, ours goes on with the slope")
        } else {
            (Class::SameRows, "off the grid: interpolated otherwise")
        };
        self.push("experts", class, theirs, ours, cause);
    }

    fn exchange(&mut self) {
        let lib = self.lib.clone();
        let comm = &lib.comm;
        let bytes = self.tokens * f64::from(self.hidden) * 2.0;
        let gpus = self.parallel.stage_gpus();
        let pre = self.theirs("moe_pre_dispatch").unwrap() / self.layers;
        let post = self.theirs("moe_post_dispatch").unwrap() / self.layers;
        if self.parallel.dp == 1 {
            let (graph, eager) = (comm.all_reduce(bytes, gpus, true), comm.all_reduce(bytes, gpus, false));
            for theirs in [pre, post] {
                self.push(
                    "all-reduce",
                    Class::SameRows,
                    theirs,
                    graph.into(),
                    "between rows: linear theirs, ours in logs",
                );
                let cause = "they price prefill by the rows under CUDA graphs, ours by the eager ones or NCCL";
                self.push("all-reduce, eager", Class::OtherModel, theirs, eager.into(), cause);
            }
            if let Some(theirs) = self.theirs("embedding_ar") {
                self.push("embedding all-reduce", Class::OtherModel, theirs, CommTime::ZERO.into(), "not in our steps");
            }
            if let Some(theirs) = self.theirs("tp_allreduce") {
                let cause = "two more all-reduces a layer than there are";
                self.push("all-reduce again", Class::OtherModel, theirs / self.layers, CommTime::ZERO.into(), cause);
            }
            return;
        }
        let (class, cause) = if gpus > 8 || (gpus > 4 && lib.cluster.fabric.node_gpus == 4) {
            (Class::BeyondRows, "they stretch by bandwidth of the tier, ours goes over the rails or the domain")
        } else {
            (Class::SameRows, "first row of the repeats against the median")
        };
        let element = self.gather_bytes();
        let all = self.all * f64::from(self.hidden);
        let gather: CommTime = comm.all_gather(all * element, gpus);
        self.push("all-gather", class, pre, gather.into(), cause);
        self.push("reduce-scatter", class, post, comm.reduce_scatter(all * 2.0, gpus).into(), cause);
    }

    /// What they gather: trtllm quantises before the all-gather on Blackwell, all else BF16.
    fn gather_bytes(&self) -> f64 {
        let quantised = self.lib.framework == Framework::Trtllm && self.lib.cluster.device.sm >= 100;
        match self.lib.formats.moe {
            Dtype::Nvfp4 if quantised => GATHER_NVFP4,
            Dtype::Fp8Block if quantised => 1.0,
            _ => 2.0,
        }
    }

    fn grouped_query(&mut self, heads: u32, kv_heads: u32, head_dim: u32, sliding: f64, window: u32) {
        let tp = self.parallel.tp;
        let (h, kv) = (heads / tp, (kv_heads / tp).max(1));
        let gemm = self.lib.formats.attention_gemm;
        self.gemm("qkv_gemm", "qkv", gemm, (h + 2 * kv) * head_dim, self.hidden);
        self.gemm("proj_gemm", "attention out", gemm, self.hidden, h * head_dim);
        let Some(theirs) = self.theirs("attention") else { return };
        let at = [self.number(14), self.tokens / self.number(14), 0.0];
        let full = self.lib.context(tp, 0).unwrap().at(&at);
        let mut ours = full;
        if sliding > 0.0 {
            let local = self.lib.context(tp, window).unwrap().at(&at);
            ours.seconds += (local.seconds - full.seconds) * sliding;
            ours.evidence = full.evidence.max(local.evidence);
        }
        // Their operator adds elementwise work. Inferred from these steps, not from their source: it is the
        // same 13.2 us (1.1 x 4 launches of 3 us) at any length, three times that with query and key norms.
        let extra = if self.step.text(0).contains("Qwen3") { 39.6 } else { 13.2 };
        let theirs = theirs / self.layers;
        self.push("GQA kernel", Class::SameRows, theirs - extra, ours, "off the grid: interpolated otherwise");
        let rope = self.lib.memory(false).at(&[self.tokens * f64::from((h + 2 * kv) * head_dim) * 4.0]);
        self.push("rope, cache write", Class::Formula, extra, rope, "they charge a constant, ours the bytes");
    }

    fn latent(&mut self, model: &Model, heads: u32, [q_lora, kv_lora, nope, rope, v]: [u32; 5], sparse: bool) {
        let h = heads / self.parallel.tp;
        let at = [self.number(14), self.tokens / self.number(14), 0.0];
        let block = self.lib.context(self.parallel.tp, 0).unwrap().at(&at);
        if let Some(theirs) = self.theirs("mla_block") {
            let theirs = theirs / self.layers;
            self.push("MLA block", Class::SameRows, theirs, block, "off the grid: interpolated otherwise");
            return;
        }
        let Some(kernel) = self.theirs("attention") else { return };
        if sparse {
            let theirs = kernel / self.layers;
            self.push(
                "DSA module",
                Class::SameRows,
                theirs,
                block,
                "last of the repeats against the median; slope in length",
            );
            return;
        }
        let gemm = self.lib.formats.attention_gemm;
        // The checkpoints leave these in BF16.
        let [q_a, q_b, kv_b, o] =
            [MatrixPart::QA, MatrixPart::QB, MatrixPart::KvB, MatrixPart::O].map(|part| model.part_format(part, gemm));
        let parts = ["downscale_gemm", "q_b_proj_gemm", "kv_b_proj_gemm", "proj_gemm"].map(|p| self.theirs(p).unwrap());
        self.gemm("downscale_gemm", "q_a, kv_a", q_a, q_lora + kv_lora + rope, self.hidden);
        self.gemm("q_b_proj_gemm", "q_b", q_b, h * (nope + rope), q_lora);
        self.gemm("kv_b_proj_gemm", "kv_b", kv_b, h * (nope + v), kv_lora);
        self.gemm("proj_gemm", "attention out", o, self.hidden, h * v);
        let lib = self.lib.clone();
        let source = Source {
            db: database(),
            system: lib.cluster.system.clone(),
            framework: lib.framework.name().into(),
            device: lib.cluster.device.clone(),
            graph: false,
            by_rule: false,
        };
        if let Some(k) = ops::mla_kernel(&source, model, h, lib.formats.kv, false).unwrap() {
            self.push(
                "MLA kernel",
                Class::SameRows,
                kernel / self.layers,
                k.at(&at),
                "off the grid: interpolated otherwise",
            );
        }
        let theirs = (kernel + parts.iter().sum::<f64>()) / self.layers;
        let cause = "they add up projections and kernel, ours is the measured module where there is one";
        self.push("MLA block in parts", Class::OtherModel, theirs, block, cause);
    }

    fn number(&self, i: usize) -> f64 {
        f64::from(self.step.number(i))
    }
}

fn database() -> Arc<KernelDb> {
    use std::sync::OnceLock;
    static DB: OnceLock<Arc<KernelDb>> = OnceLock::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/disagg/data/kernels");
    DB.get_or_init(|| KernelDb::open(&dir).unwrap()).clone()
}

fn library(step: &Step) -> (Model, Arc<Library>) {
    let model = catalog::model(step.text(0)).unwrap();
    let gpus = step.number(4) * step.number(6);
    let cluster = catalog::cluster(step.text(1), gpus.max(8)).unwrap();
    let quant = Quant {
        gemm: format(step.text(9)),
        moe: format(step.text(10)),
        kv: format(step.text(11)),
        attention: format(step.text(12)),
        comm: None,
    };
    let made = Library::new(
        database(),
        &model,
        &cluster,
        Framework::asked(step.text(2), "framework").unwrap(),
        &quant,
        &Serving::default(),
        &Assumptions::physical(),
    );
    (model, Arc::new(made.unwrap()))
}

/// Every operator of every step of tests/golden/golden_breakdown.csv, and the whole steps.
pub fn compare() -> (Vec<Pair>, Vec<Whole>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/golden_breakdown.csv");
    let (mut pairs, mut wholes) = (Vec::new(), Vec::new());
    for step in read(&path) {
        let (model, lib) = library(&step);
        let (batch, length) = (f64::from(step.number(14)), f64::from(step.number(15)));
        let parallel =
            Parallel { tp: step.number(4), dp: step.number(6), ep: Some(step.number(8)), ..Parallel::default() };
        let tokens = batch * length;
        let mut p = Pricer {
            step: &step,
            lib: lib.clone(),
            parallel,
            layers: f64::from(model.layers),
            tokens,
            all: tokens * f64::from(parallel.dp),
            hidden: model.hidden,
            out: &mut pairs,
        };
        p.elementwise();
        match &model.attention {
            Attention::Gqa { heads, kv_heads, head_dim, window, .. } => {
                let sliding = window.as_ref().map_or(0, |w| w.layers.iter().filter(|s| **s).count());
                let share = sliding as f64 / f64::from(model.layers);
                p.grouped_query(*heads, *kv_heads, *head_dim, share, window.as_ref().map_or(0, |w| w.tokens));
            }
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer, .. } => {
                p.latent(&model, *heads, [*q_lora, *kv_lora, *nope, *rope, *v], indexer.is_some());
            }
            Attention::Own(own) => panic!("no rows of {}", own.name()),
        }
        p.experts(&model, model.moe.as_ref().unwrap());
        p.exchange();
        if let Some(theirs) = p.theirs("logits_gemm") {
            let ours = p.gemm_reading(Dtype::Bf16, model.vocab.div_ceil(parallel.tp), model.hidden, batch);
            p.push("logits", Class::SameRows, theirs, ours, "off the grid: interpolated otherwise");
        }
        let worker = Worker::new(&lib, parallel).unwrap();
        let batch = Batch::prefill(batch, length, 0.0);
        wholes.push(Whole {
            step: step.label(),
            theirs_ms: step.total_ms,
            ours_ms: worker.step(&batch).seconds * 1e3,
            lane: worker.lane(&batch).map_or("", |l| l.name()),
        });
    }
    (pairs, wholes)
}

/// Rank `q` of sorted values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}
