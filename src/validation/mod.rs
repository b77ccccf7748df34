//! Published figures against predictions, every row with its source and its status.
//!
//! Sections: `deployed` (end-to-end figures of deployments), `silicon` (5,221 measured points of
//! the InferenceX sample), `afd` (decode steps of attention and FFN pools and of wide EP beside them), `saturated` (servers with all requests queued, simulated), `served` (measured servers simulated request by request), `energy` (power by load), `literature` (formulas and tables of papers) and `network` (communication
//! tables, those that were fitted and those that never were). Nothing is fitted here: a row that cannot be computed says why, and counts as such.
//!
//! Limit: what was published, mostly of large MoE models on Hopper and Blackwell; nothing here says how far an
//! unmeasured kind is off.

pub mod deployed;
pub mod energy;
pub mod figures;
pub mod literature;
pub mod network;
mod row;
pub mod saturated;
pub mod served;
pub mod silicon;
pub mod split;

pub use row::{CheckedRow, Section};

use std::fmt::Write as _;
use std::sync::Arc;

use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::Result;
use crate::kernels::KernelDb;
use crate::network::params::Misfit;
use crate::spec::Assumptions;
use silicon::summary::{self, Latency};

/// Rows as columns.
pub(crate) fn columns(rows: &[CheckedRow]) -> Columns {
    let mut c = Columns::new();
    c.push("section", Column::from_strings(rows.iter().map(|r| r.section.name())));
    c.push("name", Column::from_strings(rows.iter().map(|r| &r.name)));
    c.push("system", Column::from_strings(rows.iter().map(|r| &r.system)));
    c.push("model", Column::from_strings(rows.iter().map(|r| &r.model)));
    c.push("framework", Column::from_strings(rows.iter().map(|r| &r.framework)));
    c.push("metric", Column::from_strings(rows.iter().map(|r| r.metric)));
    c.push("target", Column::F64(rows.iter().map(|r| r.target).collect()));
    c.push("predicted", Column::F64(rows.iter().map(|r| r.predicted).collect()));
    c.push("error", Column::F64(rows.iter().map(CheckedRow::error).collect()));
    c.push("source", Column::from_strings(rows.iter().map(|r| &r.source)));
    c.push("status", Column::from_strings(rows.iter().map(|r| &r.status)));
    c.push("note", Column::from_strings(rows.iter().map(|r| &r.note)));
    let spread = |of: fn(&Misfit) -> f64| rows.iter().map(|r| r.spread.as_ref().map_or(f64::NAN, of)).collect();
    c.push("n", Column::I64(rows.iter().map(|r| r.spread.map_or(1, |s| s.rows as i64)).collect()));
    c.push("median", Column::F64(spread(|s| s.median)));
    c.push("p95", Column::F64(spread(|s| s.p95)));
    c
}

fn silicon_points(db: &Arc<KernelDb>, ttft: bool, control: &Control) -> Result<Vec<silicon::Point>> {
    silicon::points_with(db, &silicon::Choices { ttft, ..silicon::Choices::default() }, control)
}

/// The silicon sample as tables: TPOT beside that of a published planner's assumptions, and TTFT where it was simulated.
fn silicon_report(db: &Arc<KernelDb>, points: &[silicon::Point], ttft: bool, control: &Control) -> Result<String> {
    let peer = Assumptions::aiconfigurator();
    let name = peer.profile.clone();
    let choices = silicon::Choices { assumptions: peer, ..silicon::Choices::default() };
    let theirs = silicon::points_with(db, &choices, control)?;
    let (own, theirs) = (summary::distinct(points), summary::distinct(&theirs));
    let beside = summary::groups(&theirs, Latency::Tpot);
    let mut out = format!(
        "{} rows, {} distinct measurements; `n` counts those, `priced` those with a prediction. Nothing is fitted to them; \
         the intervals are (of every estimate: 80 %). Beside stands what the assumptions of {name} give for the same rows.\n\n",
        points.len(),
        own.len()
    );
    out.push_str(&summary::report(&summary::groups(&own, Latency::Tpot), Latency::Tpot, Some((&name, &beside))));
    if ttft {
        out.push_str(&format!("\n{}", summary::report(&summary::groups(&own, Latency::Ttft), Latency::Ttft, None)));
    }
    Ok(out)
}

