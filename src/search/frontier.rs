//! What of one slot is worth pairing: the candidates that no other of their size, and no number of smaller ones, beats.
//!
//! A slot is judged by its rate and its latency (TTFT of a prompt, seconds of a decode step) among those of its
//! class: as large, with as many ways for KV, and pairing up with as many others under the rules of servers.
//! Limit: neighbours that gain less than `THINNING` are left out, and found again where pairs lead (`pairs`).

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::constants::slots::{SMALL_WAIT_S, THINNING};
use super::row::Layout;
use super::sides::{Candidate, Priced, PromptSide};
use super::task::Task;
use crate::error::Result;
use crate::serving::StepEngine;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::spec::Role;

impl Task<'_> {
    /// The prefill candidates that no other of their size beats on rate, latency and ways for KV.
    pub fn prefill_frontier(&self, found: &Priced<PromptSide>) -> Result<Vec<Candidate<PrefillSide>>> {
        let found = self.prefill_thinned(found, THINNING)?;
        not_of_smaller(found, 1.0, self.prefill_class(), |s| (s.prefill.latency_s, s.rate))
    }

    /// The same with every step of the frontier, however small.
    pub(crate) fn prefill_every(&self, found: &Priced<PromptSide>) -> Result<Vec<Candidate<PrefillSide>>> {
        self.prefill_thinned(found, 1.0)
    }

    /// Layouts and cuts of prompts within `slack` of the frontier's rate at their latency.
    pub(crate) fn prefill_near(&self, found: &Priced<PromptSide>, slack: f64) -> Result<Vec<(Layout, u32, u32)>> {
        let near = self.prefill_within(found, 1.0 - slack)?;
        let near = not_of_smaller(near, 1.0 - slack, self.prefill_class(), |s| (s.prefill.latency_s, s.rate))?;
        Ok(near.into_iter().map(|c| (c.layout, c.batch, c.chunk)).collect())
    }

    fn prefill_thinned(&self, found: &Priced<PromptSide>, least: f64) -> Result<Vec<Candidate<PrefillSide>>> {
        let mut out = self.prefill_within(found, least)?;
        out.iter_mut().for_each(|c| c.side = c.side.with_ports(&c.clock, &self.load));
        Ok(out)
    }

    fn prefill_within(&self, found: &Priced<PromptSide>, least: f64) -> Result<Vec<Candidate<PrefillSide>>> {
        let value = |(_, _, s): &PromptSide| (s.prefill.latency_s, s.rate);
        frontier(found, least, self.prefill_class(), value, |(batch, chunk, side)| (*batch, *chunk, *side))
    }

    /// The decode candidates that no other of their size beats on rate, step time and ways for KV.
    pub fn decode_frontier(&self, found: &Priced<DecodeSide>) -> Result<Vec<Candidate<DecodeSide>>> {
        let value = |s: &DecodeSide| (s.step.seconds, s.rate);
        let mut out = frontier(found, THINNING, self.decode_class(), value, |side| (side.batch as u32, 0, *side))?;
        out.iter_mut().for_each(|c| c.side = c.side.with_ports(&c.clock, &self.load));
        not_of_smaller(out, 1.0, self.decode_class(), value)
    }

    fn prefill_class(&self) -> impl Fn(&Layout, &StepEngine) -> Ways + Sync {
        |layout, clock| self.ways_of(layout, clock, Role::Prompts)
    }

    pub(super) fn decode_class(&self) -> impl Fn(&Layout, &StepEngine) -> Ways + Sync {
        |layout, clock| self.ways_of(layout, clock, Role::Decode)
    }

    fn ways_of(&self, layout: &Layout, s: &StepEngine, role: Role) -> Ways {
        let (lib, load) = (s.library(), &self.load);
        let bytes = lib.kv_bytes(load.ship_to_decode + load.ship_to_prefill);
        let nic = lib.cluster.fabric.nic_bytes_per_s;
        let links = if bytes / nic <= SMALL_WAIT_S { u32::MAX } else { s.kv_links() };
        let ample = if bytes > 0.0 { f64::from(s.kv_gpus()) * nic / bytes } else { f64::INFINITY };
        Ways { gpus: layout.gpus(), links, ports: s.kv_gpus(), ample, partners: self.partners(layout, role) }
    }
}

