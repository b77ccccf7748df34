//! Compiled surfaces of one (model, system, framework, formats), built on demand and shared.
//!
//! Decode kernels run under CUDA graphs by default and prefill kernels as measured (physics.md
//! section 3, launch floors), so every operator exists once per launch mode.
//!
//! A device that is not its system's own (what-if hardware) keeps the tables of the system it stands on
//! (`what_if`) at the same utilisation: times scale with the ratio of the two rooflines, and are tagged so.
//!
//! Limit: the tables of one framework at a time; a what-if device keeps the utilisation of the system it stands on,
//! whatever its kernels would do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

mod experts;
pub(in crate::cost) mod hops;
mod strategy;
mod surfaces;

use self::hops::HopStrategy;
use self::strategy::ExchangeStrategy;
use super::program::{Ffn, Heads, Program};
use super::published;
use super::what_if::{self, StandIn};
use crate::error::{Error, Problems, Result, near};
use crate::kernels::ops::Source;
use crate::kernels::table::TableKey;
use crate::kernels::{KernelDb, Surface, newest_with};
use crate::network::{A2aShape, Comm, CommTime, OneNode};
use crate::recent::Recent;
use crate::spec::assumptions::{DenseLayers, FarExchange, Lanes, ListedNorms, MissingFormats, WideEpDecode};
use crate::spec::dtype::Formats;
use crate::spec::{Assumptions, Cluster, Device, Dtype, Framework, Model, OwnMixer, Quant, Serving};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SurfaceKey {
    Gemm {
        graph: bool,
        dtype: Dtype,
        n: u32,
        k: u32,
    },
    Generation {
        tp: u32,
        window: u32,
    },
    Context {
        tp: u32,
        window: u32,
        graph: bool,
    },
    DecodeHeads(Heads),
    /// Layers with a shared indexer.
    LatentBlock {
        shared: bool,
        tp: u32,
        decode: bool,
        graph: bool,
    },
    PromptHeads {
        heads: Heads,
        graph: bool,
    },
    /// A kind with facts of its own.
    Own {
        mixer: OwnMixer,
        ranks: u32,
        decode: bool,
        graph: bool,
        /// The whole block of a layer.
        whole: bool,
    },
    Experts {
        graph: bool,
        tokens_ep: u32,
        moe_tp: u32,
        attention_dp: bool,
        grouped: bool,
        decode: bool,
        even: bool,
    },
}

/// Everything that prices operators: kernel surfaces, communication, and the choices behind them.
pub struct Library {
    pub model: Model,
    /// Its layers, as they are priced.
    pub program: Program,
    /// The model asked for: some assumptions price another in its place.
    asked: Model,
    pub cluster: Cluster,
    pub framework: Framework,
    /// Formats asked for, and those in force.
    pub quant: Quant,
    pub formats: Formats,
    pub serving: Serving,
    pub assumptions: Assumptions,
    pub comm: Comm,
    graph: Source,
    eager: Source,
    /// Which tables answer, in words.
    pub tables: String,
    /// Whether the device is not the one whose tables are read.
    what_if: bool,
    strategy: ExchangeStrategy,
    hops: HopStrategy,
    cache: Mutex<BTreeMap<SurfaceKey, Option<Arc<Surface>>>>,
}

impl Library {
    pub fn new(
        db: Arc<KernelDb>,
        model: &Model,
        cluster: &Cluster,
        framework: Framework,
        quant: &Quant,
        serving: &Serving,
        assumptions: &Assumptions,
    ) -> Result<Library> {
        let db = at_version(db, model, cluster, framework, serving)?;
        if assumptions.missing_formats == MissingFormats::Error {
            has_attention_format(&db, model, cluster, framework, quant)?;
        }
        let comm = Comm::new(db.clone(), cluster, framework.name(), assumptions.afd_alpha_scale)?
            .with_dispatch_scale(assumptions.dispatch_alpha_scale);
        let StandIn { system, device } = what_if::tables_of(cluster)?;
        let what_if = !what_if::same_speed(&device, &cluster.device);
        let source = |graph| Source {
            db: db.clone(),
            system: system.clone(),
            framework: framework.name().to_string(),
            device: device.clone(),
            graph,
            by_rule: assumptions.lanes == Lanes::ByRule,
        };
        let mut priced = match assumptions.listed_norms {
            ListedNorms::Norms => model.clone(),
            ListedNorms::Block => model.with_norms_as_block(),
        };
        if assumptions.dense_layers == DenseLayers::AsMoe && model.moe.is_some() {
            priced.dense_layers = 0;
        }
        let formats = priced.formats(quant);
        Ok(Library {
            strategy: ExchangeStrategy::of(assumptions, &priced, framework, cluster, serving, &formats),
            hops: HopStrategy::of(assumptions),
            program: Program::of(&priced),
            model: priced,
            asked: model.clone(),
            cluster: cluster.clone(),
            framework,
            quant: *quant,
            formats,
            serving: serving.clone(),
            assumptions: assumptions.clone(),
            comm,
            tables: db.answers(&system, framework.name()),
            graph: source(true),
            eager: source(false),
            what_if,
            cache: Mutex::new(BTreeMap::new()),
        })
    }

