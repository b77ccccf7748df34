//! The clock and the event loop: arrivals, KV transfers and step boundaries in order of time.
//!
//! At equal times arrivals and transfers come first, first in first out, then boundaries by instance.
//! A run of decode steps is one event. What arrives meanwhile cuts the run at its next boundary,
//! if it can be let in at all: nothing else could change what the steps do.
//!
//! Limit: instances do not fail, and nothing is added or taken away while requests are under way.

use std::cmp::Reverse;
use std::sync::Arc;

use super::deployment::Deployment;
use super::outcome::{NEVER, Outcome, Status};
use super::price::Pricer;
use super::request::Requests;
use super::route;
use super::settings::Settings;
use super::world::{Event, World};
use crate::control::Control;
use crate::error::{Problems, Result};
use crate::spec::Role;

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
    if deployment.pools.iter().any(|p| p.role == Role::Prompts)
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
                Event::Received(request) => self.received(request),
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
        let front = &self.deployment.front;
        let own = front.request_ps + front.token_ps * f64::from(self.requests.isl[r]);
        let p = &mut self.ports[port as usize];
        let through = p.front_free_ps.max(self.now) + own.round() as u64;
        p.front_free_ps = through;
        let at = through + front.router_ps.round() as u64;
        if at > self.now { self.push(at, Event::Received(request)) } else { self.received(request) }
    }

    /// A request is at its instance: one that is at work sees it when it next looks.
    fn received(&mut self, request: u32) {
        let port = self.seqs[request as usize].port;
        let key = self.key(request);
        let inst = &self.instances[self.ports[port as usize].instance as usize];
        if inst.run.is_some() && self.deployment.pools[inst.pool as usize].intake.waits() {
            self.ports[port as usize].arriving.push(key);
            self.poke(port);
        } else {
            self.enqueue(port, key);
            self.poke_for(port, key);
        }
    }

    fn can_ever_fit(&self, r: usize) -> bool {
        let isl = u64::from(self.requests.isl[r]);
        let whole = isl + u64::from(self.requests.osl[r]);
        self.pool_ports.iter().zip(&self.deployment.pools).all(|(range, pool)| {
            let kv = &self.ports[range.start as usize].kv;
            let tokens = if pool.role == Role::Prompts { isl } else { whole };
            kv.blocks(tokens) <= kv.capacity
        })
    }
}