/// Without what as many smaller ones as fit into its GPUs do as well: a worker that gives no more than they, no sooner,
/// is in no better pair. `share`: of what they give; `value`: (cost, gain).
fn not_of_smaller<S: Clone + Send + Sync>(
    all: Vec<Candidate<S>>,
    share: f64,
    ways: impl Fn(&Layout, &StepEngine) -> Ways,
    value: impl Fn(&S) -> (f64, f64) + Sync,
) -> Result<Vec<Candidate<S>>> {
    let known: Vec<(Class, f64, f64)> = all
        .iter()
        .map(|c| {
            let (cost, gain) = value(&c.side);
            (ways(&c.layout, &c.clock).class(gain), cost, gain)
        })
        .collect();
    let stays = |i: usize| {
        let (own, cost, gain) = known[i];
        !known.iter().any(|(other, c, g)| {
            let n = own[0] / other[0];
            n > 1
                && *c <= cost
                && share * f64::from(n) * g >= gain
                && other[1] >= own[1]
                && other[2].saturating_mul(n) >= own[2]
                && other[3] & own[3] == own[3]
        })
    };
    let keep: Vec<bool> = crate::pool::install(|| (0..all.len()).into_par_iter().map(stays).collect())?;
    Ok(all.into_iter().zip(keep).filter(|(_, k)| *k).map(|(c, _)| c).collect())
}

/// What of a class is the same at every rate of a layout.
pub(super) struct Ways {
    gpus: u32,
    links: u32,
    ports: u32,
    /// Rate up to which the ports are ample.
    ample: f64,
    partners: u32,
}

impl Ways {
    /// Ways that are ample for what a candidate ships count as unlimited, so that it competes with all.
    pub(crate) fn class(&self, rate: f64) -> Class {
        [self.gpus, self.links, if rate <= self.ample { u32::MAX } else { self.ports }, self.partners]
    }
}

/// What pairing asks of a slot beside rate and latency: its size, how many GPUs move a sequence's KV
/// side by side, how many hold KV in all (the wire's ports), and which others it pairs up with.
pub type Class = [u32; 4];

/// Whether a slot of class `a` can stand in for one of class `b`: as large, no fewer ways for its KV, and whatever pairs
/// up with that pairs up with it.
fn covers(a: &Class, b: &Class) -> bool {
    a[0] == b[0] && a[1] >= b[1] && a[2] >= b[2] && a[3] & b[3] == b[3]
}

/// `value`: (cost, gain) of a priced side; `make`: its batch, chunk and side. `least`: what a step must gain over the
/// best so far; below one, what is beaten by less stands too.
fn frontier<T: Sync, S>(
    found: &Priced<T>,
    least: f64,
    ways: impl Fn(&Layout, &StepEngine) -> Ways + Sync,
    value: impl Fn(&T) -> (f64, f64) + Sync,
    make: impl Fn(&T) -> (u32, u32, S),
) -> Result<Vec<Candidate<S>>> {
    struct Side<'a, T> {
        class: Class,
        cost: f64,
        gain: f64,
        of: (usize, &'a T),
    }
    let parts: Result<Vec<Vec<Side<'_, T>>>> = crate::pool::install(|| {
        let of_layout = |i: usize| {
            let (layout, clock, sides) = &found[i];
            let ways = ways(layout, clock);
            let one = |side| {
                let (cost, gain) = value(side);
                Side { class: ways.class(gain), cost, gain, of: (i, side) }
            };
            sides.iter().map(one).collect()
        };
        (0..found.len()).into_par_iter().map(of_layout).collect()
    });
    let mut all: Vec<Side<'_, T>> = parts?.into_iter().flatten().collect();
    let mut top: BTreeMap<Class, f64> = BTreeMap::new();
    for side in &all {
        let g = top.entry(side.class).or_insert(0.0);
        *g = g.max(side.gain);
    }
    // Stable sort: ties keep the order of enumeration, so the answer does not depend on threads.
    let order = |a: &Side<'_, T>, b: &Side<'_, T>| {
        let size = a.class[0].cmp(&b.class[0]);
        size.then(a.cost.total_cmp(&b.cost)).then(b.gain.total_cmp(&a.gain)).then(b.class.cmp(&a.class))
    };
    crate::pool::install(|| all.par_sort_by(order))?;
    // Best gain so far of each class; costs only rise.
    let mut so_far: BTreeMap<Class, f64> = BTreeMap::new();
    let mut out: Vec<Candidate<S>> = Vec::new();
    for Side { class, gain, of: (i, side), .. } in all {
        let best = so_far.iter().filter(|(a, _)| covers(a, &class)).map(|(_, g)| *g).fold(0.0, f64::max);
        // A step of the frontier must gain `least`, but the end of a class is kept if nothing beats it.
        if gain > best && (gain >= best * least || gain >= top[&class]) || least < 1.0 && gain >= best * least {
            if gain > best {
                so_far.insert(class, gain);
            }
            let ((layout, clock, _), (batch, chunk, side)) = (&found[i], make(side));
            out.push(Candidate { layout: *layout, clock: clock.clone(), batch, chunk, side });
        }
    }
    Ok(out)
}
