//! Readers of public trace formats, plain or gzip.
//!
//! * Mooncake (kvcache-ai/Mooncake FAST25-release): JSON lines, milliseconds, blocks of 512 tokens.
//! * Azure (Azure/AzurePublicDataset, LLM inference 2023): CSV with timestamps.
//! * BurstGPT (HPMLL/BurstGPT): CSV with seconds.
//! * WEKA (callanjfox/kv-cache-tester): one session a JSON object, block names local to it.
//! * Length tables: CSV, JSON lines or histograms without arrivals, which are then drawn.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use rand_pcg::Pcg64;
use serde_json::Value;

use super::{Trace, draw};
use crate::error::{Error, Result};
use crate::sim::{Requests, to_ps};

/// What to do with a line that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Fail,
    Skip,
}

/// One request as a line says it.
#[derive(Clone, Debug, Default)]
struct TraceRow {
    at_s: f64,
    isl: u64,
    osl: u64,
    prefix: u64,
    session: Option<u32>,
    blocks: Vec<u64>,
}

pub(super) type Said<T> = std::result::Result<T, String>;

/// What a file holds, unzipped if it is gzip.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::data(path.display().to_string(), e.to_string());
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.read_to_end(&mut bytes).map_err(fail)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(fail)?;
        bytes = plain;
    }
    Ok(bytes)
}

fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|_| Error::data(path.display().to_string(), "is not text"))
}

/// Rows collected line by line; what is wrong is named with its line, or counted.
struct Reader {
    path: String,
    on_error: OnError,
    rows: Vec<TraceRow>,
    skipped: u64,
}

impl Reader {
    fn new(path: &Path, on_error: OnError) -> Reader {
        Reader { path: path.display().to_string(), on_error, rows: Vec::new(), skipped: 0 }
    }

    fn refuse(&mut self, line: usize, why: &str) -> Result<()> {
        if self.on_error == OnError::Skip {
            self.skipped += 1;
            return Ok(());
        }
        Err(Error::data(format!("{}:{line}", self.path), format!("{why} (on_error=\"skip\" leaves such lines out)")))
    }

    fn add(&mut self, line: usize, row: Said<TraceRow>, ordered: bool) -> Result<()> {
        let row = match row {
            Ok(row) => row,
            Err(why) => return self.refuse(line, &why),
        };
        let last = self.rows.last().map_or(0.0, |r| r.at_s);
        if row.isl == 0 || row.osl == 0 {
            return self.refuse(line, "a request needs at least one prompt token and one answer token");
        }
        if row.isl > 1 << 31 || row.osl > 1 << 31 {
            return self.refuse(line, "more tokens than any model takes");
        }
        if !(row.at_s >= 0.0 && row.at_s < 1.8e7) {
            return self.refuse(line, &format!("arrival {} s is not from 0 to 1.8e7", row.at_s));
        }
        if ordered && row.at_s < last {
            return self.refuse(line, &format!("time goes back from {last} to {} s", row.at_s));
        }
        self.rows.push(row);
        Ok(())
    }

    fn finish(mut self, block_tokens: u32) -> Result<Trace> {
        if self.rows.is_empty() {
            return Err(Error::data(self.path, "holds no request"));
        }
        self.rows.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        let blocks = self.rows.iter().any(|r| !r.blocks.is_empty());
        let sessions = self.rows.iter().any(|r| r.session.is_some());
        let prefixes = self.rows.iter().any(|r| r.prefix > 0);
        let mut out = Requests { block_tokens: if blocks { block_tokens } else { 0 }, ..Requests::default() };
        if blocks {
            out.hash_offsets.push(0);
        }
        for row in self.rows {
            out.arrival_ps.push(to_ps(row.at_s));
            out.isl.push(row.isl as u32);
            out.osl.push(row.osl as u32);
            if prefixes {
                out.prefix.push(row.prefix.min(row.isl - 1) as u32);
            }
            if sessions {
                out.session.push(row.session.unwrap_or(0));
            }
            if blocks {
                out.hashes.extend(row.blocks);
                let Ok(end) = u32::try_from(out.hashes.len()) else {
                    return Err(Error::data(self.path, "names more than 2^32 blocks"));
                };
                out.hash_offsets.push(end);
            }
        }
        Ok(Trace { requests: out, source: self.path, skipped: self.skipped })
    }
}

