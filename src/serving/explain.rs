//! Estimates in words: the breakdown behind a number, and the reason behind a difference.
//!
//! Told from what an estimate says of itself, so that one that was read back from a file is told the same.
//!
//! Limit: names the largest parts; a difference is put down to the part that changed most, which need not be its cause.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::math::figures::{digits, parted, parted_digits, percent};
use crate::spec::Violation;

/// Smaller parts are summed up in one line.
const LEAST_SHARE: f64 = 0.005;

/// Waits outside of steps, in the order in which a request meets them.
const PATH: [&str; 6] = ["front", "in_flight", "ahead", "polling", "held", "hand_over"];

/// Figures with intervals: their name in words, their own, and their unit.
const FIGURES: [(&str, &str, &str); 4] = [
    ("TTFT", "ttft_ms", "ms"),
    ("TPOT", "tpot_ms", "ms"),
    ("rate", "tokens_per_s", "tokens/s"),
    ("KV room", "kv_tokens", "tokens"),
];

/// Best known first.
const CLASSES: [&str; 5] = ["measured", "interpolated", "scaled", "extrapolated", "roofline"];

/// An estimate as it is told. A number that is none is left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Told {
    pub level: String,
    pub framework: String,
    pub gpus: u32,
    pub gpus_used: u32,
    pub feasible: bool,
    pub runnable: bool,
    pub server: Option<String>,
    pub why_not: Vec<Violation>,
    pub binding: String,
    pub ttft_ms: Option<f64>,
    pub tpot_ms: Option<f64>,
    pub ttft_service_ms: Option<f64>,
    /// What a request waits for outside of the steps that serve it, by name.
    pub ttft_path_ms: BTreeMap<String, f64>,
    pub intervals: BTreeMap<String, Span>,
    /// Which tables answer.
    pub kernels: String,
    pub itl_worst_ms: Option<f64>,
    pub requests_per_s: Option<f64>,
    pub tokens_per_s: Option<f64>,
    pub tokens_per_s_per_gpu: Option<f64>,
    pub tokens_per_s_per_user: Option<f64>,
    pub concurrency: Option<f64>,
    pub usd_per_mtok: Option<f64>,
    pub measured_share: Option<f64>,
    pub evidence_ttft: BTreeMap<String, f64>,
    pub evidence_tpot: BTreeMap<String, f64>,
    pub lanes: Vec<String>,
    pub formats: BTreeMap<String, String>,
    pub warnings: Vec<String>,
    pub kv_tokens: Option<f64>,
    pub max_sequences: Option<f64>,
    pub memory: Vec<MemoryLine>,
    pub breakdown: Vec<OpTime>,
}

/// Ends of an interval, and what it rests on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Span {
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub from: String,
}

/// A line of the memory table.
#[derive(Clone, Debug, Deserialize)]
pub struct MemoryLine {
    pub pool: String,
    pub item: String,
    #[serde(deserialize_with = "number")]
    pub gib: f64,
}

/// A line of the breakdown.
#[derive(Clone, Debug, Deserialize)]
pub struct OpTime {
    pub phase: String,
    pub pool: String,
    pub op: String,
    #[serde(deserialize_with = "number")]
    pub ms: f64,
    pub evidence: String,
    pub tier: Option<String>,
}

/// A quantity of two estimates.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub quantity: &'static str,
    pub this: f64,
    pub other: f64,
    pub difference: f64,
    pub ratio: f64,
    /// The part of the breakdown that changed most.
    pub reason: String,
}

/// What fills a GPU of a pool.
pub struct Filled {
    pub pool: String,
    /// Not a number where it is not known.
    pub capacity: f64,
    /// Left alone by the server.
    pub outside: f64,
    pub items: Vec<(String, f64)>,
}

impl Filled {
    pub fn used(&self) -> f64 {
        self.items.iter().map(|(_, gib)| gib).sum()
    }
}

/// Reads a number that may be none.
pub(crate) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Option::deserialize(from).map(of)
}

