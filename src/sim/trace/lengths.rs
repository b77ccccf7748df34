//! Tables of lengths without arrivals, which are then drawn: CSV, JSON lines, histograms of marginals.
//!
//! Limit: marginals are drawn independently, so long prompts need not have long answers.

use std::path::Path;

use rand_pcg::Pcg64;
use serde_json::Value;

use super::roles::{Named, roles};
use super::rows::{OnError, Reader, TraceRow};
use super::{Said, Trace, draw, read, text};
use crate::error::{Error, Result};

/// A table of lengths (CSV, JSON lines or ServeGen-style histograms); Poisson arrivals at `rate`.
/// Histograms are marginals: `n` requests are drawn from them independently.
///
/// # Errors
/// If it cannot be read, a line is no pair of lengths, or it has arrivals of its own.
pub fn lengths(path: &Path, rate: f64, n: usize, seed: u64, on_error: OnError) -> Result<Trace> {
    draw::check(rate, 1.0, n)?;
    let (all, how) = text::text(path)?;
    let place = path.display().to_string();
    let mut reader = Reader::new(place.clone(), on_error);
    reader.notes.extend(how.map(str::to_string));
    let head: Option<Value> = all.lines().next().and_then(|l| serde_json::from_str(l).ok());
    if let Some(hist) = head.and_then(|v| v.get("hist").cloned()) {
        let mut rng = Pcg64::new(u128::from(seed), 3);
        for _ in 0..n {
            let row = from_hist(&hist, "input_tokens", &mut rng).and_then(|isl| {
                Ok(TraceRow { isl, osl: from_hist(&hist, "output_tokens", &mut rng)?, ..TraceRow::default() })
            });
            reader.add(1, row)?;
        }
    } else {
        let t = super::table::Table::of(path, all)?;
        reader.notes.extend(t.notes.iter().cloned());
        let r = roles(&t.names, &Named::default())?;
        if let Some((c, _)) = r.arrival {
            let text = format!(
                "has arrivals in column '{}': Trace.read keeps them (.scale(rate=...) their pattern)",
                t.names[c]
            );
            return Err(Error::data(place, text));
        }
        let need =
            |role: &str, c: Option<usize>| c.ok_or_else(|| t.no_columns(&format!("no column that looks like {role}")));
        let (isl, osl) = (need("isl", r.isl)?, need("osl", r.osl)?);
        t.each(|line, row| {
            let found = row.and_then(|row| {
                let prefix = r.prefix.filter(|c| !row.at(*c).is_null()).map_or(Ok(0), |c| read::count(&t, &row, c))?;
                let (isl, osl) = (read::count(&t, &row, isl)?, read::count(&t, &row, osl)?);
                Ok(TraceRow { isl, osl, prefix, ..TraceRow::default() })
            });
            reader.add(line, found)
        })?;
    }
    let mut trace = reader.finish(None, 0)?;
    trace.requests.arrival_ps = draw::arrivals(trace.requests.len(), rate, 1.0, seed);
    Ok(trace)
}

fn from_hist(hist: &Value, name: &str, rng: &mut Pcg64) -> Said<u64> {
    let bad = || format!("histogram '{name}' is not a list of [value, share]");
    let rows = hist.get(name).and_then(Value::as_array).ok_or_else(bad)?;
    let share = |r: &Value| r.get(1).and_then(Value::as_f64).unwrap_or(0.0);
    let mut left = draw::uniform(rng) * rows.iter().map(share).sum::<f64>();
    for r in rows {
        left -= share(r);
        if left < 0.0 {
            return r.get(0).and_then(Value::as_u64).ok_or_else(bad);
        }
    }
    rows.last().and_then(|r| r.get(0)).and_then(Value::as_u64).ok_or_else(bad)
}
