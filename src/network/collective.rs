//! All-reduce, all-gather and reduce-scatter of consecutive GPUs.
//!
//! Measured ranks: the table. Between: geometric interpolation in ranks. Beyond, inside the
//! domain: the largest measured group with its bytes stretched by the ring's share
//! ((n-1)/n, twice that for all-reduce) and alpha rising by the fitted slope per rank. Across
//! domains: hierarchical, `RS(inside) + NIC passes + AG(inside)` on the rails of the emptiest
//! domain, each pass `alpha log2(domains) + (d-1)/d S/g / (eta B_nic)`.
//!
//! Source: reference/network.md 1.3 and 4.6. Limits: no multi-node NCCL table exists, so nothing
//! across domains is better than extrapolated; NVLS beyond the measured ranks is not credited.

use super::constants::{ETA_NIC, NIC_ALPHA_PER_LOG2, Start, Starts};
use super::curve::{CommTime, Curve, Lane};
use super::fit::rising_slope;
use super::tables::{self, ByRanks};
use super::traffic::packed;
use super::wires::Wires;
use crate::error::Result;
use crate::kernels::{Evidence, KernelDb};

/// One operation inside a domain, every number of ranks resolved to a lane.
#[derive(Debug)]
struct Op {
    curves: Vec<Curve>,
    /// By ranks; entries 0 and 1 are not used.
    lanes: Vec<Lane>,
}

fn ring_share(n: u32) -> f64 {
    1.0 - 1.0 / f64::from(n)
}

impl Op {
    /// Lanes up to `top` ranks.
    fn new(curves: ByRanks, top: u32) -> Option<Op> {
        let ranks: Vec<u32> = curves.keys().copied().collect();
        let (&least, &most) = (ranks.first()?, ranks.last()?);
        let curves: Vec<Curve> = curves.into_values().collect();
        let alphas: Vec<(f64, f64)> = ranks.iter().zip(&curves).map(|(n, c)| (f64::from(*n), c.first())).collect();
        let per_rank = rising_slope(&alphas);
        let lanes = (0..=top.max(2))
            .map(|n| {
                let mut lane = Lane::place(&ranks, n.max(2));
                let from = if n < least { least } else { most };
                if lane.evidence == Evidence::Extrapolated {
                    lane.stretch = ring_share(n.max(2)) / ring_share(from);
                    // Smaller groups than measured keep the alpha that was measured.
                    lane.shift = per_rank * (f64::from(n) - f64::from(from)).max(0.0);
                }
                lane
            })
            .collect();
        Some(Op { curves, lanes })
    }

    /// From the table, else from starting parameters; `trips` passes of the ring's share.
    fn or_start(curves: ByRanks, start: Start, trips: f64, top: u32, nvlink: f64) -> Option<Op> {
        if !curves.is_empty() {
            return Op::new(curves, top);
        }
        let ranks = std::iter::successors(Some(2_u32), |n| (2 * n <= top).then_some(2 * n));
        let curves = ranks.filter_map(|n| {
            let alpha = start.alpha + start.per_rank * f64::from(n - 1);
            let rate = start.eta * nvlink / (trips * ring_share(n));
            Some((n, Curve::line(alpha, rate, 512.0, 1e9)?))
        });
        Op::new(curves.collect(), top)
    }

    fn at(&self, bytes: f64, n: u32) -> CommTime {
        let lane = &self.lanes[(n as usize).min(self.lanes.len() - 1)];
        lane.eval(|i, stretch| self.curves[i].at(bytes * stretch))
    }

    fn covers(&self, n: u32) -> bool {
        (n as usize) < self.lanes.len()
    }
}

/// The collectives of one system and framework.
#[derive(Debug)]
pub struct Collectives {
    wires: Wires,
    all_reduce: Op,
    all_gather: Op,
    reduce_scatter: Op,
    all_to_all: Op,
    /// The framework's own all-reduce, up to the largest measured group.
    graph: Option<Op>,
    eager: Option<Op>,
}

