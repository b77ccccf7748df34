//! Traces: requests with arrivals, read from any table ([`read`]) or a public format, or drawn ([`draw`]).
//!
//! Prefix hits follow the leading-block rule: a prompt reuses its named blocks up to the first one
//! that is not cached; a cache of limited size forgets the least recently used prompt's tail first, as a
//! server's does (`kv::Cache`).
//!
//! Limit: tokens are counted, never seen: prefixes are known by names of blocks or not at all.

mod blocks;
pub mod draw;
pub mod lengths;
pub mod moment;
pub mod read;
pub mod roles;
pub mod rows;
pub mod servegen;
pub mod table;
mod text;
pub mod weka;

use serde::{Deserialize, Serialize};

use super::kv::Cache;
use super::request::Requests;
use super::{PS, to_s};
use crate::columns::{Column, Columns};
use crate::error::{Error, Result};

/// Requests and where they come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub requests: Requests,
    pub source: String,
    /// Lines left out because they could not be read.
    pub skipped: u64,
    /// What was taken for what where the file did not say it: columns, units, sizes, order.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a row says, or why it says nothing.
type Said<T> = std::result::Result<T, String>;

/// What a trace looks like; lengths in tokens, `input` is the whole prompt.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    pub requests: usize,
    pub skipped: u64,
    pub duration_s: f64,
    pub rate: Option<f64>,
    pub input_mean: f64,
    pub output_mean: f64,
    pub input_max: u32,
    pub output_max: u32,
    pub sessions: usize,
    /// Share of prompt tokens that an endless cache would hold; none without block names or prefixes.
    pub prefix_hit: Option<f64>,
}

impl Trace {
    /// Seconds between the first and the last arrival (0 in a closed loop).
    pub fn span_s(&self) -> f64 {
        let a = &self.requests.arrival_ps;
        match (a.first(), a.last(), self.requests.closed) {
            (Some(first), Some(last), None) => to_s(last - first),
            _ => 0.0,
        }
    }

    /// Mean arrivals per second; none where the arrivals have no extent.
    pub fn rate(&self) -> Option<f64> {
        let s = self.span_s();
        (s > 0.0).then(|| (self.requests.len() - 1) as f64 / s)
    }

    pub fn stats(&self) -> Stats {
        let r = &self.requests;
        let n = r.len().max(1) as f64;
        let sum = |v: &[u32]| v.iter().map(|x| f64::from(*x)).sum::<f64>();
        let mut sessions = r.session.clone();
        sessions.sort_unstable();
        sessions.dedup();
        let named = !r.hashes.is_empty() || !r.prefix.is_empty();
        Stats {
            requests: r.len(),
            skipped: self.skipped,
            duration_s: self.span_s(),
            rate: self.rate(),
            input_mean: sum(&r.isl) / n,
            output_mean: sum(&r.osl) / n,
            input_max: r.isl.iter().copied().max().unwrap_or(0),
            output_max: r.osl.iter().copied().max().unwrap_or(0),
            sessions: sessions.len(),
            prefix_hit: named.then(|| sum(&self.hits(None)) / sum(&r.isl).max(1.0)),
        }
    }

    /// Prompt tokens of each request that a cache of `tokens` (none: endless) holds when it comes.
    pub fn hits(&self, tokens: Option<u64>) -> Vec<u32> {
        let r = &self.requests;
        let most = tokens.map_or(u64::MAX, |t| t / u64::from(r.block_tokens.max(1)));
        let mut cache = Cache::new(None, 1);
        (0..r.len())
            .map(|i| {
                let blocks = r.blocks(i);
                let leading = cache.leading(blocks, 0) as u32;
                cache.pin(blocks);
                cache.unpin(blocks, 0);
                cache.shrink(most);
                let declared = r.prefix.get(i).copied().unwrap_or(0);
                leading.saturating_mul(r.block_tokens).max(declared).min(r.isl[i])
            })
            .collect()
    }