    /// The same with other layers than the model's facts say: a family that has no reader yet.
    ///
    /// # Errors
    /// If it has not as many layers as the model, or experts that the model does not have.
    pub fn with_program(self, program: Program) -> Result<Library> {
        let mut problems = Problems::new();
        if program.layers() != self.model.layers {
            let text = format!("has {} layers, the model {}", program.layers(), self.model.layers);
            problems.push("program", text, "");
        }
        if self.model.moe.is_none() && program.layers_with(Ffn::Experts) > 0.0 {
            problems.push("program", "has layers with experts, the model has no experts", "");
        }
        problems.into_result()?;
        Ok(Library { program, ..self })
    }

    fn source(&self, graph: bool) -> &Source {
        if graph { &self.graph } else { &self.eager }
    }

    /// All-gather as the assumptions have it; `bytes`: the full gathered buffer.
    pub(crate) fn all_gather(&self, bytes: f64, ranks: u32) -> CommTime {
        self.stretched(ranks, |n| self.comm.all_gather(bytes, n))
    }

    /// Reduce-scatter as the assumptions have it; `bytes`: the full buffer before scattering.
    pub(crate) fn reduce_scatter(&self, bytes: f64, ranks: u32) -> CommTime {
        self.stretched(ranks, |n| self.comm.reduce_scatter(bytes, n))
    }

    /// All-reduce as the assumptions have it; `bytes`: the full buffer of one rank.
    pub(crate) fn all_reduce(&self, bytes: f64, ranks: u32, graph: bool) -> CommTime {
        self.stretched(ranks, |n| self.comm.all_reduce(bytes, n, graph))
    }

    /// Rows of one node that stand for an exchange between nodes, where the assumptions have it so.
    pub(crate) fn one_node(&self, shape: &A2aShape) -> Result<Option<OneNode>> {
        if self.assumptions.far_exchange == FarExchange::Law {
            return Ok(None);
        }
        let (source, node) = (&self.graph, self.cluster.fabric.node_gpus);
        OneNode::new(&source.db, &source.system, self.framework, node, shape, self.formats.moe)
    }

    /// Share of a decode layer's time that counts where experts span nodes.
    pub(crate) fn wide_ep_decode(&self) -> f64 {
        let discounted = self.assumptions.wide_ep_decode == WideEpDecode::Discounted;
        if discounted && self.framework == Framework::Trtllm && self.model.is_mla() {
            published::WIDE_EP_DECODE
        } else {
            1.0
        }
    }

    /// Whether all-reduces of a phase read the rows under CUDA graphs.
    pub(crate) fn reduce_graph(&self, decode: bool) -> bool {
        self.strategy.reduce_graph[usize::from(decode)]
    }

    /// Whether TP ranks compute the shared expert whole.
    pub(crate) fn whole_shared(&self) -> bool {
        self.strategy.whole_shared
    }

    /// How hops between the pools of an AFD unit are counted and timed.
    pub(in crate::cost) fn hops(&self) -> &HopStrategy {
        &self.hops
    }

    /// Bytes of a value that an all-gather carries to the experts.
    pub(crate) fn gather_bytes(&self) -> f64 {
        self.strategy.gather_bytes
    }

    fn stretched(&self, ranks: u32, time: impl Fn(u32) -> CommTime) -> CommTime {
        let fabric = &self.cluster.fabric;
        let measured = fabric.node_gpus;
        if !self.strategy.stretched || ranks <= measured || measured < 2 {
            return time(ranks);
        }
        let (near, far) = (published::tier_bandwidth(fabric, measured), published::tier_bandwidth(fabric, ranks));
        let inner = time(measured);
        CommTime { seconds: inner.seconds * published::stretch(ranks, measured, far, near), ..inner }
    }

    /// The library of another device on the same fabric (a pool's own hardware).
    pub fn on(self: &Arc<Self>, device: Option<&Device>) -> Result<Arc<Library>> {
        match device {
            Some(d) if *d != self.cluster.device => {
                let cluster = Cluster { device: d.clone(), ..self.cluster.clone() };
                Library::shared(
                    &self.graph.db,
                    &self.model,
                    &cluster,
                    self.framework,
                    &self.quant,
                    &self.serving,
                    &self.assumptions,
                )
            }
            _ => Ok(self.clone()),
        }
    }

    /// What stands in for measurements of the device and the links, in words; none where both are the preset's.
    pub(crate) fn what_if(&self) -> Option<String> {
        what_if::words(&self.cluster, &self.graph.system, &self.graph.device)
    }

    /// How far the device is from the one whose tables stand for it: the largest |ln| of a ratio of their peaks.
    pub(crate) fn told_from(&self) -> f64 {
        what_if::distance(&self.cluster.device, &self.graph.device)
    }

