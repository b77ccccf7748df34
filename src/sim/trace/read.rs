//! Traces from files and tables: any table by its columns ([`read`]), and public formats by their name.
//!
//! * Mooncake (kvcache-ai/Mooncake FAST25-release): JSON lines, milliseconds, blocks of 512 tokens. aiperf's are
//!   relatives: rows of a session with a `delay` after the one before, which is counted from that one's arrival (when
//!   its answer ends nobody knows before it is served).
//! * Bailian (alibaba-edu/qwen-bailian-usagetraces-anon): the same columns with `chat_id` and `parent_chat_id`: seconds,
//!   blocks of 16 tokens; a session is a chain of chats.
//! * Azure (Azure/AzurePublicDataset, LLM inference 2023 and 2024): CSV with dates.
//! * BurstGPT (HPMLL/BurstGPT): CSV with seconds. Vidur (microsoft/vidur): CSV with `arrived_at`.
//! * WEKA sessions stand in [`super::weka`], tables without arrivals in [`super::lengths`].
//!
//! Rows are sorted by time. Dates start at the earliest one, and so do epochs; other numbers are seconds from 0.
//!
//! Limit: whole files in memory; times to 213 days, and time zones only where a date says one.

use std::path::Path;

use super::moment::{self, Moment, Time, Unit};
use super::roles::{Named, Roles, roles};
use super::rows::{self, Names, OnError, Reader, Sessions, TraceRow};
use super::table::{Row, Table};
use super::{Said, Trace, blocks, servegen, text, weka};
use crate::error::{Error, Result};

/// Tokens of a block in Bailian's traces.
const BAILIAN: u32 = 16;
/// Requests a second that no one service has: numbers without a unit are not milliseconds then.
const BUSIEST: f64 = 1000.0;

/// How a table is to be read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub columns: Named,
    /// Of the arrivals; none: by the column's name, or an epoch, or `usual`.
    pub unit: Option<Unit>,
    /// Tokens of a named prompt block; none: by the numbers of names.
    pub block_tokens: Option<u32>,
    pub on_error: OnError,
}

/// What a format says where the file does not.
#[derive(Clone, Copy)]
struct Usual {
    /// Of arrivals, and what it is called.
    unit: Option<Unit>,
    block_tokens: u32,
    /// Whether the first arrival is time 0.
    from_first: bool,
    /// Whether its columns need no word.
    known: bool,
}

const ANY: Usual = Usual { unit: None, block_tokens: blocks::MOONCAKE, from_first: false, known: false };

/// A file that is a table: columns by their names, or as the caller names them.
///
/// # Errors
/// If it cannot be read, lacks a column, or a line is no request; each with what would do.
pub fn read(path: &Path, wanted: &Wanted) -> Result<Trace> {
    let bytes = if path.is_dir() { Vec::new() } else { text::bytes(path)? };
    if path.is_dir() || servegen::is_tar(&bytes) {
        return servegen::servegen(path, 0.0, None, 0, wanted.on_error);
    }
    let (text, how) = text::decode(bytes).map_err(|why| Error::data(path.display().to_string(), why))?;
    if weka::is_session(&text) {
        return weka::weka(path, 0.0, wanted.on_error);
    }
    let mut t = Table::of(path, text)?;
    if t.names.iter().any(|n| n.starts_with("hist.")) {
        return Err(Error::data(
            t.place,
            "holds histograms and no arrivals: Trace.lengths(path, rate=...) draws from them",
        ));
    }
    t.notes.extend(how.map(str::to_string));
    table(t, wanted, ANY)
}

/// A table in memory.
///
/// # Errors
/// As [`read`].
pub fn frame(table: Table, wanted: &Wanted) -> Result<Trace> {
    self::table(table, wanted, ANY)
}

pub(super) fn file(path: &Path) -> Result<Table> {
    let (text, how) = text::text(path)?;
    let mut table = Table::of(path, text)?;
    table.notes.extend(how.map(str::to_string));
    Ok(table)
}

/// Mooncake JSON lines and their relatives: `block_tokens` of none is told by the rows, 512 where they do not.
pub fn mooncake(path: &Path, block_tokens: Option<u32>, on_error: OnError) -> Result<Trace> {
    if block_tokens == Some(0) {
        return Err(Error::spec("block_tokens", "is 0", "512 in Mooncake's own traces"));
    }
    let usual = Usual { unit: Some(Unit::Milliseconds), known: true, ..ANY };
    table(file(path)?, &Wanted { block_tokens, on_error, ..Wanted::default() }, usual)
}

