//! What wakes an instance or cuts its run short, and books what a run has taken by then.
//!
//! Limit: only decode runs are cut: a step that carries prompts is never stopped half-way.

use super::deployment::PARTS;
use super::price::FINE;
use super::world::{Event, World};

/// Fine units as picoseconds: a boundary is at the first whole picosecond not before it.
pub(super) fn ceil_ps(clock: u128) -> u64 {
    clock.div_ceil(u128::from(FINE)) as u64
}

impl World<'_> {
    /// Something waits at `port`: a resting instance gets a boundary now, a run of decode steps is cut at its next one.
    pub(crate) fn poke(&mut self, port: u32) {
        let i = self.ports[port as usize].instance;
        let inst = &mut self.instances[i as usize];
        match &mut inst.run {
            None => {
                if !inst.scheduled {
                    self.again(i);
                }
            }
            Some(run) if !run.prompts && run.steps.count > 1 => {
                // The fewest steps (at least one) whose end is not before now.
                let (mut low, mut high) = (1, run.steps.count);
                while low < high {
                    let mid = low + (high - low) / 2;
                    if ceil_ps(inst.clock + run.steps.time(mid)) >= self.now { high = mid } else { low = mid + 1 }
                }
                if low < run.steps.count {
                    run.steps.count = low;
                    inst.ticket += 1;
                    let (ticket, at) = (inst.ticket, ceil_ps(inst.clock + run.steps.time(low)));
                    self.push(at, Event::Boundary(i, ticket));
                }
            }
            Some(_) => {}
        }
    }

    /// Books the KV that an instance's ranks have taken by now in a run under way, where `blocks` more
    /// or the cached blocks could come to matter: who asks in between must see what is there.
    pub(crate) fn catch_up(&mut self, i: u32, blocks: u64) {
        let inst = &mut self.instances[i as usize];
        let Some(run) = &mut inst.run else { return };
        let pool = &self.deployment.pools[inst.pool as usize];
        if !run.decodes || run.steps.count <= 1 || pool.grow != PARTS {
            return;
        }
        let ranks = inst.first_port as usize..(inst.first_port + inst.ranks) as usize;
        let left = run.steps.count - run.grown;
        if self.ports[ranks.clone()].iter().all(|p| p.kv.roomy(left, blocks)) {
            return;
        }
        let (mut low, mut high) = (run.grown, run.steps.count - 1);
        while low < high {
            let mid = high - (high - low) / 2;
            if ceil_ps(inst.clock + run.steps.time(mid)) < self.now { low = mid } else { high = mid - 1 }
        }
        for p in &mut self.ports[ranks] {
            p.kv.grow(inst.step.wrapping_add(run.grown), low - run.grown);
        }
        run.grown = low;
    }

    /// Blocks of `port` were taken in the middle of a run: it ends where its own growth no longer fits.
    pub(crate) fn refit(&mut self, port: u32) {
        let i = self.ports[port as usize].instance;
        self.catch_up(i, 0);
        let inst = &mut self.instances[i as usize];
        let pool = &self.deployment.pools[inst.pool as usize];
        let Some(run) = &mut inst.run else { return };
        if !run.decodes || run.steps.count <= 1 || pool.grow != PARTS {
            return;
        }
        let kv = &self.ports[port as usize].kv;
        let left = run.steps.count - run.grown;
        if kv.roomy(left, 0) {
            return;
        }
        let count = run.grown + kv.steps_that_fit(inst.step.wrapping_add(run.grown), left);
        if count < run.steps.count {
            run.steps.count = count;
            inst.ticket += 1;
            let (ticket, at) = (inst.ticket, ceil_ps(inst.clock + run.steps.time(count)));
            self.push(at, Event::Boundary(i, ticket));
        }
    }

    /// A boundary now, behind what else happens at this time.
    pub(crate) fn again(&mut self, i: u32) {
        let inst = &mut self.instances[i as usize];
        inst.scheduled = true;
        inst.ticket += 1;
        let ticket = inst.ticket;
        self.push(self.now, Event::Boundary(i, ticket));
    }
}
