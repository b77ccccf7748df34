//! WEKA's agentic sessions (callanjfox/kv-cache-tester): one JSON object each, sub-agents inside; block names are
//! local to a session. The files do not say when sessions start: session k starts at k times a gap.
//!
//! Limit: sessions start at even gaps of the caller's, for the files do not say when.

use std::path::Path;

use serde_json::Value;

use super::moment::Moment;
use super::rows::{OnError, Reader, TraceRow};
use super::{Said, Trace, blocks, text};
use crate::error::{Error, Result};

fn number(v: &Value, name: &str) -> Said<f64> {
    v.get(name).and_then(Value::as_f64).ok_or_else(|| format!("'{name}' is not there or not a number"))
}

fn count(v: &Value, name: &str) -> Said<u64> {
    let x = number(v, name)?;
    if x >= 0.0 && x.fract() == 0.0 { Ok(x as u64) } else { Err(format!("'{name}' is not a count: {x}")) }
}

/// A block name that belongs to one session only.
fn local(session: u32, id: u64) -> u64 {
    (u64::from(session) << 40) | (id & ((1 << 40) - 1))
}

fn names(r: &Value) -> Said<Vec<u64>> {
    match r.get("hash_ids") {
        Some(v) => blocks::ids(v),
        None => blocks::runs(r.get("hash_rle").unwrap_or(&Value::Null)),
    }
}

fn add(v: &Value, session: u32, start_s: f64, line: usize, reader: &mut Reader) -> Result<()> {
    for r in v.get("requests").and_then(Value::as_array).into_iter().flatten() {
        if r.get("requests").is_some() {
            // A sub-agent: its own clock starts where the parent called it.
            match number(r, "t") {
                Ok(t) => add(r, session, start_s + t, line, reader)?,
                Err(why) => reader.refuse(line, &why)?,
            }
            continue;
        }
        let row = number(r, "t").and_then(|t| {
            Ok(TraceRow {
                at: Moment::default().plus(start_s + t),
                isl: count(r, "in")?,
                osl: count(r, "out")?,
                session: Some(session),
                blocks: names(r)?.into_iter().map(|b| local(session, b)).collect(),
                ..TraceRow::default()
            })
        });
        reader.add(line, row)?;
    }
    Ok(())
}

/// Whether a text is a WEKA session, or begins with one.
pub(super) fn is_session(text: &str) -> bool {
    let head = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    let v: Option<Value> = serde_json::from_str(head).ok().or_else(|| serde_json::from_str(text).ok());
    v.is_some_and(|v| v.get("block_size").is_some() && v.get("requests").is_some())
}

/// A session, or one a line; session k starts at k times `gap_s`.
pub fn weka(path: &Path, gap_s: f64, on_error: OnError) -> Result<Trace> {
    if !(gap_s >= 0.0 && gap_s.is_finite()) {
        return Err(Error::spec("session_gap_s", format!("must not be below 0, is {gap_s}"), "seconds"));
    }
    let (all, _) = text::text(path)?;
    let json = |s: &str| serde_json::from_str::<Value>(s).map_err(|e| format!("is not JSON: {e}"));
    let sessions: Vec<(usize, Said<Value>)> = match json(&all) {
        Ok(v) => vec![(1, Ok(v))],
        Err(_) => {
            all.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).map(|(i, l)| (i + 1, json(l))).collect()
        }
    };
    let mut reader = Reader::new(path.display().to_string(), on_error);
    let mut block = None;
    for (k, (line, session)) in sessions.into_iter().enumerate() {
        let session = session.and_then(|v| count(&v, "block_size").map(|b| (v, b)));
        match session {
            Ok((_, b)) if b == 0 || b > 1 << 20 || *block.get_or_insert(b) != b => {
                reader.refuse(line, "another block_size")?;
            }
            Ok((v, _)) => add(&v, k as u32, k as f64 * gap_s, line, &mut reader)?,
            Err(why) => reader.refuse(line, &why)?,
        }
    }
    reader.finish(Some(Moment::default()), block.unwrap_or(64) as u32)
}