fn section(db: &Arc<KernelDb>, of: Section, ttft: bool, control: &Control) -> Result<Vec<CheckedRow>> {
    match of {
        Section::Deployed => deployed::rows(db, control),
        Section::Afd => split::rows(db, control),
        Section::Saturated => saturated::rows(db, control),
        Section::Literature => literature::rows(),
        Section::Network => network::rows(db, control),
        Section::Served => served::rows(db, control),
        Section::Energy => energy::rows(db, control),
        Section::Silicon => Ok(silicon::rows(&silicon_points(db, ttft, control)?, ttft)),
    }
}

/// Rows of the sections asked for; none named: all of them. `ttft`: the silicon sample's TTFT is simulated too.
pub fn rows(db: &Arc<KernelDb>, sections: &[Section], ttft: bool, control: &Control) -> Result<Vec<CheckedRow>> {
    let mut out = Vec::new();
    for of in Section::asked(sections) {
        out.extend(section(db, *of, ttft, control)?);
    }
    Ok(out)
}

/// Figures against predictions: section, name, system, model, framework, metric, target, predicted,
/// error (signed, relative), source, status, note, and for rows that stand for a table n, median, p95.
pub fn run(db: &Arc<KernelDb>, sections: &[Section], ttft: bool, control: &Control) -> Result<Columns> {
    Ok(columns(&rows(db, sections, ttft, control)?))
}

/// Operators of one figure of the section `deployed`.
pub fn deployed_breakdown(db: &Arc<KernelDb>, name: &str) -> Result<Columns> {
    deployed::breakdown(db, name)
}

/// A number with three or four digits that matter.
fn short(v: f64) -> String {
    match v.abs() {
        a if !a.is_finite() => "-".into(),
        a if a >= 1000.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        _ => format!("{v:.3}"),
    }
}

fn table(out: &mut String, rows: &[CheckedRow]) {
    out.push_str(
        "| figure | system | metric | published | predicted | error | status |\n|---|---|---|---:|---:|---:|---|\n",
    );
    for r in rows {
        let error = if r.error().is_finite() { format!("{:+.1} %", r.error() * 100.0) } else { "-".into() };
        let (target, predicted) = (short(r.target), short(r.predicted));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {target} | {predicted} | {error} | {} |",
            r.name, r.system, r.metric, r.status
        );
    }
}

/// What stands below the tables of a section.
fn told(of: Section) -> &'static str {
    match of {
        Section::Deployed => "Figures that operators of large deployments published. Check: none was fitted.",
        Section::Silicon => "Measured points of the InferenceX sample.",
        Section::Afd => "Decode steps of attention and FFN pools, and of wide EP beside them. Check: none was fitted.",
        Section::Saturated => {
            "TensorRT-LLM servers with all requests queued, simulated as they ran. Check: none was fitted."
        }
        Section::Served => {
            "vLLM servers request by request; the device is fitted to the first half and judged on the second."
        }
        Section::Energy => {
            "Power of vLLM servers by load; `fit`: the law was fitted to them, `check`: never. Joules hang on the rate too."
        }
        Section::Literature => "Formulas and tables of papers.",
        Section::Network => "Tables of communication kernels; `fit`: its law was fitted to them, `check`: never.",
    }
}

/// The sections as markdown tables, and the rows of the silicon sample if it is among them.
pub fn report(
    db: &Arc<KernelDb>,
    sections: &[Section],
    ttft: bool,
    control: &Control,
) -> Result<(String, Vec<CheckedRow>)> {
    let (mut out, mut measured) = (String::new(), Vec::new());
    for of in Section::asked(sections) {
        let _ = writeln!(out, "## {}\n\n{}\n", of.name(), told(*of));
        match of {
            // Too many rows to list: their summary.
            Section::Silicon => {
                let points = silicon_points(db, ttft, control)?;
                out.push_str(&silicon_report(db, &points, ttft, control)?);
                measured = silicon::rows(&points, ttft);
            }
            Section::Network => out.push_str(&network::report(&network::rows(db, control)?)),
            _ => table(&mut out, &section(db, *of, ttft, control)?),
        }
        out.push('\n');
    }
    Ok((out, measured))
}
