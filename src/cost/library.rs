//! Compiled surfaces of one (model, system, framework, formats), built on demand and shared.
//!
//! Decode kernels run under CUDA graphs by default and prefill kernels as measured (physics.md
//! section 3, launch floors), so every operator exists once per launch mode.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::published;
use crate::error::Result;
use crate::kernels::ops::{self, ExpertShape, Source};
use crate::kernels::{KernelDb, Surface};
use crate::network::Comm;
use crate::network::CommTime;
use crate::spec::assumptions::{Collectives, DenseLayers, LaunchFloors};
use crate::spec::dtype::Formats;
use crate::spec::serving::Launch;
use crate::spec::{Assumptions, Attention, Cluster, Dtype, Model, Quant, Serving};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Gemm { graph: bool, dtype: Dtype, n: u32, k: u32 },
    Generation { tp: u32, window: u32 },
    Context { tp: u32, window: u32, graph: bool },
    Experts { graph: bool, tokens_ep: u32, moe_tp: u32, grouped: bool, decode: bool },
}

/// Everything that prices operators: kernel surfaces, communication, and the choices behind them.
pub struct Library {
    pub model: Model,
    /// The model asked for: some assumptions price another in its place.
    asked: Model,
    pub cluster: Cluster,
    pub framework: String,
    /// Formats asked for, and those in force.
    pub quant: Quant,
    pub formats: Formats,
    pub serving: Serving,
    pub assumptions: Assumptions,
    pub comm: Comm,
    graph: Source,
    eager: Source,
    decode_graph: bool,
    prefill_graph: bool,
    cache: Mutex<BTreeMap<Key, Option<Arc<Surface>>>>,
}

impl Library {
    pub fn new(
        db: Arc<KernelDb>,
        model: &Model,
        cluster: &Cluster,
        framework: &str,
        quant: &Quant,
        serving: &Serving,
        assumptions: &Assumptions,
    ) -> Result<Library> {
        let comm = Comm::new(db.clone(), cluster, framework, assumptions.afd_alpha_scale)?;
        let source = |graph| Source {
            db: db.clone(),
            system: cluster.system.clone(),
            framework: framework.to_string(),
            device: cluster.device.clone(),
            graph,
        };
        let mut priced = model.clone();
        if assumptions.dense_layers == DenseLayers::AsMoe && model.moe.is_some() {
            priced.dense_layers = 0;
        }
        Ok(Library {
            model: priced,
            asked: model.clone(),
            cluster: cluster.clone(),
            framework: framework.to_string(),
            quant: *quant,
            formats: model.formats(quant),
            serving: serving.clone(),
            assumptions: assumptions.clone(),
            comm,
            graph: source(true),
            eager: source(false),
            decode_graph: serving.launch != Some(Launch::Measured)
                && (serving.launch.is_some() || assumptions.launch_floors == LaunchFloors::ByPhase),
            prefill_graph: serving.launch == Some(Launch::Graph),
            cache: Mutex::new(BTreeMap::new()),
        })
    }

    fn source(&self, graph: bool) -> &Source {
        if graph { &self.graph } else { &self.eager }
    }

    /// All-gather as the assumptions have it; `bytes`: the full gathered buffer.
    pub fn all_gather(&self, bytes: f64, ranks: u32) -> CommTime {
        self.stretched(ranks, |n| self.comm.all_gather(bytes, n))
    }

    /// Reduce-scatter as the assumptions have it; `bytes`: the full buffer before scattering.
    pub fn reduce_scatter(&self, bytes: f64, ranks: u32) -> CommTime {
        self.stretched(ranks, |n| self.comm.reduce_scatter(bytes, n))
    }

    /// All-reduce as the assumptions have it; `bytes`: the full buffer of one rank.
    pub fn all_reduce(&self, bytes: f64, ranks: u32, graph: bool) -> CommTime {
        self.stretched(ranks, |n| self.comm.all_reduce(bytes, n, graph))
    }

    fn stretched(&self, ranks: u32, time: impl Fn(u32) -> CommTime) -> CommTime {
        let fabric = &self.cluster.fabric;
        let measured = fabric.node_gpus;
        if self.assumptions.collectives == Collectives::Rails || ranks <= measured || measured < 2 {
            return time(ranks);
        }
        let (near, far) = (published::tier_bandwidth(fabric, measured), published::tier_bandwidth(fabric, ranks));
        let inner = time(measured);
        CommTime { seconds: inner.seconds * published::stretch(ranks, measured, far, near), ..inner }
    }

    /// Launch mode of a phase: true under CUDA graphs.
    pub fn graph(&self, decode: bool) -> bool {
        if decode { self.decode_graph } else { self.prefill_graph }
    }

