//! The law of one all-to-all kernel, from the groups that are not held out.
//!
//! Source: network.md 4.6 and 5. Limits: few experts (E <= 16) starve the low-latency kernel
//! of SMs and are left to their own rows.

use super::digits::{rounded, rounded_misfit};
use super::least::{self, Found, Range};
use crate::network::a2a::FEW_EXPERTS;
use crate::network::law::ExchangeLaw;
use crate::network::params::{Fitted, Misfit};
use crate::network::samples::{Exchange, ExchangeTable};
use crate::units::{GB, US};

/// Largest group fitted: the next measured one is held out.
pub(crate) fn most_ranks(table: &ExchangeTable) -> u32 {
    // One-sided rows end at EP32, the others at EP64.
    if table.id.variant.starts_with("NVLinkOneSided") { 16 } else { 32 }
}

/// Whether a row is fitted.
pub(crate) fn fitted(table: &ExchangeTable, e: &Exchange) -> bool {
    let low_latency = table.id.variant == "deepep_low_latency";
    e.ep <= most_ranks(table) && !(low_latency && e.experts <= FEW_EXPERTS)
}

/// The parameters of a law, in the order of its fields; None: not fitted.
struct Form {
    ranges: [Option<Range>; 9],
}

impl Form {
    /// What the rows can tell: several group sizes, several domains, several SM budgets.
    fn of(table: &ExchangeTable, rows: &[Exchange]) -> Form {
        let several = |f: &dyn Fn(&Exchange) -> f64| rows.iter().any(|e| (f(e) - f(&rows[0])).abs() > 0.0);
        let across = rows.iter().any(|e| e.moved.domains > 1);
        let groups = several(&|e| f64::from(e.moved.inside));
        let low_latency = table.id.variant == "deepep_low_latency";
        let experts = several(&|e| f64::from(e.experts));
        let sms = several(&|e| e.moved.sms);
        let alpha = Range::Linear { most: 1000.0 * US, unit: 5.0 * US };
        let eta = Range::Log { least: 0.01, most: 1.05 };
        let when = |yes: bool, range: Range| yes.then_some(range);
        Form {
            ranges: [
                Some(Range::Log { least: 0.1 * US, most: 2000.0 * US }),
                // Across nodes one shape was measured (256 experts; 288 in some rows).
                when(experts && !across, Range::Linear { most: US, unit: 0.01 * US }),
                when(groups, alpha),
                when(across && low_latency, alpha),
                when(across, alpha),
                Some(eta),
                when(across, eta),
                // Low-latency kernels drive NIC and NVLink from the same warps: 1.1 to 1.5 (network.md
                // 4.2). Between NVLink and SMs the rows decide.
                when(
                    across && low_latency || sms,
                    Range::Log { least: 1.0, most: if low_latency { 1.5 } else { 8.0 } },
                ),
                when(sms, Range::Log { least: GB, most: 1000.0 * GB }),
            ],
        }
    }

    fn law(&self, free: &[f64]) -> ExchangeLaw {
        let mut free = free.iter().copied();
        let mut next = |i: usize| self.ranges[i].and_then(|_| free.next());
        let [alpha, per_expert, per_log2_ranks, step, per_log2_domains, eta_nvlink, eta_nic, p, sm_rate] =
            std::array::from_fn(&mut next);
        ExchangeLaw {
            alpha: alpha.unwrap_or(0.0),
            per_expert: per_expert.unwrap_or(0.0),
            per_log2_ranks: per_log2_ranks.unwrap_or(0.0),
            step: step.unwrap_or(0.0),
            per_log2_domains: per_log2_domains.unwrap_or(0.0),
            eta_nvlink: eta_nvlink.unwrap_or(1.0),
            eta_nic: eta_nic.unwrap_or(1.0),
            p,
            sm_rate,
        }
    }
}

/// None for a table without rows to fit.
pub fn fit(table: &ExchangeTable) -> Option<Fitted<ExchangeLaw>> {
    let rows: Vec<Exchange> = table.samples.iter().filter(|e| fitted(table, e)).copied().collect();
    let floor = rows.iter().map(|e| e.seconds).fold(f64::INFINITY, f64::min);
    let form = Form::of(table, rows.get(..)?.first().map(|_| &rows[..])?);
    let ranges: Vec<Range> = form.ranges.iter().flatten().copied().collect();
    if rows.len() < 2 * ranges.len() {
        return None;
    }
    let measured: Vec<f64> = rows.iter().map(|e| e.seconds.ln()).collect();
    let mut found: Vec<Found> = Vec::new();
    for eta in [0.3, 0.7] {
        for p in [1.1, 1.4] {
            let start = [floor, 0.01 * US, US, US, 5.0 * US, eta, 0.9, p, 30.0 * GB];
            let start: Vec<f64> = form.ranges.iter().zip(start).filter_map(|(r, x)| r.map(|_| x)).collect();
            found.push(least::minimise(&ranges, &start, &measured, |free, out| {
                let law = form.law(free);
                for (o, e) in out.iter_mut().zip(&rows) {
                    *o = law.seconds(&e.moved, &table.links);
                }
            }));
        }
    }
    let best: Vec<f64> = least::best(found)?.parameters.into_iter().map(rounded).collect();
    let law = form.law(&best);
    let fit = Misfit::of(rows.iter().map(|e| (law.seconds(&e.moved, &table.links), e.seconds)))?;
    let mut ranks: Vec<u32> = rows.iter().map(|e| e.ep).collect();
    ranks.sort_unstable();
    ranks.dedup();
    Some(Fitted { id: table.id.clone(), ranks, fit: rounded_misfit(fit), law })
}
