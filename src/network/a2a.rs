//! Dispatch and combine of expert parallelism.
//!
//! Measured EP sizes: the table of the kernel, at tokens that put the same time on the ports:
//! `t(T) = curve(T beta(shape, EP) / beta(row)) + shift(EP)`, beta the port seconds per token of
//! traffic.rs under the kernel's port rule. The measured shape at a measured EP is the row itself;
//! another hidden size, top-k, payload or routing moves along the curve; another EP moves along
//! the curve of the largest measured one and adds the alpha of the further nodes. Between
//! measured EPs: geometric interpolation.
//!
//! Kernels: DeepEP low-latency (no dedup, ports add as a p-norm), DeepEP normal (dedup per node,
//! pipelined: the busiest port), one-sided NVLink (dedup per GPU, one rack). Source:
//! network.md 1.1, 4.6. Limits: low-latency kernels take 1,024 tokens a rank
//! ([`A2aKind::most_tokens`]); asked for more, the price just goes on rising. Few experts a rank (E <= 16) starve the
//! low-latency kernel of SMs: shapes are matched to the nearest measured number of experts, and the launch
//! differs by the law's cost per expert.
//! Rows of the one-sided kernel are balanced (a token reaches min(EP, k) GPUs), a random router
//! reaches D < min(EP, k), so its own shape is interpolated, not measured.

use super::constants::{Starts, Way};
use super::curve::{CommTime, Curve, CurveLane};
use super::law::ExchangeLaw;
use super::tables::{self, ByEp, Shaped};
use super::traffic::{self, Ports, packed, payload_bytes, return_bytes};
use super::wires::{PortRule, Wires};
use crate::error::Result;
use crate::kernels::{Evidence, KernelDb};
use crate::spec::{Dtype, choices};

choices! {
    /// The all-to-all kernels.
    A2aKind {
        LowLatency = "low-latency",
        Normal = "normal",
        OneSided = "one-sided",
    }
}

impl A2aKind {
    /// Payloads through the ports of the busiest GPU per token, uniform routing.
    pub(crate) fn ports(self, shape: &A2aShape, domain: u32) -> Ports {
        let A2aShape { experts, topk, groups, topk_groups, ep, .. } = *shape;
        match self {
            A2aKind::LowLatency => traffic::low_latency(topk, ep, domain),
            A2aKind::OneSided => traffic::one_sided(experts, topk, ep),
            A2aKind::Normal => traffic::normal(experts, topk, groups, topk_groups, ep, domain),
        }
    }

    /// Tokens of one rank that a kernel can take in one call. DeepEP's low-latency kernels count them
    /// below a tag of 1,024 (`FINISHED_SUM_TAG`), and their buffers hold every expert's worst case.
    pub(crate) fn most_tokens(self) -> f64 {
        match self {
            A2aKind::LowLatency => 1024.0,
            A2aKind::Normal | A2aKind::OneSided => f64::INFINITY,
        }
    }
}

/// One expert-parallel exchange; `groups` and `topk_groups` of group-limited routing (0 or 1: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct A2aShape {
    pub hidden: u32,
    pub topk: u32,
    pub experts: u32,
    pub groups: u32,
    pub topk_groups: u32,
    pub ep: u32,
    pub dispatch_dtype: Dtype,
}

/// Experts of DeepSeek-V3, the shape of tables across nodes and of laws without rows.
const STANDARD_EXPERTS: u32 = 256;

/// As many experts or fewer starve the low-latency kernel of SMs (network.md 4.3).
pub const FEW_EXPERTS: u32 = 16;

/// Largest group priced from its own table entry; beyond, the last entry's alpha.
const MOST_RANKS: u32 = 4096;

/// A row of the table with what it moved.
#[derive(Debug)]
struct ExchangeRow {
    shape: Shaped,
    /// Port seconds per token of this row.
    beta: f64,
    /// Bytes per token and copy.
    payload: f64,
}

/// One kernel in one direction.
#[derive(Debug)]
pub struct Phase {
    kind: A2aKind,
    wires: Wires,
    pub rule: PortRule,
    ranks: Vec<u32>,
    /// By measured EP.
    rows: Vec<Vec<ExchangeRow>>,
    /// By EP.
    lanes: Vec<CurveLane>,
    /// Alpha by EP less that of its experts, for the AFD hops that borrow it.
    alphas: Vec<f64>,
    per_expert: f64,
}

/// What is known of a kernel beside its rows.
#[derive(Clone, Copy)]
struct Known {
    kind: A2aKind,
    /// Bytes per token and copy of a row with that hidden size.
    payload: fn(u32) -> f64,
    law: ExchangeLaw,
}

