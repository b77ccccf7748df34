//! Everything of one simulation: who waits where, what is to come, what has come out.
//!
//! Limit: one deployment; events at the same picosecond are ordered by kind, then first in first out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::deployment::Deployment;
use super::itl::{Largest, Log};
use super::kv::{Cache, Kv};
use super::outcome::{NEVER, Outcome, Status, Usage};
use super::policy::{self, Policy};
use super::price::Pricer;
use super::request::Requests;
use super::settings::Settings;
use super::state::{Group, Instance, NONE, Rank, Seq};

/// What happens; the order of kinds is the order at equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A request of a closed loop is sent.
    Sent(u32),
    /// Blocks of the shared tier are there (request, life).
    Fetched(u32, u32),
    /// A request's KV has arrived at decode.
    Arrived(u32),
    /// A request is through the API server.
    Received(u32),
    /// An instance stands between two steps (instance, ticket).
    Boundary(u32, u32),
}

impl Event {
    fn class(self) -> u8 {
        u8::from(matches!(self, Event::Boundary(..)))
    }
}

/// Everything of one simulation.
pub struct World<'a> {
    pub requests: &'a Requests,
    pub settings: &'a Settings,
    pub deployment: &'a Deployment,
    pub policy: &'static dyn Policy,
    pub pricers: &'a [Arc<Pricer>],
    pub instances: Vec<Instance>,
    pub ports: Vec<Rank>,
    /// Ports of each pool.
    pub pool_ports: Vec<std::ops::Range<u32>>,
    pub seqs: Vec<Seq>,
    pub now: u64,
    pub out: Outcome,
    pub turns: Vec<u32>,
    pub sticky: BTreeMap<u32, u32>,
    /// Shared tier: its blocks, and when its link is free.
    pub tier: Option<Cache>,
    pub tier_free_ps: u64,
    /// Whether prompt blocks are named and reused.
    pub named: bool,
    /// Gaps of earlier lives of preempted requests.
    pub stalls: BTreeMap<u32, Vec<(u64, u32)>>,
    pub(super) heap: BinaryHeap<Reverse<(u64, u8, u64, Event)>>,
    pub(super) tie: u64,
    /// Next request of the list, and in a closed loop the next one that a user sends after another.
    pub(super) next: u32,
    pub(super) next_of_users: u32,
    pub(super) in_system: u64,
    pub(super) last_change_ps: u64,
    pub(super) ended: u64,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        pricers: &'a [Arc<Pricer>],
        deployment: &'a Deployment,
        requests: &'a Requests,
        set: &'a Settings,
    ) -> Self {
        let n = requests.len();
        let named = set.prefix_cache && !requests.hashes.is_empty();
        // A named block is at least one KV block.
        let block = if named { set.kv_block_tokens.min(requests.block_tokens) } else { set.kv_block_tokens };
        let (mut instances, mut ports, mut pool_ports) = (Vec::new(), Vec::new(), Vec::new());
        for (i, pool) in deployment.pools.iter().enumerate() {
            let first = ports.len() as u32;
            for _ in 0..pool.count {
                let number = instances.len() as u32;
                instances.push(Instance {
                    pool: i as u32,
                    first_port: ports.len() as u32,
                    ranks: pool.ranks,
                    clock: 0,
                    step: 0,
                    rounds: 0,
                    since_look: 0,
                    held: 0,
                    fresh: false,
                    run: None,
                    ticket: 0,
                    scheduled: false,
                    ends: BinaryHeap::new(),
                    groups: vec![Group::default(); (pool.ranks * pool.microbatches) as usize],
                    pieces: Vec::new(),
                    decoding: 0,
                    extra: 0,
                    log: Log::default(),
                    usage: Usage { role: pool.role, gpus: pool.gpus, ..Usage::default() },
                });
                let capacity = set.kv_blocks.unwrap_or(pool.kv_tokens / u64::from(block));
                for _ in 0..pool.ranks {
                    ports.push(Rank {
                        instance: number,
                        waiting: BinaryHeap::new(),
                        prefilling: VecDeque::new(),
                        running: Vec::new(),
                        joining: Vec::new(),
                        arriving: Vec::new(),
                        front_free_ps: 0,
                        kv: Kv::new(capacity, block, if named { requests.block_tokens } else { block }, set.ttl_ps),
                        seats: 0,
                        load: 0,
                        tokens: 0,
                        remaining: 0,
                        blocked: false,
                        link_free_ps: 0,
                    });
                }
            }
            pool_ports.push(first..ports.len() as u32);
        }
        let out = Outcome {
            arrival_ps: vec![NEVER; n],
            first_token_ps: vec![NEVER; n],
            finish_ps: vec![NEVER; n],
            itl_p99_ps: vec![0; n],
            itl_max_ps: vec![0; n],
            prefix_hit_tokens: vec![0; n],
            instance: vec![u32::MAX; n],
            status: vec![Status::Unfinished; n],
            preemptions: vec![0; n],
            ..Outcome::default()
        };
        World {
            requests,
            settings: set,
            deployment,
            policy: policy::of(set.scheduler),
            pricers,
            instances,
            ports,
            turns: vec![0; pool_ports.len()],
            pool_ports,
            seqs: vec![Seq::new(); n],
            now: 0,
            out,
            sticky: BTreeMap::new(),
            tier: (named && set.shared_tier.is_some()).then(|| Cache::new(set.ttl_ps, 1)),
            tier_free_ps: 0,
            named,
            stalls: BTreeMap::new(),
            heap: BinaryHeap::new(),
            tie: 0,
            next: 0,
            next_of_users: requests.closed.map_or(n as u32, |c| c.users.min(n as u32)),
            in_system: 0,
            last_change_ps: 0,
            ended: 0,
        }
    }

    pub(crate) fn push(&mut self, at: u64, event: Event) {
        // Boundaries go by instance: when they were announced depends on how runs were cut.
        let tie = if let Event::Boundary(i, _) = event {
            u64::from(i)
        } else {
            self.tie += 1;
            self.tie
        };
        self.heap.push(Reverse((at, event.class(), tie, event)));
    }

    /// Whether something other than a boundary happens at this very time.
    pub(crate) fn comes_now(&self) -> bool {
        self.heap.peek().is_some_and(|Reverse((at, class, ..))| *at == self.now && *class == 0)
    }

    /// The request is in the hands of `port` from now on.
    pub(crate) fn hand_to(&mut self, request: u32, port: u32) {
        let r = request as usize;
        self.seqs[r].port = port;
        let p = &mut self.ports[port as usize];
        p.load += 1;
        p.tokens += u64::from(self.requests.isl[r]) + u64::from(self.requests.osl[r]);
    }

    pub(crate) fn out_of_hand(&mut self, request: u32, port: u32) {
        let r = request as usize;
        let p = &mut self.ports[port as usize];
        p.load -= 1;
        p.tokens -= u64::from(self.requests.isl[r]) + u64::from(self.requests.osl[r]);
    }

    /// Order in a queue: priority, then arrival.
    pub(crate) fn key(&self, request: u32) -> u64 {
        let priority = self.requests.priority.get(request as usize).copied().unwrap_or(0);
        u64::from(priority) << 32 | u64::from(request)
    }

    /// The number in the system changes by `change` now.
    pub(crate) fn count(&mut self, change: i64) {
        self.out.in_system_ps += u128::from(self.in_system) * u128::from(self.now - self.last_change_ps);
        self.last_change_ps = self.now;
        self.in_system = self.in_system.wrapping_add_signed(change);
    }

    /// Full named blocks of a prompt that may be reused.
    pub(crate) fn names(&self, r: usize) -> &'a [u64] {
        if !self.settings.prefix_cache || self.requests.hashes.is_empty() {
            return &[];
        }
        let names = self.requests.blocks(r);
        let full = (self.requests.isl[r] / self.requests.block_tokens) as usize;
        &names[..full.min(names.len())]
    }

    /// A request leaves the system: in a closed loop its user thinks and sends the next one.
    pub(crate) fn leave(&mut self, _request: u32) {
        self.count(-1);
        self.ended += 1;
        if let Some(closed) = self.requests.closed {
            let next = self.next_of_users;
            if (next as usize) < self.requests.len() {
                self.next_of_users += 1;
                self.push(self.now.saturating_add(closed.think_ps), Event::Sent(next));
            }
        }
    }

    /// The answer is complete; `step` is the decode step that ended it (none: prefill did).
    pub(crate) fn finish(&mut self, request: u32, instance: u32) {
        let r = request as usize;
        let osl = self.requests.osl[r];
        self.out.status[r] = Status::Finished;
        self.out.finish_ps[r] = self.now;
        self.out.instance[r] = instance;
        if osl > 1 {
            let mut largest = Largest::of(osl - 1);
            if let Some(earlier) = self.stalls.remove(&request) {
                earlier.iter().for_each(|(ps, count)| largest.add(*ps, *count));
            }
            let s = &self.seqs[r];
            if s.join != s.finish {
                self.instances[instance as usize].log.collect(s.join, s.finish, s.lag_ps, &mut largest);
            }
            self.out.itl_p99_ps[r] = largest.p99();
            self.out.itl_max_ps[r] = largest.max();
        }
        let port = self.seqs[r].port;
        self.out_of_hand(request, port);
        self.seqs[r].port = NONE;
        self.leave(request);
    }
}
