//! Rows on their way to requests: checked one by one, sorted by time, sessions numbered.
//!
//! Limit: 1.8e7 seconds a trace; of rows at the same time the first in the file comes first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::moment::Moment;
use super::{Said, Trace};
use crate::error::{Error, Result};
use crate::sim::{Requests, to_ps};

/// What to do with a line that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    #[default]
    Fail,
    Skip,
}

/// Seconds that a trace may last (the clock holds 213 days).
const LONGEST_S: f64 = 1.8e7;

/// One request as a row says it.
#[derive(Clone, Debug, Default)]
pub(super) struct TraceRow {
    pub line: usize,
    pub at: Moment,
    pub isl: u64,
    pub osl: u64,
    pub prefix: u64,
    pub session: Option<u32>,
    pub blocks: Vec<u64>,
}

impl TraceRow {
    /// Why it is no request.
    pub fn wrong(&self) -> Option<String> {
        if self.isl == 0 || self.osl == 0 {
            return Some("a request needs at least one prompt token and one answer token".into());
        }
        if self.isl > 1 << 31 || self.osl > 1 << 31 {
            return Some("more tokens than any model takes".into());
        }
        let longer = self.prefix > self.isl;
        longer
            .then(|| format!("a cached prefix of {} in a prompt of {} tokens: isl counts both", self.prefix, self.isl))
    }
}

/// Rows collected; what is wrong is named with its line, or counted.
pub(super) struct Reader {
    pub place: String,
    on_error: OnError,
    pub rows: Vec<TraceRow>,
    pub skipped: u64,
    pub notes: Vec<String>,
}

impl Reader {
    pub fn new(place: String, on_error: OnError) -> Reader {
        Reader { place, on_error, rows: Vec::new(), skipped: 0, notes: Vec::new() }
    }

    pub fn refuse(&mut self, line: usize, why: &str) -> Result<()> {
        if self.on_error == OnError::Skip {
            self.skipped += 1;
            return Ok(());
        }
        Err(Error::data(format!("{}:{line}", self.place), format!("{why} (on_error=\"skip\" leaves such lines out)")))
    }

    pub fn add(&mut self, line: usize, row: Said<TraceRow>) -> Result<()> {
        let row = match row {
            Ok(row) => TraceRow { line, ..row },
            Err(why) => return self.refuse(line, &why),
        };
        match row.wrong() {
            Some(why) => self.refuse(line, &why),
            None => {
                self.rows.push(row);
                Ok(())
            }
        }
    }

    /// Leaves out the rows of which `why` has something to say.
    pub fn sift(&mut self, mut why: impl FnMut(&TraceRow) -> Option<String>) -> Result<()> {
        let mut kept = Vec::with_capacity(self.rows.len());
        for row in std::mem::take(&mut self.rows) {
            match why(&row) {
                Some(why) => self.refuse(row.line, &why)?,
                None => kept.push(row),
            }
        }
        self.rows = kept;
        Ok(())
    }

    /// The trace, sorted by time. `base`: what its clock starts from; none: the first arrival.
    pub fn finish(mut self, base: Option<Moment>, block_tokens: u32) -> Result<Trace> {
        let key = |a: &TraceRow, b: &TraceRow| a.at.since(b.at).total_cmp(&0.0);
        let earliest = self.rows.iter().min_by(|a, b| key(a, b)).map(|r| r.at).unwrap_or_default();
        let base = base.unwrap_or(earliest);
        let before = self.rows.iter().map(|r| r.at).scan(earliest, |latest, at| {
            let late = at.since(*latest) < 0.0;
            *latest = if late { *latest } else { at };
            Some(late)
        });
        let unsorted = before.filter(|late| *late).count();
        if unsorted > 0 {
            self.notes.push(format!("{unsorted} rows came before the one ahead of them: sorted by time"));
        }
        self.sift(|row| {
            let at_s = row.at.since(base);
            let fits = (0.0..LONGEST_S).contains(&at_s);
            (!fits).then(|| format!("arrival {at_s} s is not from 0 to {LONGEST_S:.1e} s of the trace's start"))
        })?;
        if self.rows.is_empty() {
            return Err(Error::data(self.place, "holds no request"));
        }
        self.rows.sort_by(key);
        self.build(base, block_tokens)
    }

