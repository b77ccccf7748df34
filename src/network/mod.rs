//! Communication behind one narrow interface: the measured tables where they reach, laws fitted to
//! them over the fabric beyond.
//!
//! `t = alpha + (port bytes) / (eta bandwidth)`: the ports get the bytes (traffic), the kernel the
//! alpha (curve, a2a, collective; law, params: what was fitted), what no table holds a named constant (constants). Built once
//! per cluster and framework; a call is arithmetic over small arrays, no allocation, no lookup by
//! name. Times are positive, finite and never fall with bytes or tokens; one rank costs nothing.
//! Evidence: a table row `Measured`; between rows, ranks or shapes `Interpolated`; larger groups,
//! other fabrics and everything of AFD and KV `Extrapolated`; no table at all `Roofline`.
//!
//! Limit: a phase alone on the fabric, ranks in step, a mean load of the experts unless one is given.

pub mod a2a;
pub mod afd;
pub mod ask;
pub mod astra;
mod collective;
mod constants;
mod curve;
pub mod fabric;
mod filling;
pub mod flows;
pub mod fluid;
pub mod law;
mod one_node;
pub mod packing;
pub mod params;
mod port;
pub mod report;
pub mod samples;
pub mod skew;
pub mod spread;
mod tables;
pub mod traffic;
pub mod wires;

use std::sync::Arc;

pub use a2a::{A2aKind, A2aShape};
pub use afd::AfdShape;
pub use collective::Seats;
pub use curve::CommTime;
pub use one_node::OneNode;
pub use port::{Collective, GpuPort, Link, PortSide, Tier};

use self::a2a::AllToAll;
use self::afd::Afd;
use self::collective::Collectives;
use self::constants::{KV_BULK_ALPHA, KV_ETA, KV_LAYER_ALPHA, KV_NVLINK_ALPHA};
use self::wires::Wires;
use crate::error::{Error, Result};
use crate::kernels::{Evidence, KernelDb};
use crate::spec::{Cluster, catalog};

#[derive(Debug)]
struct Inner {
    wires: Wires,
    collectives: Collectives,
    all_to_all: AllToAll,
    alpha_scale: f64,
    dispatch_scale: f64,
}

/// Communication times of one cluster and framework; cheap to clone and share.
#[derive(Clone, Debug)]
pub struct Comm {
    inner: Arc<Inner>,
}

impl Comm {
    /// Reads the tables of the cluster's system once. `afd_alpha_scale` multiplies every alpha of
    /// A2F and F2A, which no public measurement covers.
    pub fn new(db: Arc<KernelDb>, cluster: &Cluster, framework: &str, afd_alpha_scale: f64) -> Result<Comm> {
        let fabric = &cluster.fabric;
        for (path, rate) in
            [("nvlink_bytes_per_s", fabric.nvlink_bytes_per_s), ("nic_bytes_per_s", fabric.nic_bytes_per_s)]
        {
            if !(rate.is_finite() && rate > 0.0) {
                return Err(Error::spec(format!("cluster.fabric.{path}"), format!("{rate} is not a bandwidth"), ""));
            }
        }
        if !(afd_alpha_scale.is_finite() && afd_alpha_scale >= 0.0) {
            return Err(Error::spec(
                "afd_alpha_scale",
                format!("{afd_alpha_scale} is not a factor"),
                "1 leaves alpha as it is",
            ));
        }
        // A fabric of the user's own is priced from its system's tables, whose links were the preset's.
        let measured = catalog::system(&cluster.system).map_or_else(|_| fabric.clone(), |(_, preset)| preset);
        let wires = Wires::new(fabric).with_tables_of(&measured);
        let starts = constants::starts(cluster, &wires)?;
        let collectives = Collectives::new(&db, &cluster.system, framework, &starts, wires)?;
        let all_to_all = AllToAll::new(&db, &cluster.system, &starts, wires, cluster.gpus)?;
        Ok(Comm {
            inner: Arc::new(Inner {
                wires,
                collectives,
                all_to_all,
                alpha_scale: afd_alpha_scale,
                dispatch_scale: 1.0,
            }),
        })
    }

