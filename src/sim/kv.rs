//! KV memory of one attention rank: blocks of running sequences, and named blocks that outlive them.
//!
//! A sequence with c tokens holds ceil(c / b) blocks. All decoding sequences grow by one token a
//! step, so the blocks they take in the next j steps follow from how many sequences stand at each
//! place within a block: no sequence is looked at. Named prompt blocks are shared; when the last
//! sequence lets go they stay, least recently used first out, until memory or time takes them. Blocks of answers
//! stay as well, tail first out as in vLLM (`KVCacheManager.free` frees in reverse), and so push others out.
//!
//! Limit: whole named blocks of one size; what a host or disk tier holds is `shared_tier`'s, with one link.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Multiplicative hash of an integer key: the map is only looked up, never walked.
#[derive(Clone, Copy, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, x: u64) {
        // Finaliser of splitmix64 (Steele, Lea, Flood 2014).
        let mut z = (self.0 ^ x).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ (z >> 31);
    }
}

pub type Map<V> = HashMap<u64, V, BuildHasherDefault<Mix>>;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    /// None: blocks that nobody will ask for by name, which take their turn all the same.
    name: Option<u64>,
    users: u32,
    /// KV blocks.
    weight: u64,
    before: u32,
    after: u32,
    used_ps: u64,
}

/// Named blocks, the idle ones in order of last use; what is idle is counted in KV blocks.
#[derive(Default)]
pub struct Cache {
    /// KV blocks of a named one.
    per_name: u64,
    map: Map<u32>,
    entries: Vec<Entry>,
    spare: Vec<u32>,
    oldest: Option<u32>,
    newest: Option<u32>,
    idle: u64,
    pinned: u64,
    ttl_ps: Option<u64>,
}

impl Cache {
    pub fn new(ttl_ps: Option<u64>, per_name: u64) -> Cache {
        Cache { ttl_ps, per_name, ..Cache::default() }
    }

    pub fn idle(&self) -> u64 {
        self.idle
    }

    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Leading blocks of `names` that are here.
    pub fn leading(&self, names: &[u64], now: u64) -> usize {
        names
            .iter()
            .take_while(|name| {
                self.map.get(name).is_some_and(|slot| {
                    let e = &self.entries[*slot as usize];
                    e.users > 0 || self.ttl_ps.is_none_or(|ttl| now.saturating_sub(e.used_ps) <= ttl)
                })
            })
            .count()
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { before, after, weight, .. } = self.entries[slot as usize];
        match before {
            NONE => self.oldest = (after != NONE).then_some(after),
            b => self.entries[b as usize].after = after,
        }
        match after {
            NONE => self.newest = (before != NONE).then_some(before),
            a => self.entries[a as usize].before = before,
        }
        self.idle -= weight;
    }

    fn append(&mut self, slot: u32, now: u64) {
        let before = self.newest.unwrap_or(NONE);
        let e = &mut self.entries[slot as usize];
        self.idle += e.weight;
        (e.before, e.after, e.used_ps) = (before, NONE, now);
        match before {
            NONE => self.oldest = Some(slot),
            b => self.entries[b as usize].after = slot,
        }
        self.newest = Some(slot);
    }

    fn put(&mut self, name: Option<u64>, users: u32, weight: u64) -> u32 {
        let entry = Entry { name, users, weight, before: NONE, after: NONE, used_ps: 0 };
        match self.spare.pop() {
            Some(s) => {
                self.entries[s as usize] = entry;
                s
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        }
    }

    /// KV blocks of an answer, or of a prompt's unnamed end, are let go: they keep their contents until their turn comes.
    pub(crate) fn leave(&mut self, blocks: u64, now: u64) {
        match self.newest.map(|slot| &mut self.entries[slot as usize]).filter(|e| e.name.is_none()) {
            _ if blocks == 0 => {}
            Some(last) => {
                last.weight += blocks;
                self.idle += blocks;
            }
            None => {
                let slot = self.put(None, 0, blocks);
                self.append(slot, now);
            }
        }
    }

    /// Holds each of `names`; those not here are made. Returns how many were made.
    pub fn pin(&mut self, names: &[u64]) -> u64 {
        let mut made = 0;
        for name in names {
            if let Some(&slot) = self.map.get(name) {
                if self.entries[slot as usize].users == 0 {
                    self.unlink(slot);
                    self.pinned += 1;
                }
                self.entries[slot as usize].users += 1;
                continue;
            }
            let slot = self.put(Some(*name), 1, self.per_name);
            self.map.insert(*name, slot);
            self.pinned += 1;
            made += 1;
        }
        made
    }

    /// Lets go of each of `names`, the tail first: the head of a prompt is the more likely to return.
    pub fn unpin(&mut self, names: &[u64], now: u64) {
        for name in names.iter().rev() {
            if let Some(&slot) = self.map.get(name) {
                let e = &mut self.entries[slot as usize];
                e.users -= 1;
                if e.users == 0 {
                    self.pinned -= 1;
                    self.append(slot, now);
                }
            }
        }
    }

    /// Forgets the least recently used idle blocks until at most `most` KV blocks are idle.
    pub fn shrink(&mut self, most: u64) {
        while self.idle > most {
            let Some(slot) = self.oldest else { return };
            let e = &mut self.entries[slot as usize];
            let excess = self.idle - most;
            match e.name {
                None if e.weight > excess => {
                    e.weight -= excess;
                    self.idle -= excess;
                    return;
                }
                None => {}
                Some(name) => {
                    self.map.remove(&name);
                }
            }
            self.unlink(slot);
            self.spare.push(slot);
        }
    }
}

/// Blocks of one rank.
pub struct Kv {
    /// Tokens of a block, and KV blocks of one named block.
    pub block: u32,
    pub per_name: u64,
    pub capacity: u64,
    /// Blocks that belong to one sequence each.
    private: u64,
    pub cache: Cache,
    /// Decoding sequences by (tokens - steps) modulo the block.
    places: Vec<u32>,
    decoding: u64,
}

impl Kv {
    pub fn new(capacity: u64, block: u32, block_tokens: u32, ttl_ps: Option<u64>) -> Kv {
        let per_name = u64::from((block_tokens / block).max(1));
        Kv {
            block,
            per_name,
            capacity,
            private: 0,
            cache: Cache::new(ttl_ps, per_name),
            places: vec![0; block as usize],
            decoding: 0,
        }
    }