fn number(v: &Value, names: &[&str]) -> Said<f64> {
    let found = names.iter().find_map(|n| v.get(n));
    found.and_then(Value::as_f64).ok_or_else(|| format!("'{}' is not there or not a number", names[0]))
}

fn count(v: &Value, names: &[&str]) -> Said<u64> {
    let x = number(v, names)?;
    if x >= 0.0 && x.fract() == 0.0 { Ok(x as u64) } else { Err(format!("'{}' is not a count: {x}", names[0])) }
}

fn blocks(v: &Value) -> Said<Vec<u64>> {
    let bad = || "block names are not whole numbers".to_string();
    if let Some(ids) = v.get("hash_ids") {
        let ids = ids.as_array().ok_or_else(bad)?;
        return ids.iter().map(|x| x.as_u64().ok_or_else(bad)).collect();
    }
    let mut out = Vec::new();
    for run in v.get("hash_rle").and_then(Value::as_array).unwrap_or(&Vec::new()) {
        let at = |i: usize| run.get(i).and_then(Value::as_u64).ok_or_else(bad);
        let (start, len) = (at(0)?, at(1)?);
        if len > 1 << 24 {
            return Err("a run of more than 2^24 blocks".into());
        }
        out.extend((0..len).map(|k| start.wrapping_add(k)));
    }
    Ok(out)
}

fn json(line: &str) -> Said<Value> {
    serde_json::from_str(line).map_err(|e| format!("is not JSON: {e}"))
}

/// Mooncake JSON lines, and relatives with `t_ms` or `arrival_time_ns`, `session` and `hash_rle`.
pub fn mooncake(path: &Path, block_tokens: u32, on_error: OnError) -> Result<Trace> {
    if block_tokens == 0 {
        return Err(Error::spec("block_tokens", "is 0", "512 in Mooncake's own traces"));
    }
    let mut reader = Reader::new(path, on_error);
    let mut ordered = true;
    for (i, line) in text(path)?.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let row = json(line).and_then(|v| {
            let at_s = match number(&v, &["arrival_time_ns"]) {
                Ok(ns) => ns * 1e-9,
                Err(_) => number(&v, &["timestamp", "t_ms"])? * 1e-3,
            };
            let session = v.get("session").and_then(Value::as_u64).map(|s| s as u32);
            // Sessions may each be in order, one after the other.
            ordered &= session.is_none();
            Ok(TraceRow {
                at_s,
                isl: count(&v, &["input_length", "input_toks"])?,
                osl: count(&v, &["output_length", "output_toks"])?,
                session,
                blocks: blocks(&v)?,
                ..TraceRow::default()
            })
        });
        reader.add(i + 1, row, ordered)?;
    }
    reader.finish(block_tokens)
}

fn days(y: i64, m: i64, d: i64) -> i64 {
    // Days of the Gregorian calendar, years counted from March.
    let (y, m) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + d - 1
}

/// (whole seconds, part of a second) of `2023-11-16 18:15:46.68`, kept apart to lose no digits.
fn timestamp(s: &str) -> Said<(i64, f64)> {
    let bad = || format!("'{s}' is not a time like 2023-11-16 18:15:46.68");
    let (date, clock) = s.trim().split_once([' ', 'T']).ok_or_else(bad)?;
    let clock = clock.split(['+', 'Z']).next().unwrap_or(clock);
    let whole = |x: &str| x.parse::<i64>().map_err(|_| bad());
    let d: Vec<i64> = date.split('-').map(whole).collect::<Said<_>>()?;
    let parts: Vec<&str> = clock.split(':').collect();
    let (&[y, m, day], &[h, min, sec]) = (d.as_slice(), parts.as_slice()) else { return Err(bad()) };
    let seconds: f64 = sec.parse().map_err(|_| bad())?;
    let (h, min) = (whole(h)?, whole(min)?);
    if !((1..=12).contains(&m) && (1..=31).contains(&day) && (0..24).contains(&h) && (0..60).contains(&min)) {
        return Err(bad());
    }
    Ok((days(y, m, day) * 86_400 + h * 3600 + min * 60 + seconds as i64, seconds.fract()))
}

/// A CSV file whose first line names its columns.
struct Table<'a> {
    names: Vec<String>,
    rows: csv::Reader<&'a [u8]>,
}