    /// A kernel from the tables; on a what-if device scaled from those it stands on by the two rooflines, which
    /// `bare` gives.
    fn built(
        &self,
        graph: bool,
        make: impl Fn(&Source) -> Result<Option<Surface>>,
        bare: impl Fn(&Source) -> Result<Surface>,
    ) -> Result<Option<Surface>> {
        let source = self.source(graph);
        let Some(found) = make(source)? else { return Ok(None) };
        if !self.what_if {
            return Ok(Some(found));
        }
        let roof = |device: &Device| bare(&Source { system: String::new(), device: device.clone(), ..source.clone() });
        let device = &self.cluster.device;
        Ok(Some(found.on_device(&roof(&source.device)?, &roof(device)?, &device.name)))
    }

    fn kernel(&self, key: SurfaceKey, graph: bool, make: impl Fn(&Source) -> Result<Surface>) -> Result<Arc<Surface>> {
        self.must(key, || {
            let found = self.built(graph, |s| make(s).map(Some), &make)?;
            found.ok_or_else(|| crate::Error::data("kernels", "an operator that always has a surface has none"))
        })
    }

    /// Launch mode of a phase: true under CUDA graphs.
    pub fn graph(&self, decode: bool) -> bool {
        self.strategy.graph[usize::from(decode)]
    }

    fn cached(&self, key: SurfaceKey, build: impl FnOnce() -> Result<Option<Surface>>) -> Result<Option<Arc<Surface>>> {
        if let Some(s) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(s.clone());
        }
        // Built outside the lock: two threads may build the same surface, and both get the same numbers.
        let built = build()?.map(Arc::new);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| built.clone());
        Ok(built)
    }

    fn must(&self, key: SurfaceKey, build: impl FnOnce() -> Result<Surface>) -> Result<Arc<Surface>> {
        let found = self.cached(key, || build().map(Some))?;
        found.ok_or_else(|| crate::Error::data("kernels", "an operator that always has a surface has none"))
    }
}

/// The database with the version asked for in front, or with the newest that measured the model where the usual tables did
/// not.
fn at_version(
    db: Arc<KernelDb>,
    model: &Model,
    cluster: &Cluster,
    framework: Framework,
    serving: &Serving,
) -> Result<Arc<KernelDb>> {
    let (name, system) = (framework.name(), what_if::tables_of(cluster)?.system);
    let Some((_, asked)) = serving.versions().find(|(f, _)| *f == name) else {
        return Ok(newest_with(&db, &system, name, model)?.map_or(db.clone(), |v| db.at_version(name, &v)));
    };
    let known = db.versions(&system, name);
    // `0.31` is the newest `0.31.x`.
    let of = |v: &&String| *v == asked || v.strip_prefix(asked).is_some_and(|rest| rest.starts_with(['.', 'r', 'p']));
    let Some(version) = known.iter().find(of) else {
        let text = format!("no tables of {name} {asked} for {system}");
        return Err(Error::spec("serving.kernel_versions", text, near(asked, &known)));
    };
    Ok(db.at_version(name, version))
}

/// Whether the framework measured prefill of latent attention in the format asked for.
fn has_attention_format(
    db: &Arc<KernelDb>,
    model: &Model,
    cluster: &Cluster,
    framework: Framework,
    quant: &Quant,
) -> Result<()> {
    let asked = model.formats(quant).attention;
    if !model.is_mla() || model.is_dsa() || quant.attention.is_none() || asked == Dtype::Bf16 {
        return Ok(());
    }
    for name in ["context_mla", "mla_context_module", "wideep_context_mla"] {
        let Some(table) = db.find(&cluster.system, framework.name(), name, None)? else { continue };
        let has = table.keys.iter().any(|k| match k {
            // Two spellings of one format.
            TableKey::Text { name, labels, .. } if name == "mla_dtype" => {
                labels.iter().any(|l| l == asked.name() || (asked == Dtype::Fp8 && l == "fp8_e4m3"))
            }
            _ => false,
        });
        if has {
            return Ok(());
        }
    }
    Err(Error::spec(
        "quant.attention",
        format!("{framework} has no {} prefill kernel of {} on {}", asked.name(), model.name, cluster.system),
        "attention='bfloat16', another framework, or missing_formats='nearest'",
    ))
}

/// Libraries kept for the next question of the same kind: compiling surfaces takes tens of
/// milliseconds, pricing with them microseconds.
static SHARED: Recent<(Arc<KernelDb>, Arc<Library>)> = Recent::new(12);

impl Library {
    /// The library of these specs, compiled once per process and database.
    pub fn shared(
        db: &Arc<KernelDb>,
        model: &Model,
        cluster: &Cluster,
        framework: Framework,
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
        if let Some((_, lib)) = SHARED.find(fits) {
            return Ok(lib);
        }
        let lib = Arc::new(Library::new(db.clone(), model, cluster, framework, quant, serving, assumptions)?);
        SHARED.keep((db.clone(), lib.clone()));
        Ok(lib)
    }
}
