//! The clock and the event loop: arrivals, KV transfers and step boundaries in order of time.
//!
//! At equal times arrivals and transfers come first, first in first out, then boundaries by instance.
//! A run of decode steps is one event. What arrives meanwhile cuts the run at its next boundary,
//! if it can be let in at all: nothing else could change what the steps do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::deployment::{Deployment, Role};
use super::itl::{Largest, Log};
use super::kv::{Cache, Kv};
use super::outcome::{NEVER, Outcome, Status, Usage};
use super::policy::{self, Policy};
use super::price::Pricer;
use super::request::Requests;
use super::route;
use super::settings::Settings;
use super::state::{Group, Instance, NONE, Port, Seq};
use crate::control::Control;
use crate::error::{Problems, Result};

/// What happens; the order of kinds is the order at equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A request of a closed loop is sent.
    Sent(u32),
    /// Blocks of the shared tier are there (request, life).
    Fetched(u32, u32),
    /// A request's KV has arrived at decode.
    Arrived(u32),
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
    pub ports: Vec<Port>,
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
    /// Gaps of earlier lives of preempted requests.
    pub stalls: BTreeMap<u32, Vec<(u64, u32)>>,
    heap: BinaryHeap<Reverse<(u64, u8, u64, Event)>>,
    tie: u64,
    /// Next request of the list, and in a closed loop the next one that a user sends after another.
    next: u32,
    next_of_users: u32,
    in_system: u64,
    last_change_ps: u64,
    ended: u64,
}

/// Prices of the pools of a deployment, to be shared by runs that differ in requests and settings.
pub fn pricers(deployment: &Deployment) -> Vec<Arc<Pricer>> {
    deployment.pools.iter().map(|p| Arc::new(Pricer::new(p))).collect()
}

fn check(deployment: &Deployment, requests: &Requests, settings: &Settings) -> Result<()> {
    let mut p = Problems::new();
    p.nest("trace", requests.check());
    p.nest("settings", settings.check());
    for (i, pool) in deployment.pools.iter().enumerate() {
        if pool.count == 0 || pool.ranks == 0 || pool.max_seqs == 0 || pool.budget == 0 {
            p.push(format!("plan.pool[{i}]"), "has no instance, rank, seat or token budget", "at least one of each");
        }
    }
    if deployment.pools.iter().any(|p| p.role == Role::Prefill)
        && !deployment.pools.iter().any(|p| p.role == Role::Decode)
    {
        p.push("plan", "has prefill and no decode", "add decode instances");
    }
    p.into_result()
}

/// Replays `requests` through `deployment`.
///
/// # Errors
/// What is wrong with the requests or settings, or `Cancelled`.
pub fn simulate(
    deployment: &Deployment,
    requests: &Requests,
    settings: &Settings,
    control: &Control,
) -> Result<Outcome> {
    simulate_with(&pricers(deployment), deployment, requests, settings, control)
}

/// [`simulate`] with the prices of earlier runs of the same deployment.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_with(
    pricers: &[Arc<Pricer>],
    deployment: &Deployment,
    requests: &Requests,
    settings: &Settings,
    control: &Control,
) -> Result<Outcome> {
    check(deployment, requests, settings)?;
    control.set_total(requests.len() as u64);
    let mut world = World::new(pricers, deployment, requests, settings);
    world.play(control)?;
    Ok(world.close())
}