impl<'a> Table<'a> {
    fn new(path: &Path, text: &'a str) -> Result<Table<'a>> {
        let text = text.trim_start_matches('\u{feff}');
        // A row that is too short is refused by its line, not by the reader.
        let mut rows = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
        let names = rows.headers().map_err(|e| Error::data(format!("{}:1", path.display()), e.to_string()))?;
        Ok(Table { names: names.iter().map(str::to_string).collect(), rows })
    }

    fn at(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|n| self.names.iter().position(|x| x.eq_ignore_ascii_case(n)))
    }

    fn need(&self, path: &Path, names: &[&str]) -> Result<usize> {
        self.at(names).ok_or_else(|| {
            Error::data(
                format!("{}:1", path.display()),
                format!("no column '{}' in: {}", names[0], self.names.join(", ")),
            )
        })
    }

    /// Hands every row that is not empty to `take`, with the number of its line.
    fn each(self, path: &Path, mut take: impl FnMut(usize, Said<&StringRecord>) -> Result<()>) -> Result<()> {
        let mut line = 1;
        for row in self.rows.into_records() {
            match row {
                Ok(cells) => {
                    line = cells.position().map_or(line + 1, |p| p.line() as usize);
                    // The reader takes a quote that stays open for text of many lines: nothing of those may be lost.
                    if cells.iter().any(|c| c.contains('\n')) {
                        let place = format!("{}:{line}", path.display());
                        return Err(Error::data(place, "a quote opens on this line and does not close on it"));
                    }
                    if cells.len() > 1 || cells.get(0).is_some_and(|c| !c.is_empty()) {
                        take(line, Ok(&cells))?;
                    }
                }
                Err(e) => take(line + 1, Err(e.to_string()))?,
            }
        }
        Ok(())
    }
}

fn cell(cells: &StringRecord, i: usize) -> Said<&str> {
    cells.get(i).ok_or_else(|| format!("has {} columns, needs {}", cells.len(), i + 1))
}

fn cell_count(cells: &StringRecord, i: usize) -> Said<u64> {
    let c = cell(cells, i)?;
    match c.parse::<f64>() {
        Ok(x) if x >= 0.0 && x.fract() == 0.0 => Ok(x as u64),
        _ => Err(format!("'{c}' is not a count of tokens")),
    }
}

/// Azure's LLM inference trace.
pub fn azure(path: &Path, on_error: OnError) -> Result<Trace> {
    let all = text(path)?;
    let table = Table::new(path, &all)?;
    let at = table.need(path, &["TIMESTAMP"])?;
    let isl = table.need(path, &["ContextTokens"])?;
    let osl = table.need(path, &["GeneratedTokens"])?;
    let mut reader = Reader::new(path, on_error);
    let mut first: Option<(i64, f64)> = None;
    table.each(path, |line, cells| {
        let row = cells.and_then(|cells| {
            let (s, part) = timestamp(cell(cells, at)?)?;
            let row = TraceRow { isl: cell_count(cells, isl)?, osl: cell_count(cells, osl)?, ..TraceRow::default() };
            let (s0, part0) = *first.get_or_insert((s, part));
            Ok(TraceRow { at_s: (s - s0) as f64 + (part - part0), ..row })
        });
        reader.add(line, row, true)
    })?;
    reader.finish(0)
}

/// BurstGPT: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.
pub fn burstgpt(path: &Path, on_error: OnError) -> Result<Trace> {
    let all = text(path)?;
    let table = Table::new(path, &all)?;
    let at = table.need(path, &["Timestamp"])?;
    let isl = table.need(path, &["Request tokens"])?;
    let osl = table.need(path, &["Response tokens"])?;
    let mut reader = Reader::new(path, on_error);
    let mut first = None;
    table.each(path, |line, cells| {
        let row = cells.and_then(|cells| {
            let c = cell(cells, at)?;
            let s: f64 = c.parse().map_err(|_| format!("'{c}' is not a time in seconds"))?;
            let row = TraceRow { isl: cell_count(cells, isl)?, osl: cell_count(cells, osl)?, ..TraceRow::default() };
            Ok(TraceRow { at_s: s - *first.get_or_insert(s), ..row })
        });
        reader.add(line, row, true)
    })?;
    reader.finish(0)
}

/// A block name that belongs to one session only.
fn local(session: u32, id: u64) -> u64 {
    (u64::from(session) << 40) | (id & ((1 << 40) - 1))
}

