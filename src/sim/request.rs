//! What arrives: one column a property, one row a request, in order of arrival.
//!
//! Limit: text tokens only; a request has one answer, of a length that is known beforehand to the simulator and to no
//! policy.

use serde::{Deserialize, Serialize};

use crate::error::Problems;

/// A closed loop: so many users, each with one request at a time and a pause after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub users: u32,
    pub think_ps: u64,
}

/// Requests in order of arrival. Columns that may be empty are empty when nothing is known.
///
/// In a closed loop the first `users` requests come at their own `arrival_ps`, every later one
/// when an answer has ended and its user has thought; its `arrival_ps` is not read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    pub arrival_ps: Vec<u64>,
    /// Tokens of the whole prompt, any cached prefix included.
    pub isl: Vec<u32>,
    /// Tokens of the answer.
    pub osl: Vec<u32>,
    /// Tokens of the prompt that are declared cached wherever the request goes (may be empty).
    pub prefix: Vec<u32>,
    /// Conversation of each request (may be empty).
    pub session: Vec<u32>,
    /// 0 is served first (may be empty).
    pub priority: Vec<u8>,
    /// Request i's prompt blocks are `hashes[hash_offsets[i]..hash_offsets[i + 1]]` (may be empty).
    pub hash_offsets: Vec<u32>,
    /// Names of prompt blocks: equal names, equal content, whatever came before included.
    pub hashes: Vec<u64>,
    /// Tokens of one named block.
    pub block_tokens: u32,
    pub closed: Option<Closed>,
}

impl Requests {
    pub fn len(&self) -> usize {
        self.arrival_ps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.arrival_ps.is_empty()
    }

    /// Names of the prompt blocks of request `i`.
    pub fn blocks(&self, i: usize) -> &[u64] {
        match (self.hash_offsets.get(i), self.hash_offsets.get(i + 1)) {
            (Some(&a), Some(&b)) => &self.hashes[a as usize..b as usize],
            _ => &[],
        }
    }

    /// Everything that is wrong; paths are relative to it, at most ten rows are named.
    pub fn check(&self) -> Problems {
        let mut p = Problems::new();
        let n = self.len();
        if n == 0 {
            p.push("requests", "is empty", "give at least one request");
            return p;
        }
        let optional =
            [("prefix", self.prefix.len()), ("session", self.session.len()), ("priority", self.priority.len())];
        let needed = [("isl", self.isl.len()), ("osl", self.osl.len())];
        for (name, len) in needed.into_iter().chain(optional.into_iter().filter(|(_, len)| *len > 0)) {
            if len != n {
                p.push(name, format!("has {len} rows for {n} requests"), "one row a request");
            }
        }
        if !self.hash_offsets.is_empty() {
            let ends = self.hash_offsets.last().map_or(0, |e| *e as usize);
            if self.hash_offsets.len() != n + 1 || ends != self.hashes.len() || !self.hash_offsets.is_sorted() {
                p.push("hash_offsets", "do not delimit the hashes", "n + 1 rising offsets that end at their number");
            } else if self.block_tokens == 0 {
                p.push("block_tokens", "is 0", "tokens of one named block");
            }
        }
        if let Some(c) = self.closed
            && c.users == 0
        {
            p.push("users", "is 0", "at least one user");
        }
        if !p.is_empty() {
            return p;
        }
        let timed = self.closed.map_or(n, |c| n.min(c.users as usize));
        for i in 0..n {
            if i > 0 && i < timed && self.arrival_ps[i] < self.arrival_ps[i - 1] {
                p.push(format!("arrival[{i}]"), "is before the arrival ahead of it", "sort by arrival");
            }
            for (name, value) in [("isl", self.isl[i]), ("osl", self.osl[i])] {
                if value == 0 {
                    p.push(format!("{name}[{i}]"), "is 0", "at least one token");
                }
            }
            if p.0.len() >= 10 {
                break;
            }
        }
        p
    }
}