impl Collectives {
    pub fn new(db: &KernelDb, system: &str, framework: &str, starts: &Starts, wires: Wires) -> Result<Collectives> {
        let (top, nvlink) = (wires.domain, wires.nvlink);
        let op = |name: &str, start: Start, trips: f64| -> Result<Op> {
            let curves = tables::nccl(db, system, name)?;
            Op::or_start(curves, start, trips, top.max(2), nvlink)
                .ok_or_else(|| crate::Error::data(system, format!("no usable {name} times")))
        };
        let custom = |graph: bool| -> Result<Option<Op>> {
            let mut curves = tables::custom_all_reduce(db, system, framework, graph)?;
            curves.retain(|n, _| *n <= top);
            let most = curves.keys().last().copied().unwrap_or(0);
            Ok(Op::new(curves, most))
        };
        Ok(Collectives {
            wires,
            all_reduce: op("all_reduce", starts.all_reduce, 2.0)?,
            all_gather: op("all_gather", starts.all_gather, 1.0)?,
            reduce_scatter: op("reduce_scatter", starts.reduce_scatter, 1.0)?,
            all_to_all: op("alltoall", starts.all_to_all, 1.0)?,
            graph: custom(true)?,
            eager: custom(false)?,
        })
    }

    /// `passes` of a reduce-scatter or all-gather over the rails, `bytes` being the buffer that one
    /// domain shares out over its GPUs.
    fn rails(&self, bytes: f64, least: u32, domains: u32, passes: f64) -> CommTime {
        let share = ring_share(domains) * bytes / f64::from(least);
        let seconds =
            passes * (NIC_ALPHA_PER_LOG2 * f64::from(domains).log2() + share / (ETA_NIC * self.wires.nic(domains)));
        CommTime { seconds, evidence: Evidence::Extrapolated }
    }

    fn inside(op: &Op, bytes: f64, n: u32) -> CommTime {
        if n <= 1 { CommTime::ZERO } else { op.at(bytes, n) }
    }

    fn one_pass(&self, op: &Op, bytes: f64, ranks: u32) -> CommTime {
        let (most, least, domains) = packed(ranks, self.wires.domain);
        if domains == 1 {
            return Self::inside(op, bytes, most);
        }
        Self::inside(op, bytes, most).then(self.rails(bytes, least, domains, 1.0))
    }

    pub fn all_gather(&self, bytes: f64, ranks: u32) -> CommTime {
        self.one_pass(&self.all_gather, bytes, ranks)
    }

    pub fn reduce_scatter(&self, bytes: f64, ranks: u32) -> CommTime {
        self.one_pass(&self.reduce_scatter, bytes, ranks)
    }

    pub fn all_reduce(&self, bytes: f64, ranks: u32, graph: bool) -> CommTime {
        let (most, least, domains) = packed(ranks, self.wires.domain);
        if domains > 1 {
            return Self::inside(&self.reduce_scatter, bytes, most)
                .then(self.rails(bytes, least, domains, 2.0))
                .then(Self::inside(&self.all_gather, bytes, most));
        }
        if most <= 1 {
            return CommTime::ZERO;
        }
        let nccl = self.all_reduce.at(bytes, most);
        match if graph { &self.graph } else { &self.eager } {
            Some(own) if own.covers(most) => own.at(bytes, most).or(nccl),
            _ => nccl,
        }
    }

    /// One GPU to one other: half of a two-rank all-to-all stays at home.
    pub fn pair(&self, bytes: f64, same_domain: bool) -> CommTime {
        let inside = self.all_to_all.at(2.0 * bytes, 2);
        if same_domain {
            return inside;
        }
        let launch = self.all_to_all.at(0.0, 2).seconds;
        let seconds = launch + NIC_ALPHA_PER_LOG2 + bytes / (ETA_NIC * self.wires.nic(2));
        CommTime { seconds: seconds.max(inside.seconds), evidence: Evidence::Extrapolated }
    }
}