    fn build(self, base: Moment, block_tokens: u32) -> Result<Trace> {
        let blocks = self.rows.iter().any(|r| !r.blocks.is_empty());
        let sessions = self.rows.iter().any(|r| r.session.is_some());
        let prefixes = self.rows.iter().any(|r| r.prefix > 0);
        let mut out = Requests { block_tokens: if blocks { block_tokens } else { 0 }, ..Requests::default() };
        if blocks {
            out.hash_offsets.push(0);
        }
        // A request of no session is one of its own.
        let mut alone = self.rows.iter().filter_map(|r| r.session).max().map_or(0, |s| s.saturating_add(1));
        for row in self.rows {
            out.arrival_ps.push(to_ps(row.at.since(base)));
            out.isl.push(row.isl as u32);
            out.osl.push(row.osl as u32);
            if prefixes {
                out.prefix.push(row.prefix.min(row.isl - 1) as u32);
            }
            if sessions {
                out.session.push(row.session.unwrap_or(alone));
                alone = alone.saturating_add(u32::from(row.session.is_none()));
            }
            if blocks {
                out.hashes.extend(row.blocks);
                let Ok(end) = u32::try_from(out.hashes.len()) else {
                    return Err(Error::data(self.place, "names more than 2^32 blocks: split it"));
                };
                out.hash_offsets.push(end);
            }
        }
        Ok(Trace { requests: out, source: self.place, skipped: self.skipped, notes: self.notes })
    }
}

/// Sessions by any name, numbered as they come; small whole numbers keep theirs.
#[derive(Default)]
pub(super) struct Sessions {
    known: HashMap<String, u32>,
    own: Vec<Option<u32>>,
    /// Bailian: the session of a chat.
    chats: HashMap<String, u32>,
}

impl Sessions {
    pub fn number(&mut self, cell: &Value) -> Option<u32> {
        let name = said(cell)?;
        let next = self.own.len() as u32;
        Some(*self.known.entry(name).or_insert_with_key(|name| {
            self.own.push(name.parse().ok());
            next
        }))
    }

    /// The session that a chat goes on with.
    pub fn chat(&mut self, chat: &Value, parent: &Value) -> Option<u32> {
        let name = said(chat)?;
        let before = said(parent).and_then(|p| self.chats.get(&p).copied());
        let session = match before {
            Some(s) => s,
            None => self.number(chat)?,
        };
        self.chats.insert(name, session);
        Some(session)
    }

    /// Gives the rows their own numbers back where all sessions have one.
    pub fn restore(&self, rows: &mut [TraceRow]) {
        if let Some(own) = self.own.iter().copied().collect::<Option<Vec<u32>>>()
            && own.iter().collect::<HashSet<_>>().len() == own.len()
        {
            rows.iter_mut().filter_map(|r| r.session.as_mut()).for_each(|s| *s = own[*s as usize]);
        }
    }
}

/// Names of requests, to find those that a file holds twice.
#[derive(Default)]
pub(super) struct Names {
    first: HashMap<String, usize>,
    /// Of each row: the line of the one that had its name before.
    before: Vec<Option<usize>>,
}

impl Names {
    pub fn add(&mut self, line: usize, name: Option<String>) {
        let before = name.and_then(|name| match self.first.entry(name) {
            Entry::Occupied(e) => Some(*e.get()),
            Entry::Vacant(e) => {
                e.insert(line);
                None
            }
        });
        self.before.push(before);
    }

    /// Refuses the rows that come again, if the names are of requests: most of them come once.
    pub fn once(self, reader: &mut Reader) -> Result<()> {
        let again = self.before.iter().flatten().count();
        if again == 0 || 2 * self.first.len() <= self.before.len() {
            return Ok(());
        }
        let mut before = self.before.into_iter();
        reader.sift(|_| before.next().flatten().map(|line| format!("is the request of line {line} once more")))
    }
}

pub(super) fn said(cell: &Value) -> Option<String> {
    match cell {
        Value::Null => None,
        Value::String(s) if s.trim().is_empty() => None,
        Value::String(s) => Some(s.trim().to_string()),
        other => Some(other.to_string()),
    }
}