/// A number; not one where there is none.
pub(crate) fn of(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn bound(binding: &str) -> &str {
    if binding.is_empty() { "nothing" } else { binding }
}

fn whole(value: Option<f64>) -> String {
    parted(value.unwrap_or(0.0).min(1e15).trunc(), 0)
}

/// Shares of classes in words, best known first.
fn classes(shares: &BTreeMap<String, f64>) -> String {
    let known = CLASSES.iter().filter_map(|n| shares.get_key_value(*n));
    let others = shares.iter().filter(|(n, _)| !CLASSES.contains(&n.as_str()));
    let told = known.chain(others).filter(|(_, share)| **share > 0.0);
    told.map(|(name, share)| format!("{} {name}", percent(*share))).collect::<Vec<_>>().join(", ")
}

/// Measured or interpolated share; not a number where there is no time at all.
pub fn measured(shares: &BTreeMap<String, f64>) -> f64 {
    let of = |name: &str| shares.get(name).copied().unwrap_or(0.0);
    if shares.is_empty() { f64::NAN } else { of("measured") + of("interpolated") }
}

impl Told {
    /// How well each latency is known, in words.
    pub fn known(&self) -> Vec<(&'static str, String)> {
        let both = [("TTFT", &self.evidence_ttft), ("TPOT", &self.evidence_tpot)];
        both.into_iter().filter(|(_, e)| !e.is_empty()).map(|(name, e)| (name, classes(e))).collect()
    }

    /// What fills a GPU of each pool.
    pub fn filled(&self) -> Vec<Filled> {
        let mut out: Vec<Filled> = Vec::new();
        for line in &self.memory {
            if !out.iter().any(|f| f.pool == line.pool) {
                out.push(Filled { pool: line.pool.clone(), capacity: f64::NAN, outside: 0.0, items: Vec::new() });
            }
            let Some(pool) = out.iter_mut().find(|f| f.pool == line.pool) else { continue };
            match line.item.as_str() {
                "capacity" => pool.capacity = line.gib,
                "outside the fraction" => pool.outside = line.gib,
                _ => pool.items.push((line.item.clone(), line.gib)),
            }
        }
        out
    }

    /// The breakdown, the memory and the evidence as text; `plan`: as it is written in Python.
    pub fn explain(&self, plan: &str) -> String {
        let none = |text: String| if text.is_empty() { "none".to_string() } else { text };
        let by = if self.binding.is_empty() { String::new() } else { format!(", bound by {}", self.binding) };
        let head = if self.feasible { "feasible" } else { "NOT FEASIBLE" };
        let known: Vec<String> = self.known().into_iter().map(|(name, shares)| format!("{name} {shares}")).collect();
        let user = parted(of(self.tokens_per_s_per_user), 1);
        let rates = format!("{} per GPU, {user} per user", parted(of(self.tokens_per_s_per_gpu), 1));
        let mut lines = vec![
            format!("{} on {} GPUs ({head}{by})", self.level, self.gpus),
            format!(
                "  TTFT {} ms, TPOT {} ms, {} output tokens/s ({rates})",
                digits(of(self.ttft_ms), 4),
                digits(of(self.tpot_ms), 4),
                parted(of(self.tokens_per_s), 0)
            ),
        ];
        lines.extend(self.path());
        lines.extend(self.within());
        lines.push(format!("  plan: {plan}"));
        // A result of an earlier version names the framework alone.
        let kernels = if self.kernels.is_empty() { &self.framework } else { &self.kernels };
        lines.push(format!("  kernels: {}; evidence: {}", none(kernels.clone()), none(known.join("; "))));
        match &self.server {
            Some(server) => lines.push(format!("  runs on: {server}")),
            None => lines.extend(self.why_not.iter().map(|why| format!("  NOT RUNNABLE: {why}"))),
        }
        lines.extend(self.lanes.iter().map(|lane| format!("  {lane}")));
        lines.extend(self.warnings.iter().map(|w| format!("  warning: {w}")));
        if !self.formats.is_empty() {
            let told: Vec<String> = self.formats.iter().map(|(part, said)| format!("{part} {said}")).collect();
            lines.push(format!("  formats: {}", told.join("; ")));
        }
        lines.extend(self.times());
        lines.extend(self.filled().iter().map(memory_line));
        if !self.memory.is_empty() {
            let (tokens, requests) = (whole(self.kv_tokens), whole(self.max_sequences));
            lines.push(format!("KV room: {tokens} tokens an attention rank, {requests} requests in all"));
        }
        lines.join("\n")
    }

    /// What of TTFT is waiting outside of the steps that serve a request.
    fn path(&self) -> Option<String> {
        let waits = PATH.iter().filter_map(|n| Some((n, *self.ttft_path_ms.get(*n)?))).filter(|(_, ms)| *ms > 0.0);
        let (mut total, mut said) = (0.0, Vec::new());
        for (name, ms) in waits {
            total += ms;
            said.push(format!("{} {}", name.replace('_', " "), digits(ms, 3)));
        }
        let (service, total) = (digits(of(self.ttft_service_ms), 4), digits(total, 4));
        let told = format!("  TTFT = {service} ms of service + {total} ms outside of it ({})", said.join(", "));
        (!said.is_empty()).then_some(told)
    }

    /// Ends of an interval that holds a measured figure with 80 %; none: the plan has no such figure.
    pub fn ends(&self, figure: &str) -> Option<(f64, f64)> {
        let Span { low, high, .. } = self.intervals.get(figure)?;
        let decodes = self.tpot_ms.is_some_and(|t| t > 0.0);
        low.zip(*high).filter(|_| decodes || figure != "tpot_ms")
    }

    /// The intervals, those that rest on the same together.
    fn within(&self) -> Vec<String> {
        let mut out: Vec<(&str, Vec<String>)> = Vec::new();
        for (name, figure, unit) in FIGURES {
            let Some((low, high)) = self.ends(figure) else { continue };
            let said = format!("{name} {} to {} {unit}", parted_digits(low, 4), parted_digits(high, 4));
            let from = self.intervals.get(figure).map_or("", |s| s.from.as_str());
            match out.iter_mut().find(|(f, _)| *f == from) {
                Some((_, all)) => all.push(said),
                None => out.push((from, vec![said])),
            }
        }
        out.iter().map(|(from, said)| format!("  within, with 80 %: {}; from {from}", said.join(", "))).collect()
    }

    fn times(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut phases: Vec<&str> = Vec::new();
        for part in &self.breakdown {
            if !phases.contains(&part.phase.as_str()) {
                phases.push(&part.phase);
            }
        }
        for phase in phases {
            let mut rows: Vec<&OpTime> = self.breakdown.iter().filter(|r| r.phase == phase).collect();
            let total: f64 = rows.iter().map(|r| r.ms).sum();
            lines.push(format!("{phase}: {} ms", digits(total, 4)));
            rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
            let shown: Vec<&&OpTime> = rows.iter().filter(|r| total == 0.0 || r.ms / total >= LEAST_SHARE).collect();
            for r in &shown {
                let share = if total > 0.0 { r.ms / total } else { 0.0 };
                let across = r.tier.as_deref().filter(|t| !t.is_empty()).map_or(String::new(), |t| format!(", {t}"));
                let (ms, share) = (digits(r.ms, 4), percent(share));
                lines.push(format!("  {:<10} {:<24} {ms:>10} ms {share:>5}  {}{across}", r.pool, r.op, r.evidence));
            }
            if shown.len() < rows.len() {
                let rest = total - shown.iter().map(|r| r.ms).sum::<f64>();
                let name = format!("{} smaller parts", rows.len() - shown.len());
                lines.push(format!("  {:<10} {name:<24} {:>10} ms", "", digits(rest, 4)));
            }
        }
        lines
    }

    /// Set beside another: a row a quantity that either has, with the reason for its difference.
    pub fn compare(&self, other: &Told) -> Vec<Difference> {
        let quantities: [(&'static str, Quantity); 10] = [
            ("ttft_ms", |t| of(t.ttft_ms)),
            ("tpot_ms", |t| of(t.tpot_ms)),
            ("itl_worst_ms", |t| of(t.itl_worst_ms)),
            ("tokens_per_s", |t| of(t.tokens_per_s)),
            ("tokens_per_s_per_gpu", |t| of(t.tokens_per_s_per_gpu)),
            ("tokens_per_s_per_user", |t| of(t.tokens_per_s_per_user)),
            ("requests_per_s", |t| of(t.requests_per_s)),
            ("concurrency", |t| of(t.concurrency)),
            ("gpus", |t| f64::from(t.gpus)),
            ("usd_per_mtok", |t| of(t.usd_per_mtok)),
        ];
        let rows = quantities.into_iter().filter_map(|(quantity, value)| {
            let (x, y) = (value(self), value(other));
            (!x.is_nan() || !y.is_nan()).then(|| Difference {
                quantity,
                this: x,
                other: y,
                difference: y - x,
                ratio: if x == 0.0 { f64::NAN } else { y / x },
                reason: if x == y { String::new() } else { self.reason(other, quantity) },
            })
        });
        rows.collect()
    }

    fn reason(&self, other: &Told, quantity: &str) -> String {
        // What one level calls prefill another does in mixed steps.
        let phases: &[&str] = match quantity {
            "tokens_per_s" | "tokens_per_s_per_gpu" | "requests_per_s" | "usd_per_mtok" => {
                return format!(
                    "concurrency {} -> {}, TPOT {} -> {} ms, bound by {} -> {}",
                    parted_digits(of(self.concurrency), 4),
                    parted_digits(of(other.concurrency), 4),
                    digits(of(self.tpot_ms), 4),
                    digits(of(other.tpot_ms), 4),
                    bound(&self.binding),
                    bound(&other.binding)
                );
            }
            "ttft_ms" => &["prefill", "mixed"],
            "tpot_ms" | "tokens_per_s_per_user" => &["decode"],
            "itl_worst_ms" => &["mixed"],
            _ => return String::new(),
        };
        let mut changes: Vec<(&str, f64)> = Vec::new();
        for (told, sign) in [(self, -1.0), (other, 1.0)] {
            for r in told.breakdown.iter().filter(|r| phases.contains(&r.phase.as_str())) {
                match changes.iter_mut().find(|(op, _)| *op == r.op) {
                    Some((_, sum)) => *sum += sign * r.ms,
                    None => changes.push((&r.op, sign * r.ms)),
                }
            }
        }
        let most = changes.iter().copied().reduce(|a, b| if b.1.abs() > a.1.abs() { b } else { a });
        match most {
            None => String::new(),
            Some((_, 0.0)) => "the same parts".to_string(),
            Some((op, ms)) => {
                let sign = if ms > 0.0 { "+" } else { "" };
                format!("{op} in {} {sign}{} ms", phases.join(" and "), digits(ms, 4))
            }
        }
    }
}

type Quantity = fn(&Told) -> f64;

fn memory_line(pool: &Filled) -> String {
    let capacity = if pool.capacity.is_nan() { String::new() } else { format!(" of {}", digits(pool.capacity, 4)) };
    let left = match pool.outside {
        0.0 => String::new(),
        outside => format!(", {} left outside the server's fraction", digits(outside, 3)),
    };
    let mut items: Vec<&(String, f64)> = pool.items.iter().filter(|(_, gib)| *gib != 0.0).collect();
    items.sort_by(|a, b| b.1.total_cmp(&a.1));
    let parts: Vec<String> = items.iter().map(|(item, gib)| format!("{item} {}", digits(*gib, 3))).collect();
    let used = digits(pool.used(), 4);
    format!("memory of a GPU in {}: {used}{capacity} GiB ({}{left})", pool.pool, parts.join(", "))
}
