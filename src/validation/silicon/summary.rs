//! Coverage and error of the silicon sample by level, framework, system, model and load, each distinct measurement once.
//!
//! ```text
//! error       predicted / measured - 1        median, mean and p90 of its size, bias: its own mean
//! in 80 %     share of measurements inside the interval of 80 % that the prediction carries (serving/residuals)
//! ```
//!
//! The sample holds some measurements twice, in two exports: rows of one system and framework with the same TTFT and TPOT.
//! Beside ours stands another set of assumptions on the same rows.
//!
//! Limit: groups by one label at a time; rows of large sweeps weigh as much as they are many; the intervals were made from
//! these rows, whole models left out only for the factor that widens them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rustc_hash::FxHashSet;

use super::point::Point;
use crate::serving::residuals::Quantity;

/// A latency of the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    Ttft,
    Tpot,
}

impl Latency {
    pub fn error(self, p: &Point) -> f64 {
        match self {
            Latency::Ttft => p.ttft_error(),
            Latency::Tpot => p.error(),
        }
    }

    /// Whether the interval of 80 % holds what was measured.
    fn held(self, p: &Point) -> bool {
        let (quantity, predicted, measured) = match self {
            // The residuals of TTFT are those of the closed form.
            Latency::Ttft => (Quantity::Ttft, p.steady_ttft_ms, p.raw.ttft_ms),
            Latency::Tpot => (Quantity::Tpot, p.tpot_ms, p.raw.tpot_ms),
        };
        let [low, high] = p.interval(quantity).map(|factor| factor * predicted);
        low <= measured && measured <= high
    }
}

/// Error figures of one group of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub by: &'static str,
    pub group: String,
    pub rows: usize,
    pub computed: usize,
    /// Means over computed rows of |error| and error, the median of |error| and what 90 % do not exceed.
    pub mape: f64,
    pub median: f64,
    pub p90: f64,
    pub bias: f64,
    /// Share of computed rows inside their interval.
    pub held: f64,
}

fn group<'a>(by: &'static str, name: String, points: impl Iterator<Item = &'a Point>, of: Latency) -> Group {
    let (mut rows, mut errors, mut held) = (0, Vec::new(), 0);
    for p in points {
        rows += 1;
        let error = of.error(p);
        if error.is_finite() {
            errors.push(error);
            held += usize::from(of.held(p));
        }
    }
    let n = errors.len() as f64;
    let mut sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let middle = |at: f64| sizes.get(at as usize).copied().unwrap_or(f64::NAN);
    Group {
        by,
        group: name,
        rows,
        computed: errors.len(),
        mape: sizes.iter().sum::<f64>() / n,
        median: 0.5 * (middle(0.5 * (n - 1.0).max(0.0)) + middle(0.5 * n)),
        p90: middle(0.9 * n),
        bias: errors.iter().sum::<f64>() / n,
        held: held as f64 / n,
    }
}

fn load(p: &Point) -> String {
    let c = p.note.strip_prefix('c').and_then(|n| n.split(' ').next()).and_then(|n| n.parse::<f64>().ok());
    match c {
        None => "unknown".into(),
        Some(c) if c <= 8.0 => "1-8".into(),
        Some(c) if c <= 32.0 => "9-32".into(),
        Some(c) if c <= 128.0 => "33-128".into(),
        Some(c) if c <= 512.0 => "129-512".into(),
        Some(_) => "513-".into(),
    }
}

/// The status without its details: `not-computable:<reason>` whole, rules left out.
fn kind(status: &str) -> String {
    if status.starts_with("relabelled") { "relabelled".into() } else { status.into() }
}

/// Each measurement once, the first of its rows that has a prediction, in the order of the rows.
pub fn distinct(points: &[Point]) -> Vec<&Point> {
    let key = |p: &Point| {
        let r = &p.raw;
        (r.system.clone(), r.framework.name(), r.ttft_ms.to_bits(), r.tpot_ms.to_bits())
    };
    let (mut seen, mut out) = (FxHashSet::default(), Vec::new());
    for priced in [true, false] {
        out.extend(points.iter().enumerate().filter(|(_, p)| p.tpot_ms.is_finite() == priced && seen.insert(key(p))));
    }
    out.sort_by_key(|(i, _)| *i);
    out.into_iter().map(|(_, p)| p).collect()
}

/// All groups, `all` first. The cuts by framework, system, model and load leave suspect rows out.
pub fn groups(points: &[&Point], of: Latency) -> Vec<Group> {
    let group = |by, name, points: &mut dyn Iterator<Item = &Point>| group(by, name, points, of);
    let every = || points.iter().copied();
    let mut out = vec![
        group("all", "all".into(), &mut every()),
        group("all", "with experts".into(), &mut every().filter(|p| p.experts)),
        group("all", "not suspect".into(), &mut every().filter(|p| p.credible())),
        group("all", "with experts, not suspect".into(), &mut every().filter(|p| p.experts && p.credible())),
    ];
    type Name = fn(&Point) -> String;
    let cuts: [(&'static str, Name); 6] = [
        ("level", |p| if p.raw.disagg { "pd".into() } else { "aggregated".into() }),
        ("framework", |p| p.raw.framework.name().into()),
        ("system", |p| p.raw.system.clone()),
        ("model", |p| format!("{} {}", p.raw.model, p.raw.precision).trim().to_string()),
        ("concurrency", load),
        ("status", |p| kind(&p.status)),
    ];
    for (by, name) in cuts {
        let mut cut: BTreeMap<String, Vec<&Point>> = BTreeMap::new();
        let whole = by == "status" || by == "level";
        for p in every().filter(|p| whole || p.credible()) {
            cut.entry(name(p)).or_default().push(p);
        }
        let mut cut: Vec<_> = cut.into_iter().collect();
        // Loads rise by their first number.
        let first = |name: &str| name.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
        cut.sort_by_key(|(name, _)| if by == "concurrency" { first(name) } else { 0 });
        out.extend(cut.into_iter().map(|(k, v)| group(by, k, &mut v.into_iter())));
    }
    out
}

/// The groups as a markdown table. `others`: the same groups under other assumptions, by their name.
pub fn report(groups: &[Group], latency: Latency, others: Option<(&str, &[Group])>) -> String {
    let name = if latency == Latency::Tpot { "TPOT" } else { "TTFT" };
    let percent = |v: f64| if v.is_finite() { format!("{:.1} %", v * 100.0) } else { "-".to_string() };
    let signed = |v: f64| if v.is_finite() { format!("{:+.1} %", v * 100.0) } else { "-".to_string() };
    let (head, line) =
        others.map_or((String::new(), ""), |(name, _)| (format!(" {name}: median | mean |"), "---:|---:|"));
    let mut out = format!(
        "| by | group | n | priced | {name}: median | mean | bias | p90 | in 80 % |{head}\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|{line}\n"
    );
    for g in groups {
        let _ = write!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            g.by,
            g.group,
            g.rows,
            g.computed,
            percent(g.median),
            percent(g.mape),
            signed(g.bias),
            percent(g.p90),
            if g.held.is_finite() { format!("{:.0} %", g.held * 100.0) } else { "-".into() },
        );
        if let Some((_, others)) = others {
            match others.iter().find(|o| o.by == g.by && o.group == g.group) {
                Some(o) => {
                    let _ = write!(out, " {} | {} |", percent(o.median), percent(o.mape));
                }
                None => out.push_str(" - | - |"),
            }
        }
        out.push('\n');
    }
    out
}