impl<'a> World<'a> {
    fn new(pricers: &'a [Arc<Pricer>], deployment: &'a Deployment, requests: &'a Requests, set: &'a Settings) -> Self {
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
                    run: None,
                    ticket: 0,
                    scheduled: false,
                    ends: BinaryHeap::new(),
                    groups: vec![Group::default(); (pool.ranks * pool.microbatches) as usize],
                    pieces: Vec::new(),
                    decoding: 0,
                    extra: 0,
                    log: Log::default(),
                    usage: Usage { pool: pool.role as u32, gpus: pool.gpus, ..Usage::default() },
                });
                let capacity = set.kv_blocks.unwrap_or(pool.kv_tokens / u64::from(block));
                for _ in 0..pool.ranks {
                    ports.push(Port {
                        instance: number,
                        waiting: BinaryHeap::new(),
                        prefilling: VecDeque::new(),
                        running: Vec::new(),
                        joining: Vec::new(),
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
            tier: (named && set.shared_tier.is_some()).then(|| Cache::new(set.ttl_ps)),
            tier_free_ps: 0,
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

    pub fn push(&mut self, at: u64, event: Event) {
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
    pub fn comes_now(&self) -> bool {
        self.heap.peek().is_some_and(|Reverse((at, class, ..))| *at == self.now && *class == 0)
    }

    fn play(&mut self, control: &Control) -> Result<()> {
        let n = self.requests.len() as u32;
        let listed = self.requests.closed.map_or(n, |c| c.users.min(n));
        let stop = self.settings.stop_ps.unwrap_or(NEVER);
        let mut told = 0;
        loop {
            if self.out.events & 0xff == 0 {
                control.check()?;
                control.advance(self.ended - told);
                told = self.ended;
            }
            let arrival = if self.next < listed { self.requests.arrival_ps[self.next as usize] } else { NEVER };
            let queued = self.heap.peek().map_or(NEVER, |Reverse((at, ..))| *at);
            let at = arrival.min(queued);
            if at == NEVER || at > stop {
                break;
            }
            self.now = at;
            self.out.events += 1;
            if arrival <= queued {
                let request = self.next;
                self.next += 1;
                self.arrive(request);
                continue;
            }
            let Some(Reverse((_, _, _, event))) = self.heap.pop() else { break };
            match event {
                Event::Sent(request) => self.arrive(request),
                Event::Fetched(request, life) => self.fetched(request, life),
                Event::Arrived(request) => self.kv_arrived(request),
                Event::Boundary(i, ticket) if self.instances[i as usize].ticket == ticket => self.boundary(i),
                // Overtaken: the run was cut, or the boundary came with another event.
                Event::Boundary(..) => self.out.events -= 1,
            }
        }
        if self.settings.stop_ps.is_some() && (self.ended as usize) < self.requests.len() {
            self.now = stop;
        }
        control.advance(self.ended - told);
        Ok(())
    }

    fn close(mut self) -> Outcome {
        self.count(0);
        self.out.end_ps = self.now;
        self.out.usage = self.instances.iter().map(|i| i.usage).collect();
        self.out
    }

    /// The number in the system changes by `change` now.
    fn count(&mut self, change: i64) {
        self.out.in_system_ps += u128::from(self.in_system) * u128::from(self.now - self.last_change_ps);
        self.last_change_ps = self.now;
        self.in_system = self.in_system.wrapping_add_signed(change);
    }

    fn arrive(&mut self, request: u32) {
        let r = request as usize;
        self.out.arrival_ps[r] = self.now;
        self.count(1);
        if !self.can_ever_fit(r) {
            self.out.status[r] = Status::Rejected;
            self.leave(request);
            return;
        }
        let port = route::choose(self, 0, request);
        self.hand_to(request, port);
        self.seqs[r].need = if self.deployment.pools[0].role == Role::Decode {
            // No prefill anywhere: the prompt's KV comes with the request.
            0
        } else {
            self.requests.isl[r]
        };
        let key = self.key(request);
        self.enqueue(port, key);
        self.poke_for(port, key);
    }

    /// The request is in the hands of `port` from now on.
    pub fn hand_to(&mut self, request: u32, port: u32) {
        let r = request as usize;
        self.seqs[r].port = port;
        let p = &mut self.ports[port as usize];
        p.load += 1;
        p.tokens += u64::from(self.requests.isl[r]) + u64::from(self.requests.osl[r]);
    }

    pub fn out_of_hand(&mut self, request: u32, port: u32) {
        let r = request as usize;
        let p = &mut self.ports[port as usize];
        p.load -= 1;
        p.tokens -= u64::from(self.requests.isl[r]) + u64::from(self.requests.osl[r]);
    }

    /// Order in a queue: priority, then arrival.
    pub fn key(&self, request: u32) -> u64 {
        let priority = self.requests.priority.get(request as usize).copied().unwrap_or(0);
        u64::from(priority) << 32 | u64::from(request)
    }

    fn can_ever_fit(&self, r: usize) -> bool {
        let isl = u64::from(self.requests.isl[r]);
        let whole = isl + u64::from(self.requests.osl[r]);
        self.pool_ports.iter().zip(&self.deployment.pools).all(|(range, pool)| {
            let kv = &self.ports[range.start as usize].kv;
            let tokens = if pool.role == Role::Prefill { isl } else { whole };
            kv.blocks(tokens) <= kv.capacity
        })
    }

    /// A request leaves the system: in a closed loop its user thinks and sends the next one.
    fn leave(&mut self, _request: u32) {
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
    pub fn finish(&mut self, request: u32, instance: u32) {
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
