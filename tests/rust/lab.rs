//! What the law tests share: one kernel database, and small libraries, plans and engines.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use disagg::cost::Library;
use disagg::kernels::KernelDb;
use disagg::search::Layout;
use disagg::serving::{StepEngine, defaults};
use disagg::spec::plan::{Duplex, PipelineMode, Side};
use disagg::spec::{
    AfdPlan, Aggregated, Assumptions, Cluster, Framework, Model, Parallel, PdPlan, Plan, PoolPlan, Quant, Serving,
    Slot, Workers, Workload, catalog,
};

/// A framework, or its name.
pub trait Server {
    fn of(self) -> Framework;
}

impl Server for Framework {
    fn of(self) -> Framework {
        self
    }
}

impl Server for &str {
    fn of(self) -> Framework {
        Framework::asked(self, "framework").unwrap()
    }
}

pub fn db() -> &'static Arc<KernelDb> {
    static DB: OnceLock<Arc<KernelDb>> = OnceLock::new();
    DB.get_or_init(|| {
        KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap()
    })
}

pub fn model(name: &str) -> Model {
    catalog::model(name).unwrap()
}

pub fn cluster(system: &str, gpus: u32) -> Cluster {
    catalog::cluster(system, gpus).unwrap()
}

pub fn library(model: &Model, cluster: &Cluster, framework: impl Server, assumptions: &Assumptions) -> Arc<Library> {
    library_serving(model, cluster, framework, assumptions, &Serving::default())
}

pub fn library_serving(
    model: &Model,
    cluster: &Cluster,
    framework: impl Server,
    assumptions: &Assumptions,
    serving: &Serving,
) -> Arc<Library> {
    let quant = Quant::default();
    Arc::new(Library::new(db().clone(), model, cluster, framework.of(), &quant, serving, assumptions).unwrap())
}

/// A preset model on a preset system, compiled once for all tests.
pub fn lib(name: &'static str, system: &'static str, gpus: u32, framework: impl Server) -> Arc<Library> {
    type Made = BTreeMap<(&'static str, &'static str, u32, Framework), Arc<Library>>;
    static MADE: OnceLock<Mutex<Made>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap();
    let framework = framework.of();
    made.entry((name, system, gpus, framework))
        .or_insert_with(|| library(&model(name), &cluster(system, gpus), framework, &Assumptions::physical()))
        .clone()
}

/// The library that a question of these is priced with.
pub fn lib_as_asked(model: &Model, cluster: &Cluster, framework: impl Server) -> Arc<Library> {
    let (quant, serving) = (Quant::default(), Serving::default());
    defaults::library(db(), model, cluster, framework.of(), &quant, &serving, &Assumptions::physical()).unwrap()
}

/// The library of the paper's model on its hardware.
pub fn v32() -> Arc<Library> {
    lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 32, "trtllm")
}

/// A small mixture that fits one node several times.
pub fn small() -> Arc<Library> {
    lib("Qwen/Qwen3-30B-A3B", "b200_sxm", 16, "trtllm")
}

pub fn split(tp: u32, dp: u32, pp: u32) -> Parallel {
    Parallel { tp, dp, pp, ..Parallel::default() }
}

pub fn pool(gpus: u32, tp: u32) -> PoolPlan {
    PoolPlan { gpus, tp, ep: None, moe_tp: 1, device: None }
}

pub fn afd_plan(attention: PoolPlan, ffn: PoolPlan, microbatches: u32) -> AfdPlan {
    AfdPlan {
        attention,
        ffn,
        microbatches: Some(microbatches),
        batch: None,
        chunk_tokens: None,
        pipeline: PipelineMode::Overlapped,
        duplex: Duplex::Full,
        router: Side::Attention,
        shared_expert: Side::Ffn,
        dense: Side::Attention,
        prereduce: false,
        placement: None,
        attention_groups: 1,
        pp: 1,
        prefill_interval: None,
        units: 1,
    }
}

pub fn worker(lib: &Arc<Library>, parallel: Parallel, workload: &Workload) -> StepEngine {
    StepEngine::worker(lib, parallel, workload).unwrap()
}

/// A layout of a search, compiled.
pub fn layout(lib: &Arc<Library>, layout: &Layout, workload: &Workload) -> StepEngine {
    match layout {
        Layout::Worker { parallel, overlap } => {
            StepEngine::overlapping(lib, *parallel, Some(*overlap), workload).unwrap()
        }
        Layout::Afd { .. } => unit(lib, &layout.afd_plan(1, 1, None).unwrap(), workload),
    }
}

pub fn unit(lib: &Arc<Library>, plan: &AfdPlan, workload: &Workload) -> StepEngine {
    StepEngine::afd(lib, plan, workload).unwrap()
}

pub fn workers(count: u32, parallel: Parallel, batch: Option<u32>, chunk: Option<u32>) -> Slot {
    Slot::Workers(Workers { count, parallel, batch, chunk_tokens: chunk, ..Default::default() })
}

/// The plan of every level on 8 GPUs or fewer a slot, two ways of AFD among them. `prompts`: width of the workers that prefill
/// for `batch` sequences a rank.
pub fn every_level(prompts: Parallel, batch: u32) -> Vec<Plan> {
    let afd = AfdPlan { batch: Some(64), chunk_tokens: Some(1024), ..afd_plan(pool(4, 1), pool(4, 1), 2) };
    let mixed = split(2, 2, 1);
    let aggregated = Aggregated { parallel: mixed, batch: Some(32), chunk_tokens: Some(1024), ..Aggregated::default() };
    let prompts = || workers(1, prompts, Some(2), Some(1024));
    let pd = PdPlan { prefill: prompts(), decode: workers(1, mixed, Some(batch), None) };
    let split = PdPlan { prefill: prompts(), decode: Slot::Afd(AfdPlan { chunk_tokens: None, ..afd.clone() }) };
    vec![Plan::Aggregated(aggregated), Plan::Pd(pd), Plan::Afd(afd), Plan::Pd(split)]
}

pub fn chat() -> Workload {
    catalog::workload("paper-chat").unwrap()
}

/// Relative distance, for messages and bounds.
pub fn gap(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { (a - b).abs() / a.abs().max(b.abs()).max(1e-300) }
}

#[track_caller]
pub fn near(a: f64, b: f64, tolerance: f64, what: &str) {
    assert!(gap(a, b) <= tolerance, "{what}: {a} against {b}, {:.2e} apart", gap(a, b));
}

/// A preset model on 8 GPUs, with a lane of its own in the cache.
pub fn lib_of(name: &'static str, system: &'static str, framework: impl Server) -> Arc<Library> {
    lib(name, system, 8, framework)
}