    /// The same requests at another mean rate: gaps are stretched, their pattern stays.
    pub fn scale(&self, rate: f64) -> Result<Trace> {
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(Error::spec("rate", format!("must be above 0, is {rate}"), "requests per second"));
        }
        let Some(now) = self.rate() else {
            return Err(Error::spec("rate", "this trace has no rate to scale", "closed loops scale by concurrency"));
        };
        let mut out = self.clone();
        let first = out.requests.arrival_ps.first().copied().unwrap_or(0);
        for a in &mut out.requests.arrival_ps {
            *a = ((*a - first) as f64 * (now / rate)).round() as u64;
        }
        Ok(out)
    }

    /// The same requests with places in the queue: the lowest goes first.
    pub fn with_priority(&self, priority: Vec<u8>) -> Result<Trace> {
        let n = self.requests.len();
        if priority.len() != n {
            let text = format!("has {} values for {n} requests", priority.len());
            return Err(Error::spec("priority", text, "one a request, in order of arrival; the lowest goes first"));
        }
        let mut out = self.clone();
        out.requests.priority = priority;
        Ok(out)
    }

    /// Requests that come from `start_s` to before `end_s`, moved to start at 0.
    pub fn window(&self, start_s: f64, end_s: f64) -> Result<Trace> {
        if !(start_s >= 0.0 && end_s > start_s) {
            return Err(Error::spec("window", format!("{start_s} to {end_s} s is empty"), "0 <= start < end"));
        }
        if self.requests.closed.is_some() {
            return Err(Error::spec("window", "a closed loop has no window of time", ""));
        }
        let (from, to) = ((start_s * PS) as u64, (end_s * PS) as u64);
        let keep: Vec<usize> =
            (0..self.requests.len()).filter(|i| (from..to).contains(&self.requests.arrival_ps[*i])).collect();
        if keep.is_empty() {
            return Err(Error::spec("window", format!("no request from {start_s} to {end_s} s"), "widen it"));
        }
        let mut requests = self.take(&keep);
        for a in &mut requests.arrival_ps {
            *a -= from;
        }
        Ok(Trace { requests, ..self.clone() })
    }

    fn take(&self, keep: &[usize]) -> Requests {
        let r = &self.requests;
        let pick = |v: &[u32]| if v.is_empty() { Vec::new() } else { keep.iter().map(|i| v[*i]).collect() };
        let mut out = Requests {
            arrival_ps: keep.iter().map(|i| r.arrival_ps[*i]).collect(),
            isl: pick(&r.isl),
            osl: pick(&r.osl),
            prefix: pick(&r.prefix),
            session: pick(&r.session),
            priority: if r.priority.is_empty() { Vec::new() } else { keep.iter().map(|i| r.priority[*i]).collect() },
            block_tokens: r.block_tokens,
            closed: r.closed,
            ..Requests::default()
        };
        if !r.hash_offsets.is_empty() {
            out.hash_offsets.push(0);
            for i in keep {
                out.hashes.extend_from_slice(r.blocks(*i));
                out.hash_offsets.push(out.hashes.len() as u32);
            }
        }
        out
    }

    /// Joint lengths (prefix, new tokens, answer) of at most `most` requests, evenly spaced; the
    /// prefix is what an endless cache would hold, at least one token of each prompt is new.
    pub(crate) fn lengths(&self, most: usize) -> Vec<[f64; 3]> {
        let r = &self.requests;
        let hits = self.hits(None);
        let step = r.len().div_ceil(most.max(1)).max(1);
        (0..r.len())
            .step_by(step)
            .map(|i| {
                let hit = hits[i].min(r.isl[i].saturating_sub(1));
                [f64::from(hit), f64::from(r.isl[i] - hit), f64::from(r.osl[i])]
            })
            .collect()
    }

    pub fn columns(&self) -> Columns {
        let r = &self.requests;
        let whole = |v: &[u32]| Column::I64(v.iter().map(|x| i64::from(*x)).collect());
        let mut c = Columns::new();
        c.push("arrival_s", Column::F64(r.arrival_ps.iter().map(|a| to_s(*a)).collect()));
        c.push("isl", whole(&r.isl));
        c.push("osl", whole(&r.osl));
        c.push("prefix_tokens", whole(&self.hits(None)));
        if !r.session.is_empty() {
            c.push("session", whole(&r.session));
        }
        c
    }
}
