//! Coverage and error (TPOT, or TTFT where it was simulated) of the silicon sample by model, system, framework,
//! mode and load.
//!
//! Limit: groups by one label at a time; rows of large sweeps weigh as much as they are many.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::point::Point;

/// Error figures of one group of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub by: &'static str,
    pub group: String,
    pub rows: usize,
    pub computed: usize,
    /// Means over computed rows of |error| and error, and the median of |error|.
    pub mape: f64,
    pub median: f64,
    pub bias: f64,
}

/// The error that is looked at.
pub type Metric = fn(&Point) -> f64;

fn group<'a>(by: &'static str, name: String, points: impl Iterator<Item = &'a Point>, metric: Metric) -> Group {
    let (mut rows, mut errors) = (0, Vec::new());
    for p in points {
        rows += 1;
        if metric(p).is_finite() {
            errors.push(metric(p));
        }
    }
    let n = errors.len().max(1) as f64;
    let bias = errors.iter().sum::<f64>() / n;
    let mut sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let median =
        if sizes.is_empty() { f64::NAN } else { (sizes[(sizes.len() - 1) / 2] + sizes[sizes.len() / 2]) / 2.0 };
    let or_nan = |v: f64| if errors.is_empty() { f64::NAN } else { v };
    Group {
        by,
        group: name,
        rows,
        computed: errors.len(),
        mape: or_nan(sizes.iter().sum::<f64>() / n),
        median,
        bias: or_nan(bias),
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

/// All groups, `all` first. The cuts by framework, system, model and load leave suspect rows out.
pub fn groups(points: &[Point]) -> Vec<Group> {
    groups_by(points, Point::error)
}

/// [`groups`] of another error.
pub(crate) fn groups_by(points: &[Point], metric: Metric) -> Vec<Group> {
    let group = |by, name, points: &mut dyn Iterator<Item = &Point>| group(by, name, points, metric);
    let mut out = vec![
        group("all", "all".into(), &mut points.iter()),
        group("all", "with experts".into(), &mut points.iter().filter(|p| p.experts)),
        group("all", "not suspect".into(), &mut points.iter().filter(|p| p.credible())),
        group("all", "with experts, not suspect".into(), &mut points.iter().filter(|p| p.experts && p.credible())),
    ];
    type Name = fn(&Point) -> String;
    let cuts: [(&'static str, Name); 6] = [
        ("mode", |p| if p.raw.disagg { "disagg".into() } else { "agg".into() }),
        ("framework", |p| p.raw.framework.name().into()),
        ("system", |p| p.raw.system.clone()),
        ("model", |p| format!("{} {}", p.raw.model, p.raw.precision).trim().to_string()),
        ("concurrency", load),
        ("status", |p| kind(&p.status)),
    ];
    for (by, name) in cuts {
        let mut cut: BTreeMap<String, Vec<&Point>> = BTreeMap::new();
        let every = by == "status" || by == "mode";
        for p in points.iter().filter(|p| every || p.credible()) {
            cut.entry(name(p)).or_default().push(p);
        }
        out.extend(cut.into_iter().map(|(k, v)| group(by, k, &mut v.into_iter())));
    }
    out
}

/// The groups as a markdown table.
pub fn report(groups: &[Group], metric: &str) -> String {
    let mut out = format!(
        "| by | group | rows | computed | {metric} MAPE | median | bias |\n|---|---|---:|---:|---:|---:|---:|\n"
    );
    let percent = |v: f64, sign: bool| match (v.is_finite(), sign) {
        (false, _) => "-".to_string(),
        (true, true) => format!("{:+.1} %", v * 100.0),
        (true, false) => format!("{:.1} %", v * 100.0),
    };
    for g in groups {
        let (mape, median, bias) = (percent(g.mape, false), percent(g.median, false), percent(g.bias, true));
        let _ = writeln!(out, "| {} | {} | {} | {} | {mape} | {median} | {bias} |", g.by, g.group, g.rows, g.computed);
    }
    out
}
