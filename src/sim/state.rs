//! The state of a simulation: requests under way, attention ranks, instances.
//!
//! Limit: times are whole picoseconds and ranks are numbered once; nothing here knows names of servers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::deployment::PARTS;
use super::itl::Log;
use super::kv::Kv;
use super::outcome::Usage;
use super::price::Steps;

/// No port, no group.
pub const NONE: u32 = u32::MAX;

/// One request under way.
#[derive(Clone, Copy, Debug)]
pub struct Seq {
    /// Rank it is on (P/D: the one that holds its seat now).
    pub port: u32,
    /// Rank that still holds its prompt's KV while it waits for decode.
    pub source: u32,
    /// Index among the running of its rank.
    pub place: u32,
    pub group: u32,
    /// Decode steps of the instance when it joined, and when it is done.
    pub join: u32,
    pub finish: u32,
    /// Context of the first decode step, in parts of a token.
    pub base: u64,
    /// Tokens whose KV must be there before it decodes, and how many are.
    pub need: u32,
    pub done: u32,
    /// Tokens that its blocks hold while its prompt is computed.
    pub covered: u32,
    /// Answer tokens written when it joined.
    pub written: u32,
    /// Named blocks that it holds.
    pub named: u32,
    /// Counts preemptions: events of an earlier life are stale.
    pub life: u32,
    pub swapped: bool,
    /// Its KV is gone from where it decoded: it is computed again there, and comes by no wire.
    pub again: bool,
    /// First token after the instance's last decode step (0 if in one).
    pub lag_ps: u64,
    pub prefill_start_ps: u64,
    pub last_token_ps: u64,
    /// Decode step from which it may join, once decode knows of its KV.
    pub due: Option<u32>,
}

impl Seq {
    pub(crate) fn new() -> Seq {
        Seq {
            port: NONE,
            source: NONE,
            place: NONE,
            group: NONE,
            join: 0,
            finish: 0,
            base: 0,
            need: 0,
            done: 0,
            covered: 0,
            written: 0,
            named: 0,
            life: 0,
            swapped: false,
            again: false,
            lag_ps: 0,
            prefill_start_ps: 0,
            last_token_ps: 0,
            due: None,
        }
    }

    /// Tokens of a decoding sequence at decode step `step`, the one being written included.
    pub(crate) fn context(&self, step: u32, grow: u64) -> u64 {
        (self.base + u64::from(step - self.join) * grow) / PARTS
    }
}

/// One attention rank: a queue, KV, and the sequences on it.
pub struct Rank {
    pub instance: u32,
    /// (priority, number) as one key, smallest first.
    pub waiting: BinaryHeap<Reverse<u64>>,
    pub prefilling: VecDeque<u32>,
    pub running: Vec<u32>,
    pub joining: Vec<u32>,
    /// What has come and was not looked at yet.
    pub arriving: Vec<u64>,
    /// Its API server is taken until then.
    pub front_free_ps: u64,
    pub kv: Kv,
    /// Sequences let in: prefilling, fetching, on the wire to here, running.
    pub seats: u32,
    /// Requests in hand, and their tokens.
    pub load: u32,
    pub tokens: u64,
    /// Answer tokens still to be written by those let in.
    pub remaining: u64,
    /// The head of the queue did not fit, and nothing has ended since that could make room.
    pub blocked: bool,
    /// Its links are taken until then.
    pub link_free_ps: u64,
}

/// Sequences of one micro-batch on one rank, and their KV in parts of a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    pub n: u32,
    pub context: u64,
}

/// A prompt piece in the step under way.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub request: u32,
    pub tokens: u32,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub steps: Steps,
    /// Whether the steps decode, and whether they carry prompt tokens.
    pub decodes: bool,
    pub prompts: bool,
    pub start_ps: u64,
    /// Steps whose KV growth is booked already.
    pub grown: u32,
}

pub struct Instance {
    pub pool: u32,
    pub first_port: u32,
    pub ranks: u32,
    /// Time of the last boundary, in fine units.
    pub clock: u128,
    /// Decode steps done.
    pub step: u32,
    /// Steps of any kind since the instance last had nothing to do: its place in the prefill cadence.
    pub rounds: u32,
    /// Decode steps since it last looked for requests, and steps since the first of those that it holds back.
    pub since_look: u32,
    pub held: u32,
    /// Whether requests were seen at the last boundary, too late for the step then scheduled.
    pub fresh: bool,
    pub run: Option<Run>,
    /// A boundary event is on its way with this ticket; others are stale.
    pub ticket: u32,
    pub scheduled: bool,
    /// (decode step, request, life): first tokens and ends.
    pub ends: BinaryHeap<Reverse<(u32, u32, u32)>>,
    /// `ranks` rows of micro-batches.
    pub groups: Vec<Group>,
    pub pieces: Vec<Piece>,
    pub decoding: u32,
    /// Time that swapping adds to the next step, fine units.
    pub extra: i64,
    pub log: Log,
    pub usage: Usage,
}