fn weka_session(v: &Value, session: u32, start_s: f64, line: usize, reader: &mut Reader) -> Result<()> {
    let empty = Vec::new();
    for r in v.get("requests").and_then(Value::as_array).unwrap_or(&empty) {
        if r.get("requests").is_some() {
            // A sub-agent: its own clock starts where the parent called it.
            match number(r, &["t"]) {
                Ok(t) => weka_session(r, session, start_s + t, line, reader)?,
                Err(why) => reader.refuse(line, &why)?,
            }
            continue;
        }
        let row = number(r, &["t"]).and_then(|t| {
            Ok(TraceRow {
                at_s: start_s + t,
                isl: count(r, &["in"])?,
                osl: count(r, &["out"])?,
                session: Some(session),
                blocks: blocks(r)?.into_iter().map(|b| local(session, b)).collect(),
                ..TraceRow::default()
            })
        });
        reader.add(line, row, false)?;
    }
    Ok(())
}

/// WEKA sessions: a JSON object, or one a line; session k starts at k times `gap_s`.
pub fn weka(path: &Path, gap_s: f64, on_error: OnError) -> Result<Trace> {
    if !(gap_s >= 0.0 && gap_s.is_finite()) {
        return Err(Error::spec("session_gap_s", format!("must not be below 0, is {gap_s}"), "seconds"));
    }
    let all = text(path)?;
    let whole = json(&all).map(|v| vec![(1, Ok(v))]);
    let sessions: Vec<(usize, Said<Value>)> = whole.unwrap_or_else(|_| {
        all.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).map(|(i, l)| (i + 1, json(l))).collect()
    });
    let mut reader = Reader::new(path, on_error);
    let mut block = None;
    for (k, (line, session)) in sessions.into_iter().enumerate() {
        let session = session.and_then(|v| count(&v, &["block_size"]).map(|b| (v, b)));
        match session {
            Ok((_, b)) if b == 0 || *block.get_or_insert(b) != b => reader.refuse(line, "another block_size")?,
            Ok((v, _)) => weka_session(&v, k as u32, k as f64 * gap_s, line, &mut reader)?,
            Err(why) => reader.refuse(line, &why)?,
        }
    }
    reader.finish(block.unwrap_or(64) as u32)
}

const ISL: &[&str] =
    &["num_prefill_tokens", "input_tokens", "ContextTokens", "Request tokens", "input_length", "input_toks", "isl"];
const OSL: &[&str] = &[
    "num_decode_tokens",
    "output_tokens",
    "GeneratedTokens",
    "Response tokens",
    "output_length",
    "output_toks",
    "osl",
];

/// A table of lengths (CSV, JSON lines or ServeGen-style histograms); Poisson arrivals at `rate`.
/// Histograms are marginals: `n` requests are drawn from them independently.
pub fn lengths(path: &Path, rate: f64, n: usize, seed: u64, on_error: OnError) -> Result<Trace> {
    draw::check(rate, 1.0, n)?;
    let all = text(path)?;
    let mut reader = Reader::new(path, on_error);
    let head = all.lines().next().unwrap_or("");
    if let Some(hist) = json(head).ok().and_then(|v| v.get("hist").cloned()) {
        let mut rng = Pcg64::new(u128::from(seed), 3);
        for _ in 0..n {
            let row = from_hist(&hist, "input_tokens", &mut rng).and_then(|isl| {
                Ok(TraceRow { isl, osl: from_hist(&hist, "output_tokens", &mut rng)?, ..TraceRow::default() })
            });
            reader.add(1, row, false)?;
        }
    } else if head.starts_with('{') {
        for (i, line) in all.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let row = json(line)
                .and_then(|v| Ok(TraceRow { isl: count(&v, ISL)?, osl: count(&v, OSL)?, ..TraceRow::default() }));
            reader.add(i + 1, row, false)?;
        }
    } else {
        let table = Table::new(path, &all)?;
        let (isl, osl) = (table.need(path, ISL)?, table.need(path, OSL)?);
        let prefix = table.at(&["cached_prefix_tokens_inf", "prefix"]);
        table.each(path, |line, cells| {
            let row = cells.and_then(|cells| {
                let isl = cell_count(cells, isl)?;
                let prefix = prefix.map_or(Ok(0), |c| cell_count(cells, c))?;
                Ok(TraceRow { isl, osl: cell_count(cells, osl)?, prefix, ..TraceRow::default() })
            });
            reader.add(line, row, false)
        })?;
    }
    let mut trace = reader.finish(0)?;
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