    /// The same with every start-up of dispatch and combine times a factor.
    pub(crate) fn with_dispatch_scale(mut self, scale: f64) -> Comm {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.dispatch_scale = scale;
        }
        self
    }

    /// `time` of a number of tokens; the start-up is what none take.
    fn scaled(&self, tokens: f64, time: impl Fn(f64) -> CommTime) -> CommTime {
        let whole = time(tokens);
        match self.inner.dispatch_scale {
            1.0 => whole,
            scale => {
                CommTime { seconds: whole.seconds + (scale - 1.0) * time(0.0).seconds.min(whole.seconds), ..whole }
            }
        }
    }

    /// All-to-all kernels that exist here.
    pub fn kinds(&self) -> &[A2aKind] {
        self.inner.all_to_all.kinds()
    }

    /// `bytes`: the full buffer of one rank, BF16. The faster of the framework's own kernel and NCCL.
    pub fn all_reduce(&self, bytes: f64, ranks: u32, graph: bool) -> CommTime {
        self.inner.collectives.all_reduce(bytes, self.inner.collectives.packed(ranks), graph)
    }

    /// `bytes`: the full gathered buffer.
    pub fn all_gather(&self, bytes: f64, ranks: u32) -> CommTime {
        self.inner.collectives.all_gather(bytes, self.inner.collectives.packed(ranks))
    }

    /// `bytes`: the full buffer before scattering.
    pub fn reduce_scatter(&self, bytes: f64, ranks: u32) -> CommTime {
        self.inner.collectives.reduce_scatter(bytes, self.inner.collectives.packed(ranks))
    }

    /// `tokens` per source GPU.
    pub fn dispatch(&self, shape: &A2aShape, tokens: f64, kind: A2aKind) -> CommTime {
        self.scaled(tokens, |tokens| self.inner.all_to_all.dispatch(shape, tokens, kind))
    }

    /// `tokens` per source GPU, that is per GPU they come back to.
    pub fn combine(&self, shape: &A2aShape, tokens: f64, kind: A2aKind) -> CommTime {
        self.scaled(tokens, |tokens| self.inner.all_to_all.combine(shape, tokens, kind))
    }

    fn afd(&self) -> Afd<'_> {
        Afd { kernels: &self.inner.all_to_all, wires: &self.inner.wires, alpha_scale: self.inner.alpha_scale }
    }

    /// `tokens` per attention rank (of `attention_tp` GPUs) and micro-batch.
    pub fn a2f(&self, shape: &AfdShape, tokens: f64) -> CommTime {
        self.afd().a2f(shape, tokens)
    }

    /// As [`Comm::a2f`]; ends in the all-gather over `attention_tp`.
    pub fn f2a(&self, shape: &AfdShape, tokens: f64) -> CommTime {
        let hop = self.afd().f2a(shape, tokens);
        if shape.attention_tp <= 1 {
            return hop;
        }
        hop.then(self.all_gather(tokens * traffic::return_bytes(shape.hidden), shape.attention_tp))
    }

    /// Seconds of either hop that the ports of the FFN side are taken; `home`: of [`Comm::afd_home`].
    pub(crate) fn afd_ffn_seconds(&self, shape: &AfdShape, tokens: f64, back: bool, home: bool) -> f64 {
        let afd = self.afd();
        if home { afd.home_way(shape, tokens, back).ffn_s } else { afd.ffn_seconds(shape, tokens, back) }
    }

    /// `tokens` per attention rank to one FFN GPU each, or (`back`) one summed vector a token from there.
    pub(crate) fn afd_home(&self, shape: &AfdShape, tokens: f64, back: bool) -> CommTime {
        let hop = self.afd().home(shape, tokens, back);
        if !back || shape.attention_tp <= 1 {
            return hop;
        }
        hop.then(self.all_gather(tokens * traffic::return_bytes(shape.hidden), shape.attention_tp))
    }

    /// Bytes per second of KV from one GPU to one other.
    pub(crate) fn kv_rate(&self, same_domain: bool) -> f64 {
        KV_ETA * if same_domain { self.inner.wires.nvlink } else { self.inner.wires.nic(2) }
    }

    fn kv(&self, alpha: f64, bytes: f64, links: u32, same_domain: bool) -> CommTime {
        let alpha = if same_domain { KV_NVLINK_ALPHA } else { alpha };
        let seconds = alpha + bytes / (f64::from(links.max(1)) * self.kv_rate(same_domain));
        CommTime { seconds, evidence: Evidence::Extrapolated }
    }

    /// The KV of one whole request over `links` parallel pairs of GPUs.
    pub fn kv_transfer(&self, bytes: f64, links: u32, same_domain: bool) -> CommTime {
        self.kv(KV_BULK_ALPHA, bytes, links, same_domain)
    }

    /// One layer of it, on a transfer already set up.
    pub fn kv_layer(&self, bytes: f64, links: u32, same_domain: bool) -> CommTime {
        self.kv(KV_LAYER_ALPHA, bytes, links, same_domain)
    }

    /// One hop of pipeline parallelism, one GPU to one.
    pub fn p2p(&self, bytes: f64, same_domain: bool) -> CommTime {
        self.inner.collectives.pair(bytes, same_domain)
    }
}
