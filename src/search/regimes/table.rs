//! A map as a table: one row a cell, with its winner, its lead, and what stops the others.
//!
//! Limit: `tolerance` is one share for all cells, however well each of them is known.

use std::sync::Arc;

use super::cells;
use super::map::{Cell, Map, Reach, winner};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::Result;
use crate::kernels::KernelDb;
use crate::search::row::Row;
use crate::search::study::describe;
use crate::serving::Binding;
use crate::spec::Workload;

/// Who wins a cell: index into the levels asked for, lead over the next (infinite if no other stands), and who is
/// within `tolerance` of it.
fn verdict(cell: &Cell, tolerance: f64) -> Option<(usize, f64, Vec<usize>)> {
    let rates: Vec<f64> = cell.reached.iter().map(Reach::rate).collect();
    let best = winner(&cell.reached)?;
    let next = rates.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, r)| *r).fold(0.0, f64::max);
    let margin = if next > 0.0 { rates[best] / next - 1.0 } else { f64::INFINITY };
    let tied = (0..rates.len()).filter(|i| rates[*i] >= rates[best] * (1.0 - tolerance)).collect();
    Some((best, margin, tied))
}

/// The map as a table, one row a cell. Stopped and `partial`: the cells that are done.
pub fn regimes(db: &Arc<KernelDb>, map: &Map, control: &Control, partial: bool) -> Result<Columns> {
    let all = cells(db, map, control, partial)?;
    let cells: Vec<((usize, usize, usize), &Cell)> =
        all.indexed_iter().filter_map(|(at, cell)| Some((at, cell.as_ref()?))).collect();
    let cluster = |i: usize| &map.clusters[cells[i].0.0];
    let slo = |i: usize| &map.slos[cells[i].0.2];
    let compared = map.compared(db)?;
    let asked = map.asked();
    let verdicts: Vec<_> = cells.iter().map(|(_, c)| verdict(c, map.tolerance)).collect();
    let won = |i: usize| verdicts[i].as_ref().and_then(|v| cells[i].1.reached[v.0].row);
    let n = cells.len();
    let text = |f: &dyn Fn(usize) -> String| Column::from_strings((0..n).map(f));
    let number = |f: &dyn Fn(usize) -> f64| Column::F64((0..n).map(f).collect());
    let means: Vec<_> = map.workloads.iter().map(Workload::means).collect();
    let mean = |i: usize| &means[cells[i].0.1];
    let limit = |x: Option<f64>| x.unwrap_or(f64::INFINITY);
    let per_gpu = |i: usize, r: &Row| r.point.requests_per_s * mean(i).osl.max(1.0) / f64::from(cluster(i).gpus);
    let mut c = Columns::new();
    c.push("system", text(&|i| cluster(i).system.clone()));
    c.push("gpus", Column::I64((0..n).map(|i| i64::from(cluster(i).gpus)).collect()));
    // That of the winner; of nobody's the only one there is.
    c.push(
        "framework",
        text(&|i| match (won(i), &compared[cells[i].0.0][..]) {
            (Some(r), names) => names[usize::from(r.framework)].name().into(),
            (None, [only]) => only.name().into(),
            (None, _) => String::new(),
        }),
    );
    c.push("workload", text(&|i| map.workloads[cells[i].0.1].name.clone()));
    c.push("prefix", number(&|i| mean(i).prefix));
    c.push("isl", number(&|i| mean(i).isl));
    c.push("osl", number(&|i| mean(i).osl));
    c.push("ttft_limit_ms", number(&|i| limit(slo(i).ttft_ms)));
    c.push("tpot_limit_ms", number(&|i| limit(slo(i).tpot_ms)));
    c.push("winner", text(&|i| verdicts[i].as_ref().map_or(String::new(), |v| asked[v.0].name().into())));
    c.push("margin", number(&|i| verdicts[i].as_ref().map_or(f64::NAN, |v| v.1)));
    c.push("tie", Column::Bool(verdicts.iter().map(|v| v.as_ref().is_some_and(|v| v.2.len() > 1)).collect()));
    c.push("agreed", Column::Bool(cells.iter().map(|(_, c)| c.agreed).collect()));
    let names = |tied: &[usize]| tied.iter().map(|l| asked[*l].name()).collect::<Vec<_>>().join(" = ");
    c.push("tied", text(&|i| verdicts[i].as_ref().filter(|v| v.2.len() > 1).map_or(String::new(), |v| names(&v.2))));
    for (k, level) in asked.iter().enumerate() {
        let name = level.name();
        let reached = |i: usize| &cells[i].1.reached[k];
        let rate = |i: usize| reached(i).row.filter(|_| reached(i).binding == Binding::None);
        c.push(format!("tokens_per_s_per_gpu_{name}"), number(&|i| rate(i).map_or(0.0, |r| per_gpu(i, &r))));
        c.push(
            format!("binding_{name}"),
            text(&|i| match (&verdicts[i], reached(i).binding) {
                (Some(v), Binding::None) if v.0 != k => Binding::Dominated.label(),
                (_, b) => b.label(),
            }),
        );
    }
    c.push("ttft_ms", number(&|i| won(i).map_or(f64::NAN, |r| r.point.ttft_s * 1e3)));
    c.push("tpot_ms", number(&|i| won(i).map_or(f64::NAN, |r| r.point.tpot_s * 1e3)));
    c.push("measured_share", number(&|i| won(i).map_or(f64::NAN, |r| r.point.evidence.share())));
    c.push("plan", text(&|i| won(i).map_or(String::new(), |r| describe(&r))));
    c.attrs.insert("complete".into(), (n == all.len()).to_string());
    c.attrs.insert("tolerance".into(), map.tolerance.to_string());
    Ok(c)
}
