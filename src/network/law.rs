//! The fitted forms of communication kernels.
//!
//! Collective of n ranks on a buffer of S bytes, the least of a few protocol lines (LL, LL128, Simple,
//! NVLS; one-shot and two-shot all-reduce):
//!
//! ```text
//! t = min_k  alpha_k + per_rank_k (n - 1) + S ((n-1)/n / eta_k + own_k / n) / B        ring
//!     min_k  alpha_k + per_rank_k (n - 1) + S (n-1) / (eta_k B)                        one-shot
//! ```
//!
//! `own` is the share of the buffer that a rank copies to itself. An all-reduce counts one pass (NVLS sends S
//! and receives S), so a ring, which sends 2 (n-1)/n S, has at most half of eta.
//!
//! All-to-all: `t = alpha + per_expert E + per_log2_ranks log2(g) + step + per_log2_domains log2(d) + ports`,
//! E experts (each is told how many tokens come, and is waited for), g GPUs of the group in the fullest
//! domain, `step` from the second domain d on; the ports add as a p-norm
//! (no p: the busiest alone, a pipelined kernel): NVLink, NIC, and the issue rate of the SMs given to the kernel.
//!
//! Source of the forms: min of protocol lines and p-norm of ports, network.md 4.2 and 4.6; SM budget
//! as a port 4.3. Limits: the alpha of a group grows linearly (ring) or with the logarithm (all-to-all)
//! beyond what was measured.

use serde::{Deserialize, Serialize};

use super::traffic::Ports;

/// Which bytes of a collective a line counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    Ring,
    OneShot,
}

/// One protocol of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolLine {
    pub pattern: Pattern,
    /// Seconds.
    pub alpha: f64,
    /// Seconds per further rank.
    pub per_rank: f64,
    /// Share of the wire.
    pub eta: f64,
    /// Wire times of the rank's own share.
    pub own: f64,
}

impl ProtocolLine {
    pub(crate) fn seconds(&self, ranks: u32, bytes: f64, bytes_per_s: f64) -> f64 {
        let n = f64::from(ranks.max(1));
        let passes = match self.pattern {
            Pattern::Ring => (n - 1.0) / n / self.eta + self.own / n,
            Pattern::OneShot => (n - 1.0) / self.eta,
        };
        self.alpha(ranks) + bytes * passes / bytes_per_s
    }

    pub(crate) fn alpha(&self, ranks: u32) -> f64 {
        self.alpha + self.per_rank * f64::from(ranks.saturating_sub(1))
    }
}

/// The protocols of one collective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CollectiveLaw {
    pub lines: Vec<ProtocolLine>,
}

impl CollectiveLaw {
    /// Seconds of `ranks` GPUs in one domain with a buffer of `bytes` per rank.
    pub fn seconds(&self, ranks: u32, bytes: f64, bytes_per_s: f64) -> f64 {
        self.lines.iter().map(|l| l.seconds(ranks, bytes, bytes_per_s)).fold(f64::INFINITY, f64::min)
    }
}

/// What one call of an all-to-all moves through the busiest GPU, and how its group sits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    pub ports: Ports,
    /// Bytes that the SMs handle, the GPU's own share included.
    pub handled: f64,
    pub sms: f64,
    /// GPUs of the group in the fullest domain.
    pub inside: u32,
    pub domains: u32,
    pub experts: u32,
}

/// Rates of one GPU's links, one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Links {
    pub nvlink: f64,
    pub nic: f64,
}

/// An all-to-all kernel in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeLaw {
    /// Seconds, one domain.
    pub alpha: f64,
    pub per_expert: f64,
    pub per_log2_ranks: f64,
    /// Seconds more from the second domain on.
    pub step: f64,
    pub per_log2_domains: f64,
    pub eta_nvlink: f64,
    pub eta_nic: f64,
    /// None: the busiest port alone.
    pub p: Option<f64>,
    /// Bytes per second and SM; none: SMs are not the limit.
    pub sm_rate: Option<f64>,
}

impl ExchangeLaw {
    pub(crate) fn alpha(&self, inside: u32, domains: u32, experts: u32) -> f64 {
        let log2 = |n: u32| f64::from(n.max(1)).log2();
        let across = if domains > 1 { self.step + self.per_log2_domains * log2(domains) } else { 0.0 };
        self.alpha + self.per_expert * f64::from(experts) + self.per_log2_ranks * log2(inside) + across
    }

    /// Seconds on the ports.
    pub(crate) fn wire(&self, moved: &Moved, links: &Links) -> f64 {
        let issue = self.sm_rate.map_or(0.0, |rate| moved.handled / (rate * moved.sms.max(1.0)));
        let parts = [
            moved.ports.nvlink / (self.eta_nvlink * links.nvlink),
            moved.ports.nic / (self.eta_nic * links.nic),
            issue,
        ];
        norm(parts, self.p)
    }

    /// Share of NVLink that is left when `sms` SMs handle `handled` bytes for each byte on the wire.
    pub(crate) fn share_of_nvlink(&self, sms: f64, handled: f64, links: &Links) -> f64 {
        // A second on the wire at full rate; times are proportional to bytes.
        let ports = Ports { nvlink: links.nvlink, nic: 0.0 };
        1.0 / self
            .wire(&Moved { ports, handled: handled * links.nvlink, sms, inside: 1, domains: 1, experts: 0 }, links)
    }

    pub(crate) fn seconds(&self, moved: &Moved, links: &Links) -> f64 {
        self.alpha(moved.inside, moved.domains, moved.experts) + self.wire(moved, links)
    }
}

/// p-norm of times; none: the largest.
fn norm(parts: [f64; 3], p: Option<f64>) -> f64 {
    let most = parts.into_iter().fold(0.0, f64::max);
    match p {
        Some(p) if most > 0.0 => most * parts.iter().map(|t| (t / most).powf(p)).sum::<f64>().powf(1.0 / p),
        _ => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_lie_between_the_largest_and_the_sum() {
        let parts = [3.0, 4.0, 0.0];
        assert_eq!(norm(parts, None), 4.0);
        assert_eq!(norm(parts, Some(1.0)), 7.0);
        assert!((norm(parts, Some(2.0)) - 5.0).abs() < 1e-12);
        assert_eq!(norm([0.0; 3], Some(1.4)), 0.0);
    }

    #[test]
    fn nvls_is_a_line_whose_bytes_do_not_rise_with_the_ranks() {
        // One pass out and the rank's own share: S bytes for any n.
        let line = ProtocolLine { pattern: Pattern::Ring, alpha: 0.0, per_rank: 0.0, eta: 1.0, own: 1.0 };
        for n in [2, 4, 8, 72] {
            assert!((line.seconds(n, 9e9, 9e9) - 1.0).abs() < 1e-12, "{n}");
        }
        let one_shot = ProtocolLine { pattern: Pattern::OneShot, ..line };
        assert_eq!(one_shot.seconds(5, 1e9, 1e9), 4.0);
    }
}
