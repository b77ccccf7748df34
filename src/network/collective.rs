//! All-reduce, all-gather and reduce-scatter of consecutive GPUs.
//!
//! Measured ranks: the table. Between: geometric interpolation in ranks. Beyond, inside the
//! domain: the protocol lines fitted to the groups of two and four (law.rs), never below the largest
//! measured group. Across domains: hierarchical, `RS(inside) + NIC passes + AG(inside)` on the rails of the emptiest
//! domain, each pass `alpha log2(domains) + (d-1)/d S/g / (eta B_nic)`.
//!
//! Source: network.md 1.3 and 4.6. Limits: no multi-node NCCL table exists, so nothing
//! across domains is better than extrapolated; NVLS beyond the measured ranks is not credited.

use super::constants::{ETA_NIC, NIC_ALPHA_PER_LOG2, Starts};
use super::curve::{CommTime, Curve, CurveLane};
use super::law::CollectiveLaw;
use super::tables::{self, ByRanks};
use super::traffic::packed;
use super::wires::Wires;
use crate::error::Result;
use crate::kernels::{Evidence, KernelDb};

/// One operation inside a domain: the table where there are rows, the law of the kernel beyond.
#[derive(Debug)]
struct Op {
    curves: Vec<Curve>,
    /// By ranks, up to the largest measured; entries 0 and 1 are not used.
    lanes: Vec<CurveLane>,
    wires: Wires,
    beyond: Option<Beyond>,
}

#[derive(Debug)]
struct Beyond {
    law: CollectiveLaw,
    bytes_per_s: f64,
    evidence: Evidence,
}

fn ring_share(n: u32) -> f64 {
    1.0 - 1.0 / f64::from(n)
}

impl Op {
    fn new(curves: ByRanks, wires: Wires, beyond: Option<Beyond>) -> Op {
        let ranks: Vec<u32> = curves.keys().copied().collect();
        let curves: Vec<Curve> = curves.into_values().collect();
        let lane = |n: u32| {
            let mut lane = CurveLane::place(&ranks, n.max(2));
            if lane.evidence == Evidence::Extrapolated {
                // A smaller group than measured keeps its alpha.
                lane.stretch = ring_share(n.max(2)) / ring_share(ranks[lane.lo]);
            }
            lane
        };
        let lanes = ranks.last().map_or_else(Vec::new, |&most| (0..=most).map(lane).collect());
        Op { curves, lanes, wires, beyond }
    }

    fn measured(&self, bytes: f64, n: u32) -> Option<CommTime> {
        let lane = self.lanes.get(n as usize)?;
        // On other links than the table's a byte counts for what it takes there.
        let slowed = self.wires.slowed();
        Some(lane.eval(|i, stretch| self.curves[i].at(bytes * stretch * slowed)).at_best(self.wires.known(1)))
    }

    fn at(&self, bytes: f64, n: u32) -> CommTime {
        if let Some(t) = self.measured(bytes, n) {
            return t;
        }
        let Some(Beyond { law, bytes_per_s, evidence }) = &self.beyond else {
            return CommTime { seconds: f64::INFINITY, evidence: Evidence::Roofline };
        };
        let t = CommTime { seconds: law.seconds(n, bytes, *bytes_per_s), evidence: *evidence };
        // More ranks are never faster than the largest group that was measured.
        match self.lanes.len().checked_sub(1).and_then(|most| self.measured(bytes, most as u32)) {
            Some(floor) if floor.seconds > t.seconds => CommTime { seconds: floor.seconds, ..t },
            _ => t,
        }
    }
}

/// How the GPUs of a collective sit on domains: in the fullest, in the emptiest, and over how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seats {
    pub most: u32,
    pub least: u32,
    pub domains: u32,
}

impl Seats {
    /// Of these GPUs.
    pub fn of(gpus: &[u32], domain: u32) -> Seats {
        let mut here = std::collections::BTreeMap::new();
        for g in gpus {
            *here.entry(g / domain.max(1)).or_insert(0u32) += 1;
        }
        let (most, least) = (here.values().max(), here.values().min());
        Seats {
            most: most.copied().unwrap_or(1),
            least: least.copied().unwrap_or(1),
            domains: here.len().max(1) as u32,
        }
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
    pub(crate) fn new(
        db: &KernelDb,
        system: &str,
        framework: &str,
        starts: &Starts,
        wires: Wires,
    ) -> Result<Collectives> {
        let op = |name: &str, law: &CollectiveLaw| -> Result<Op> {
            let curves = tables::nccl(db, system, name)?;
            let evidence = if curves.is_empty() { Evidence::Roofline } else { Evidence::Extrapolated };
            Ok(Op::new(curves, wires, Some(Beyond { law: law.clone(), bytes_per_s: wires.nvlink, evidence })))
        };
        let custom = |graph: bool| -> Result<Option<Op>> {
            let mut curves = tables::custom_all_reduce(db, system, framework, graph)?;
            curves.retain(|n, _| *n <= wires.domain);
            Ok((!curves.is_empty()).then(|| Op::new(curves, wires, None)))
        };
        Ok(Collectives {
            wires,
            all_reduce: op("all_reduce", &starts.all_reduce)?,
            all_gather: op("all_gather", &starts.all_gather)?,
            reduce_scatter: op("reduce_scatter", &starts.reduce_scatter)?,
            all_to_all: op("alltoall", &starts.all_to_all)?,
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

    /// Seats of consecutive GPUs packed from the start of a domain.
    pub(crate) fn packed(&self, ranks: u32) -> Seats {
        let (most, least, domains) = packed(ranks, self.wires.domain);
        Seats { most, least, domains }
    }

    fn one_pass(&self, op: &Op, bytes: f64, seats: Seats) -> CommTime {
        let Seats { most, least, domains } = seats;
        if domains == 1 {
            return Self::inside(op, bytes, most);
        }
        Self::inside(op, bytes, most).then(self.rails(bytes, least, domains, 1.0))
    }

    pub(crate) fn all_gather(&self, bytes: f64, seats: Seats) -> CommTime {
        self.one_pass(&self.all_gather, bytes, seats)
    }

    pub(crate) fn reduce_scatter(&self, bytes: f64, seats: Seats) -> CommTime {
        self.one_pass(&self.reduce_scatter, bytes, seats)
    }

    pub(crate) fn all_reduce(&self, bytes: f64, seats: Seats, graph: bool) -> CommTime {
        let Seats { most, least, domains } = seats;
        if domains > 1 {
            return Self::inside(&self.reduce_scatter, bytes, most)
                .then(self.rails(bytes, least, domains, 2.0))
                .then(Self::inside(&self.all_gather, bytes, most));
        }
        if most <= 1 {
            return CommTime::ZERO;
        }
        let nccl = self.all_reduce.at(bytes, most);
        let own = if graph { &self.graph } else { &self.eager };
        own.as_ref().and_then(|own| own.measured(bytes, most)).map_or(nccl, |own| own.or(nccl))
    }

    /// One GPU to one other: half of a two-rank all-to-all stays at home.
    pub(crate) fn pair(&self, bytes: f64, same_domain: bool) -> CommTime {
        let inside = self.all_to_all.at(2.0 * bytes, 2);
        if same_domain {
            return inside;
        }
        let launch = self.all_to_all.at(0.0, 2).seconds;
        let seconds = launch + NIC_ALPHA_PER_LOG2 + bytes / (ETA_NIC * self.wires.nic(2));
        CommTime { seconds: seconds.max(inside.seconds), evidence: Evidence::Extrapolated }
    }
}