fn csv_with(path: &Path, [arrival, isl, osl]: [&str; 3], unit: Option<Unit>, on_error: OnError) -> Result<Trace> {
    let t = file(path)?;
    let own = |name: &str| {
        let found = t.names.iter().find(|n| n.eq_ignore_ascii_case(name)).cloned();
        found.ok_or_else(|| t.no_columns(&format!("no column '{name}' (Trace.read takes any names)")))
    };
    let columns =
        Named { arrival: Some(own(arrival)?), isl: Some(own(isl)?), osl: Some(own(osl)?), ..Named::default() };
    table(t, &Wanted { columns, on_error, ..Wanted::default() }, Usual { unit, from_first: true, known: true, ..ANY })
}

/// Azure's LLM inference trace.
pub fn azure(path: &Path, on_error: OnError) -> Result<Trace> {
    csv_with(path, ["TIMESTAMP", "ContextTokens", "GeneratedTokens"], None, on_error)
}

/// BurstGPT: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.
pub fn burstgpt(path: &Path, on_error: OnError) -> Result<Trace> {
    let seconds = Some(Unit::Seconds);
    csv_with(path, ["Timestamp", "Request tokens", "Response tokens"], seconds, on_error)
}

/// A count of tokens in a cell.
pub(super) fn count(t: &Table, row: &Row<'_>, column: usize) -> Said<u64> {
    let (cell, name) = (row.at(column), &t.names[column]);
    let found = match &*cell {
        serde_json::Value::Null => return Err(format!("'{name}' is missing")),
        serde_json::Value::String(s) => moment::parse(s, t.comma),
        other => other.as_f64(),
    };
    match found {
        Some(x) if x >= 0.0 && x.fract() == 0.0 && x < 9e15 => Ok(x as u64),
        _ => Err(format!("'{name}' is no count of tokens: {cell}")),
    }
}

/// What a row says beside its request: its time as it stands there, and the pause since the one before.
struct Said1 {
    time: Option<Time>,
    delay: Option<f64>,
}

fn row_of(t: &Table, row: &Row<'_>, r: &Roles, sessions: &mut Sessions) -> Said<(TraceRow, Said1)> {
    let value = |c: Option<usize>| c.map(|c| row.at(c));
    let arrival = r.arrival.map(|a| row.at(a.0)).filter(|v| !v.is_null());
    let time = arrival.map(|v| moment::time(&v, t.comma)).transpose()?;
    let delay = match r.delay.map(|(c, u)| (row.at(c), u)).filter(|(v, _)| !v.is_null()) {
        Some((v, u)) => Some(moment::time(&v, t.comma)?.moment(u).since(Moment::default())),
        None => None,
    };
    let session = match (value(r.session), value(r.parent)) {
        (Some(chat), Some(parent)) if r.bailian => sessions.chat(&chat, &parent),
        (Some(s), _) => sessions.number(&s),
        _ => None,
    };
    let need = |c: Option<usize>| c.map_or(Ok(0), |c| count(t, row, c));
    let mut found = TraceRow { isl: need(r.isl)?, osl: need(r.osl)?, session, ..TraceRow::default() };
    found.prefix = match r.prefix.filter(|c| !row.at(*c).is_null()) {
        Some(c) => count(t, row, c)?,
        None => 0,
    };
    if let Some(v) = value(r.ids) {
        found.blocks = blocks::ids(&v)?;
    }
    if let Some(v) = value(r.runs).filter(|_| found.blocks.is_empty()) {
        found.blocks = blocks::runs(&v)?;
    }
    if time.is_none() && (delay.is_none() || found.session.is_none()) {
        let name = r.arrival.map_or("arrival", |a| t.names[a.0].as_str());
        return Err(format!("'{name}' is missing"));
    }
    Ok((found, Said1 { time, delay }))
}

/// Mooncake's own columns, in whatever file.
fn is_mooncake(t: &Table) -> bool {
    let has = |name: &str| t.names.iter().any(|n| n == name);
    has("input_length") && has("output_length") && (has("timestamp") || has("delay"))
}