    fn cached(&self, key: Key, build: impl FnOnce() -> Result<Option<Surface>>) -> Result<Option<Arc<Surface>>> {
        if let Some(s) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(s.clone());
        }
        // Built outside the lock: two threads may build the same surface, and both get the same numbers.
        let built = build()?.map(Arc::new);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| built.clone());
        Ok(built)
    }

    fn must(&self, key: Key, build: impl FnOnce() -> Result<Surface>) -> Result<Arc<Surface>> {
        let found = self.cached(key, || build().map(Some))?;
        found.ok_or_else(|| crate::Error::data("kernels", "an operator that always has a surface has none"))
    }

    /// Dense GEMM; axis: rows.
    pub fn gemm(&self, decode: bool, dtype: Dtype, n: u32, k: u32) -> Result<Arc<Surface>> {
        let graph = self.graph(decode);
        self.must(Key::Gemm { graph, dtype, n, k }, || ops::gemm(self.source(graph), dtype, n, k))
    }

    /// Decode attention of one TP rank; axes: sequences, context. `window` 0: full attention.
    pub fn generation(&self, tp: u32, window: u32) -> Result<Arc<Surface>> {
        let source = self.source(self.decode_graph);
        self.must(Key::Generation { tp, window }, || match &self.model.attention {
            Attention::Gqa { heads, kv_heads, head_dim, .. } => ops::generation_attention(
                source,
                heads / tp,
                (kv_heads / tp).max(1),
                *head_dim,
                window,
                self.formats.kv,
            ),
            Attention::Mla { heads, .. } => {
                ops::mla_generation(source, &self.model, heads / tp, self.formats.attention_gemm, self.formats.kv)
            }
        })
    }

    /// Prefill attention of one TP rank; axes: sequences, new tokens, past tokens.
    pub fn context(&self, tp: u32, window: u32) -> Result<Arc<Surface>> {
        let graph = self.prefill_graph;
        let source = self.source(graph);
        self.must(Key::Context { tp, window, graph }, || match &self.model.attention {
            Attention::Gqa { heads, kv_heads, head_dim, .. } => ops::context_attention(
                source,
                heads / tp,
                (kv_heads / tp).max(1),
                *head_dim,
                window,
                self.formats.attention,
                self.formats.kv,
            ),
            Attention::Mla { heads, .. } => {
                ops::mla_context(source, &self.model, heads / tp, self.formats.attention_gemm, self.formats.kv)
            }
        })
    }

    fn expert_shape(&self, ep: u32, moe_tp: u32) -> Option<(ExpertShape, String)> {
        let moe = self.model.moe.as_ref()?;
        let shape = ExpertShape {
            hidden: self.model.hidden,
            intermediate: moe.intermediate,
            topk: moe.topk,
            experts: moe.experts,
            moe_tp,
            ep,
        };
        Some((shape, self.serving.imbalance.clone().unwrap_or_else(|| moe.distribution.clone())))
    }

    /// Fused expert kernel; axis: tokens entering the layer, all ranks together. `None` without experts.
    pub fn experts_fused(&self, decode: bool, ep: u32, moe_tp: u32) -> Result<Option<Arc<Surface>>> {
        let Some((shape, load)) = self.expert_shape(ep, moe_tp) else { return Ok(None) };
        let graph = self.graph(decode);
        self.cached(Key::Experts { graph, tokens_ep: ep, moe_tp, grouped: false, decode: false }, || {
            ops::moe(self.source(graph), shape, self.formats.moe, &load).map(Some)
        })
    }

    /// Grouped wide-EP kernel, where it was measured for this shape.
    pub fn experts_grouped(&self, decode: bool, ep: u32) -> Result<Option<Arc<Surface>>> {
        let Some((shape, load)) = self.expert_shape(ep, 1) else { return Ok(None) };
        let graph = self.graph(decode);
        self.cached(Key::Experts { graph, tokens_ep: ep, moe_tp: 1, grouped: true, decode }, || {
            ops::grouped_moe(self.source(graph), shape, self.formats.moe, &load, decode)
        })
    }

    /// Elementwise memory work; axis: bytes.
    pub fn memory(&self, decode: bool) -> Surface {
        ops::memory(self.source(self.graph(decode)))
    }
}

/// Libraries kept for the next question of the same kind: compiling surfaces takes tens of
/// milliseconds, pricing with them microseconds.
static SHARED: Mutex<Vec<(Arc<KernelDb>, Arc<Library>)>> = Mutex::new(Vec::new());

/// Libraries kept at most; the one used longest ago goes first.
const KEPT: usize = 12;

impl Library {
    /// The library of these specs, compiled once per process and database.
    pub fn shared(
        db: &Arc<KernelDb>,
        model: &Model,
        cluster: &Cluster,
        framework: &str,
        quant: &Quant,
        serving: &Serving,
        assumptions: &Assumptions,
    ) -> Result<Arc<Library>> {
        let fits = |(owner, lib): &(Arc<KernelDb>, Arc<Library>)| {
            Arc::ptr_eq(owner, db)
                && lib.framework == framework
                && lib.quant == *quant
                && lib.serving == *serving
                && lib.assumptions == *assumptions
                && lib.cluster == *cluster
                && lib.asked == *model
        };
        {
            let mut kept = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(i) = kept.iter().position(fits) {
                let found = kept.remove(i);
                let lib = found.1.clone();
                kept.push(found);
                return Ok(lib);
            }
        }
        let lib = Arc::new(Library::new(db.clone(), model, cluster, framework, quant, serving, assumptions)?);
        let mut kept = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((db.clone(), lib.clone()));
        Ok(lib)
    }
}