impl Phase {
    /// Payloads through the ports per token, uniform routing.
    fn ports(&self, shape: &A2aShape, ep: u32) -> Ports {
        self.kind.ports(&A2aShape { ep, ..*shape }, self.wires.domain)
    }

    fn beta(&self, shape: &A2aShape, payload: f64, ep: u32, wires: &Wires) -> f64 {
        let (_, _, domains) = packed(ep, wires.domain);
        self.rule.seconds(self.ports(shape, ep).scale(payload), wires, domains)
    }

    /// Port seconds per token of a row of the table, on the links it was measured on.
    fn beta_of_row(&self, row: &Shaped, payload: f64, ep: u32) -> f64 {
        let measured = self.wires.measured();
        if self.kind == A2aKind::OneSided {
            // Measured with a balanced router.
            let copies = f64::from(row.topk.min(ep)) * (1.0 - 1.0 / f64::from(ep));
            return self.rule.seconds(Ports { nvlink: copies * payload, nic: 0.0 }, &measured, 1);
        }
        let shape = A2aShape {
            hidden: row.hidden,
            topk: row.topk,
            experts: row.experts,
            groups: 0,
            topk_groups: 0,
            ep,
            dispatch_dtype: Dtype::Fp8,
        };
        self.beta(&shape, payload, ep, &measured)
    }

    /// From measured rows; without any, from the law of its generation, tagged roofline.
    fn new(rows: ByEp, known: Known, wires: Wires, top: u32) -> Option<Phase> {
        let Known { kind, payload, law } = known;
        let rule = PortRule { eta_nvlink: law.eta_nvlink, eta_nic: law.eta_nic, p: law.p.unwrap_or(f64::INFINITY) };
        let mut phase = Phase::empty(kind, wires, rule);
        let alpha = |n: u32| {
            let (most, _, domains) = packed(n, wires.domain);
            law.alpha(most, domains, 0)
        };
        phase.per_expert = law.per_expert;
        let rows = if rows.is_empty() { phase.invented(payload, alpha)? } else { rows };
        phase.ranks = rows.keys().copied().collect();
        for (ep, shapes) in rows {
            let rows = shapes
                .into_iter()
                .map(|shape| {
                    let bytes = payload(shape.hidden);
                    ExchangeRow { beta: phase.beta_of_row(&shape, bytes, ep), payload: bytes, shape }
                })
                .collect();
            phase.rows.push(rows);
        }
        for n in 0..=top.max(wires.domain).min(MOST_RANKS) {
            let n = n.max(2);
            let mut lane = CurveLane::place(&phase.ranks, n);
            if lane.evidence == Evidence::Extrapolated {
                // Smaller groups than measured keep at least half a launch.
                lane.shift = (alpha(n) - alpha(phase.ranks[lane.lo])).max(-0.5 * law.alpha);
            }
            phase.lanes.push(lane);
            phase.alphas.push(alpha(n));
        }
        Some(phase)
    }

    fn empty(kind: A2aKind, wires: Wires, rule: PortRule) -> Phase {
        Phase {
            kind,
            wires,
            rule,
            ranks: Vec::new(),
            rows: Vec::new(),
            lanes: Vec::new(),
            alphas: Vec::new(),
            per_expert: 0.0,
        }
    }

    fn invented(&self, payload: fn(u32) -> f64, alpha: impl Fn(u32) -> f64) -> Option<ByEp> {
        let ep = self.wires.domain.clamp(2, 8);
        let launch = alpha(ep) + self.per_expert * f64::from(STANDARD_EXPERTS);
        let mut shaped =
            Shaped { hidden: 7168, topk: 8, experts: STANDARD_EXPERTS, curve: Curve::line(launch, 1.0, 1.0, 2.0)? };
        let rate = 1.0 / self.beta_of_row(&shaped, payload(7168), ep);
        shaped.curve = Curve::line(launch, rate, 1.0, 65536.0)?;
        Some(ByEp::from([(ep, vec![shaped])]))
    }

    /// The measured row for a shape: its own, else the nearest in bytes and experts.
    fn row(&self, i: usize, shape: &A2aShape) -> (&ExchangeRow, bool) {
        let apart = |a: u32, b: u32| {
            let (a, b) = (f64::from(a.max(1)), f64::from(b.max(1)));
            if a > b { a / b } else { b / a }
        };
        let rows = &self.rows[i];
        let (mut best, mut least) = (&rows[0], f64::INFINITY);
        for row in rows {
            let s = &row.shape;
            if s.hidden == shape.hidden && s.topk == shape.topk && s.experts == shape.experts {
                return (row, true);
            }
            let d = apart(s.experts, shape.experts) * apart(s.hidden * s.topk, shape.hidden * shape.topk);
            if d < least {
                (best, least) = (row, d);
            }
        }
        (best, false)
    }