fn table(t: Table, wanted: &Wanted, mut usual: Usual) -> Result<Trace> {
    let r = roles(&t.names, &wanted.columns)?;
    if usual.unit.is_none() && is_mooncake(&t) {
        usual.unit = Some(Unit::Milliseconds);
    }
    for (role, found) in [("isl", r.isl), ("osl", r.osl), ("arrival", r.arrival.map(|a| a.0).or(r.delay.map(|d| d.0)))]
    {
        if found.is_none() {
            let cure = if role == "arrival" { ", or draw them: Trace.lengths(path, rate=...)" } else { "" };
            return Err(t.no_columns(&format!("no column that looks like {role}: say {role}='...'{cure};")));
        }
    }
    let mut reader = Reader::new(t.place.clone(), wanted.on_error);
    reader.notes.clone_from(&t.notes);
    let mut sessions = Sessions::default();
    let mut said: Vec<Said1> = Vec::new();
    let mut names = Names::default();
    t.each(|line, row| {
        let name = row.as_ref().ok().and_then(|row| rows::said(&row.at(r.request?)));
        let found = row.and_then(|row| row_of(&t, &row, &r, &mut sessions));
        let (row, times) = match found {
            Ok((row, times)) => (Ok(row), Some(times)),
            Err(why) => (Err(why), None),
        };
        let before = reader.rows.len();
        reader.add(line, row)?;
        if reader.rows.len() > before {
            said.extend(times);
            names.add(line, name);
        }
        Ok(())
    })?;
    let base = place_in_time(&t, &mut reader, &said, &r, wanted, usual)?;
    names.once(&mut reader)?;
    sessions.restore(&mut reader.rows);
    let name = |c: usize| t.names[c].clone();
    let pairs = [("isl", r.isl), ("osl", r.osl), ("prefix", r.prefix), ("session", r.session)];
    let told = pairs.iter().filter_map(|(role, c)| Some(format!("{role} from '{}'", name((*c)?))));
    if !usual.known {
        reader.notes.extend(told);
    }
    let block = if r.bailian { BAILIAN } else { usual.block_tokens };
    let size = blocks::size(&mut reader, wanted.block_tokens, block)?;
    reader.finish(base, size)
}

/// Gives every row its moment; what the clock of the trace starts from (none: the first arrival).
fn place_in_time(
    t: &Table,
    reader: &mut Reader,
    said: &[Said1],
    r: &Roles,
    wanted: &Wanted,
    usual: Usual,
) -> Result<Option<Moment>> {
    let fail = |what: String| Error::data(&t.place, what);
    let column = r.arrival.map_or("delay", |a| t.names[a.0].as_str());
    let dates = said.iter().filter_map(|s| s.time).filter_map(|t| match t {
        Time::Date { offset, .. } => Some(offset),
        Time::Number { .. } => None,
    });
    let (mut with, mut without) = (0, 0);
    dates.for_each(|offset| if offset { with += 1 } else { without += 1 });
    let numbers: Vec<f64> = said.iter().filter_map(|s| s.time?.number()).collect();
    if with > 0 && without > 0 {
        return Err(fail(format!("'{column}': {with} dates have a UTC offset and {without} have none: give all one")));
    }
    if !numbers.is_empty() && with + without > 0 {
        return Err(fail(format!("'{column}' mixes numbers and dates: write all one way")));
    }
    let (low, high) = numbers.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    let epoch = Unit::of_epoch(low).filter(|_| Unit::of_epoch(low) == Unit::of_epoch(high));
    let own = r.arrival.and_then(|a| a.1).or(r.bailian.then_some(Unit::Seconds));
    let unit = wanted.unit.or(own).or(epoch).or(usual.unit).unwrap_or(Unit::Seconds);
    let guessed = wanted.unit.is_none() && own.is_none() && epoch.is_none();
    let rate = numbers.len() as f64 / (high - low).max(f64::MIN_POSITIVE);
    let parts = numbers.iter().any(|x| x.fract() != 0.0);
    if guessed && parts && numbers.len() > 1 && usual.unit == Some(Unit::Milliseconds) && rate * 1e3 > BUSIEST {
        let text =
            format!("'{column}': as milliseconds these are {:.0} requests/s: Trace.read(path, unit='s')", rate * 1e3);
        return Err(fail(text));
    }
    if r.arrival.is_some() && !said.is_empty() && !usual.known {
        let how = if numbers.is_empty() { "dates".to_string() } else { unit.name().to_string() };
        let sure =
            if guessed && usual.unit.is_none() && !numbers.is_empty() { ", guessed: else say unit='ms'" } else { "" };
        reader.notes.push(format!("arrival from '{column}' ({how}{sure})"));
        if wanted.columns.arrival.is_none() && !r.others.is_empty() {
            reader.notes.push(format!("not taken for arrivals: '{}'", r.others.join("', '")));
        }
    }
    let mut last: std::collections::HashMap<u32, Moment> = std::collections::HashMap::new();
    let mut delayed = 0;
    for (row, s) in reader.rows.iter_mut().zip(said) {
        row.at = match (s.time, s.delay) {
            (Some(time), _) => time.moment(unit),
            (None, delay) => {
                delayed += 1;
                let before = row.session.and_then(|s| last.get(&s).copied()).unwrap_or_default();
                before.plus(delay.unwrap_or(0.0))
            }
        };
        if let Some(session) = row.session {
            last.insert(session, row.at);
        }
    }
    if delayed > 0 {
        reader.notes.push(format!(
            "{delayed} rows come a delay after the one before in their session (its answer not counted)"
        ));
    }
    let from_first = usual.from_first || epoch.is_some() || with + without > 0;
    Ok((!from_first).then(Moment::default))
}