    pub(crate) fn blocks(&self, tokens: u64) -> u64 {
        tokens.div_ceil(u64::from(self.block))
    }

    /// Blocks that sequences hold.
    pub(crate) fn held(&self) -> u64 {
        self.private + self.cache.pinned() * self.per_name
    }

    pub(crate) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.held())
    }

    pub(crate) fn over(&self) -> bool {
        self.held() > self.capacity
    }

    pub fn take(&mut self, blocks: u64) {
        self.private += blocks;
        self.settle();
    }

    pub(crate) fn give(&mut self, blocks: u64) {
        self.private -= blocks;
    }

    /// Gives blocks back; with named ones about, their contents stay until their turn comes, as a server's do.
    pub(crate) fn let_go(&mut self, blocks: u64, named: bool, now: u64) {
        self.private -= blocks;
        if named {
            self.cache.leave(blocks, now);
        }
    }

    /// Idle cached blocks make way for held ones.
    pub(crate) fn settle(&mut self) {
        let room = self.free();
        if self.cache.idle() > room {
            self.cache.shrink(room);
        }
    }

    fn place(&self, tokens: u64, step: u32) -> usize {
        let b = u64::from(self.block);
        ((tokens % b + b - u64::from(step) % b) % b) as usize
    }

    /// A sequence with `tokens` starts to grow at `step`.
    pub fn join(&mut self, tokens: u64, step: u32) {
        let place = self.place(tokens, step);
        self.places[place] += 1;
        self.decoding += 1;
    }

    pub(crate) fn leave(&mut self, tokens: u64, step: u32) {
        let place = self.place(tokens, step);
        self.places[place] -= 1;
        self.decoding -= 1;
    }

    /// New blocks of step `step` to `step + 1`: sequences whose blocks are full.
    fn grown_at(&self, step: u32) -> u64 {
        let b = self.block;
        u64::from(self.places[((b - step % b) % b) as usize])
    }

    /// Blocks that `j` steps from `step` on take.
    pub fn growth(&self, step: u32, j: u32) -> u64 {
        let (rounds, rest) = (u64::from(j / self.block), j % self.block);
        rounds * self.decoding + (0..rest).map(|i| self.grown_at(step.wrapping_add(i))).sum::<u64>()
    }

    /// How many of `most` steps from `step` on can start: the blocks of a step are there before it.
    pub fn steps_that_fit(&self, step: u32, most: u32) -> u32 {
        let free = self.free();
        let b = self.block;
        if (u64::from(most / b) + 1) * self.decoding <= free {
            return most;
        }
        let mut taken = 0;
        let mut i = 1;
        // Whole rounds first, then step by step.
        if let Some(rounds) = free.checked_div(self.decoding) {
            let rounds = rounds.saturating_sub(1).min(u64::from((most - 1) / b)) as u32;
            taken = u64::from(rounds) * self.decoding;
            i += rounds * b;
        }
        while i < most {
            taken += self.grown_at(step.wrapping_add(i - 1));
            if taken > free {
                return i;
            }
            i += 1;
        }
        most
    }

    /// Whether `steps` more steps and `blocks` more blocks surely leave everything as it is, cached blocks too.
    pub(crate) fn roomy(&self, steps: u32, blocks: u64) -> bool {
        let growth = (u64::from(steps / self.block) + 1) * self.decoding;
        growth == 0 || self.held() + self.cache.idle() + growth + blocks <= self.capacity
    }

    /// Takes the blocks of `j` steps.
    pub(crate) fn grow(&mut self, step: u32, j: u32) {
        let more = self.growth(step, j);
        if more > 0 {
            self.take(more);
        }
    }
}