    fn at(&self, shape: &A2aShape, payload: f64, tokens: f64) -> CommTime {
        let ep = shape.ep;
        if ep <= 1 {
            return CommTime::ZERO;
        }
        let lane = &self.lanes[(ep as usize).min(self.lanes.len() - 1)];
        lane.eval(|i, _| {
            let (row, same) = self.row(i, shape);
            // Between two measured groups each is asked for itself.
            let here = if lane.evidence == Evidence::Extrapolated { ep } else { self.ranks[i] };
            let t = row.shape.curve.at(tokens * self.beta(shape, payload, here, &self.wires) / row.beta);
            // A borrowed row was launched for another number of experts; few of them are another regime.
            let apart = f64::from(shape.experts) - f64::from(row.shape.experts);
            let launch =
                if same || shape.experts.min(row.shape.experts) <= FEW_EXPERTS { 0.0 } else { self.per_expert * apart };
            let t = CommTime { seconds: t.seconds + launch.max(-0.5 * row.shape.curve.at(0.0).seconds), ..t };
            let known = if same && payload == row.payload { Evidence::Measured } else { Evidence::Interpolated };
            t.at_best(known).at_best(self.wires.known(packed(ep, self.wires.domain).2))
        })
    }

    /// Launch cost of a group of `n` consecutive GPUs with that many experts.
    pub(crate) fn alpha(&self, n: u32, experts: u32) -> f64 {
        self.alphas[(n as usize).min(self.alphas.len() - 1)] + self.per_expert * f64::from(experts)
    }
}

/// Both directions of one kernel.
#[derive(Debug)]
pub struct Kernel {
    pub dispatch: Phase,
    pub combine: Phase,
}

/// The all-to-all kernels of one system.
#[derive(Debug)]
pub struct AllToAll {
    pub low_latency: Kernel,
    pub normal: Kernel,
    pub one_sided: Option<Kernel>,
    kinds: Vec<A2aKind>,
    domain: u32,
}

fn fp8(hidden: u32) -> f64 {
    payload_bytes(hidden, Dtype::Fp8)
}

fn nvfp4(hidden: u32) -> f64 {
    payload_bytes(hidden, Dtype::Nvfp4)
}

impl AllToAll {
    pub(crate) fn new(db: &KernelDb, system: &str, starts: &Starts, wires: Wires, gpus: u32) -> Result<AllToAll> {
        let missing = || crate::Error::data(system, "no usable all-to-all times");
        let kernel = |rows: (ByEp, ByEp), kind: A2aKind, payload: fn(u32) -> f64, way: &Way, top: u32| {
            let phase = |rows, payload, law| Phase::new(rows, Known { kind, payload, law }, wires, top);
            Some(Kernel {
                dispatch: phase(rows.0, payload, way.dispatch)?,
                combine: phase(rows.1, return_bytes, way.combine)?,
            })
        };
        let deepep = |normal: bool, kind: A2aKind, way: &Way| -> Result<Kernel> {
            let rows = tables::deepep(db, system, wires.node, normal)?;
            kernel(rows, kind, fp8, way, gpus).ok_or_else(missing)
        };
        let low_latency = deepep(false, A2aKind::LowLatency, &starts.low_latency)?;
        let normal = deepep(true, A2aKind::Normal, &starts.normal)?;
        let one_sided = if wires.domain > 8 {
            let rows = tables::one_sided(db, system)?;
            Some(kernel(rows, A2aKind::OneSided, nvfp4, &starts.one_sided, wires.domain).ok_or_else(missing)?)
        } else {
            None
        };
        let mut kinds = vec![A2aKind::LowLatency, A2aKind::Normal];
        if one_sided.is_some() {
            kinds.push(A2aKind::OneSided);
        }
        Ok(AllToAll { low_latency, normal, one_sided, kinds, domain: wires.domain })
    }

    pub(crate) fn kinds(&self) -> &[A2aKind] {
        &self.kinds
    }

    /// One-sided kernels reach one rack only; beyond it low-latency does the work.
    fn kernel(&self, kind: A2aKind, ep: u32) -> &Kernel {
        match (kind, &self.one_sided) {
            (A2aKind::Normal, _) => &self.normal,
            (A2aKind::OneSided, Some(k)) if ep <= self.domain => k,
            _ => &self.low_latency,
        }
    }

    pub(crate) fn dispatch(&self, shape: &A2aShape, tokens: f64, kind: A2aKind) -> CommTime {
        self.kernel(kind, shape.ep).dispatch.at(shape, payload_bytes(shape.hidden, shape.dispatch_dtype), tokens)
    }

    pub(crate) fn combine(&self, shape: &A2aShape, tokens: f64, kind: A2aKind) -> CommTime {
        self.kernel(kind, shape.ep).combine.at(shape, return_bytes(shape.hidden), tokens)
    }
}
