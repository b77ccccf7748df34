//! The boundary between two steps: what ended, who comes in, what the next step carries and takes.
//!
//! Limit: boundaries lie between whole steps: nothing comes, goes or changes inside one.

use std::cmp::Reverse;

use super::deployment::PARTS;
use super::outcome::{NEVER, Span, SpanKind};
use super::policy::View;
use super::price::{Chunk, FINE, PassPart, Steps};
use super::settings::KvAdmission;
use super::state::{Piece, Run};
use super::wake::ceil_ps;
use super::world::{Event, World};
use crate::spec::Role;

impl World<'_> {
    /// [`Self::poke`] for a request that has just queued up: no use if it cannot be let in before the run ends.
    pub(crate) fn poke_for(&mut self, port: u32, key: u64) {
        let p = &self.ports[port as usize];
        let i = p.instance as usize;
        let pool = &self.deployment.pools[self.instances[i].pool as usize];
        if pool.role == Role::Decode {
            self.admit_inbound(port);
            return;
        }
        if self.instances[i].run.is_some_and(|r| !r.prompts) {
            let head = p.waiting.peek().is_some_and(|Reverse(k)| *k == key);
            let r = (key & u64::from(u32::MAX)) as usize;
            let hits = p.kv.cache.leading(self.names(r), self.now) as u64 * p.kv.per_name;
            // Piece by piece, the step itself says whether the first one fits.
            let fits = self.settings.kv_admission == KvAdmission::Chunk
                || p.kv.blocks(u64::from(self.seqs[r].need)).saturating_sub(hits) <= p.kv.free();
            if !head || p.seats >= pool.max_seqs || !fits || !self.policy.lets_in(&self.view(port)) {
                return;
            }
        }
        self.poke(port);
    }

    fn view(&self, port: u32) -> View {
        let p = &self.ports[port as usize];
        let inst = &self.instances[p.instance as usize];
        let pool = &self.deployment.pools[inst.pool as usize];
        let ranks = inst.first_port..inst.first_port + inst.ranks;
        View {
            decoding: p.running.len() as u32 / pool.stages,
            per_decode: pool.per_decode,
            prefilling: p.prefilling.len() as u32,
            on_instance: ranks.map(|q| self.ports[q as usize].seats).sum(),
            budget: pool.budget,
        }
    }

    /// The run under way has ended, or the instance was woken.
    pub(crate) fn boundary(&mut self, i: u32) {
        self.instances[i as usize].scheduled = false;
        if let Some(run) = self.instances[i as usize].run.take() {
            self.settle(i, &run);
            if self.comes_now() {
                // What ended has called for what arrives at this very time: that comes first.
                self.again(i);
                return;
            }
        } else if ceil_ps(self.instances[i as usize].clock) != self.now {
            // Rested; else it stands where its last step ended, to the fine unit.
            self.instances[i as usize].clock = u128::from(self.now) * u128::from(FINE);
        }
        self.make_room(i);
        if self.comes_now() {
            // KV that was let in just now and crosses in no time joins this step, not the next one.
            self.again(i);
            return;
        }
        let intake = self.deployment.pools[self.instances[i as usize].pool as usize].intake;
        if intake.waits() && !intake.ahead {
            self.look(i, self.instances[i as usize].decoding == 0);
        }
        let mut chunk = self.fill(i);
        if intake.ahead {
            let idle = chunk.tokens == 0 && self.instances[i as usize].decoding == 0;
            self.look(i, idle);
            if idle {
                chunk = self.fill(i);
            }
        }
        self.start(i, &chunk);
    }

    /// Books the steps that have run: time, growth, tokens, ends.
    fn settle(&mut self, i: u32, run: &Run) {
        let steps = run.steps.count;
        let own = &self.instances[i as usize];
        let own = own.first_port as usize..(own.first_port + own.ranks) as usize;
        let waits = self.ports[own].iter().any(|p| !p.arriving.is_empty());
        let inst = &mut self.instances[i as usize];
        let pool = &self.deployment.pools[inst.pool as usize];
        inst.clock += run.steps.time(steps);
        inst.rounds = inst.rounds.wrapping_add(steps);
        // Prompts are followed by a look whatever the interval. Looks inside a run found nothing: who comes ends it.
        let looks = pool.intake.polls + 1;
        inst.since_look = if run.prompts { looks } else { (inst.since_look + steps - 1) % looks + 1 };
        inst.held = if waits { inst.held.saturating_add(1) } else { 0 };
        let wall = self.now - run.start_ps;
        let ranks = inst.first_port..inst.first_port + inst.ranks;
        let mut share = 0.0;
        let mut held = 0;
        for q in ranks.clone() {
            let p = &mut self.ports[q as usize];
            let before = p.kv.held();
            if run.decodes && !p.running.is_empty() {
                if pool.grow == PARTS {
                    let grown = run.grown.min(steps);
                    p.kv.grow(inst.step.wrapping_add(grown), steps - grown);
                }
                p.remaining = p.remaining.saturating_sub(p.running.len() as u64 * u64::from(steps));
            }
            held += p.kv.held();
            share += (before + p.kv.held()) as f64 / (2 * p.kv.capacity.max(1)) as f64;
        }
        let usage = &mut inst.usage;
        usage.busy_ps += wall;
        usage.steps += u64::from(steps);
        usage.kv_share_ps += share / f64::from(inst.ranks) * wall as f64;
        usage.kv_peak_blocks = usage.kv_peak_blocks.max(held);
        self.out.steps += u64::from(steps);
        let batch = inst.decoding;
        if run.decodes {
            usage.decode_tokens += u64::from(batch) * u64::from(steps);
            usage.batch_ps += f64::from(batch) * wall as f64;
            for g in &mut inst.groups {
                g.context += u64::from(g.n) * pool.grow * u64::from(steps);
            }
            inst.log.push(inst.step, steps, run.start_ps, self.now);
            inst.step += steps;
        }
        if self.out.timeline.len() < self.settings.timeline {
            let kind = SpanKind::Steps(match (run.decodes, run.prompts) {
                (true, false) => Role::Decode,
                (true, true) => Role::Both,
                _ => Role::Prompts,
            });
            let batch = if run.decodes { batch } else { 0 } + inst.pieces.len() as u32;
            let (start_ps, end_ps) = (run.start_ps, self.now);
            self.out.timeline.push(Span { instance: i, lane: 0, start_ps, end_ps, kind, batch, steps });
        }
        self.ends(i);
        let pieces = std::mem::take(&mut self.instances[i as usize].pieces);
        for piece in &pieces {
            let r = piece.request as usize;
            self.instances[i as usize].usage.prefill_tokens += u64::from(piece.tokens);
            self.seqs[r].done += piece.tokens;
            if self.seqs[r].done >= self.seqs[r].need {
                let p = &mut self.ports[self.seqs[r].port as usize];
                if let Some(at) = p.prefilling.iter().position(|q| *q == piece.request) {
                    p.prefilling.remove(at);
                }
                self.prompt_done(piece.request);
            }
        }
        let mut pieces = pieces;
        pieces.clear();
        self.instances[i as usize].pieces = pieces;
        if self.instances[i as usize].log.wants_sweep() {
            let joins = ranks.flat_map(|q| &self.ports[q as usize].running).map(|q| self.seqs[*q as usize].join);
            let least = joins.min().unwrap_or(self.instances[i as usize].step);
            self.instances[i as usize].log.sweep(least);
        }
    }

    /// First tokens and ends that are due.
    fn ends(&mut self, i: u32) {
        loop {
            let inst = &mut self.instances[i as usize];
            let Some(&Reverse((step, request, life))) = inst.ends.peek() else { return };
            let s = &self.seqs[request as usize];
            let stale = s.life != life;
            if !stale && step > inst.step {
                return;
            }
            inst.ends.pop();
            if stale {
                continue;
            }
            let r = request as usize;
            if self.out.first_token_ps[r] == NEVER {
                self.out.first_token_ps[r] = self.now;
            }
            if s.finish == step {
                self.ended(request);
            }
        }
    }

    /// Preempts until every rank's sequences fit, and lets decode's new ones join.
    fn make_room(&mut self, i: u32) {
        let inst = &self.instances[i as usize];
        let ranks = inst.first_port..inst.first_port + inst.ranks;
        let decode = self.deployment.pools[inst.pool as usize].role == Role::Decode;
        for q in ranks {
            while self.ports[q as usize].kv.over() {
                if !self.preempt_one(q) {
                    break;
                }
            }
            if decode {
                self.join_due(q);
                self.admit_inbound(q);
                self.join_due(q);
            }
        }
    }

    /// Lets those join whose KV decode knows of, and has known of for long enough.
    fn join_due(&mut self, port: u32) {
        for request in std::mem::take(&mut self.ports[port as usize].joining) {
            let inst = &self.instances[self.ports[port as usize].instance as usize];
            let late = self.deployment.pools[inst.pool as usize].intake.late;
            let due = *self.seqs[request as usize].due.get_or_insert(inst.step + late);
            if late == 0 || inst.decoding == 0 || inst.step >= due {
                self.join(request);
            } else {
                self.ports[port as usize].joining.push(request);
            }
        }
    }

    /// Deals prompt tokens to the next step; lets sequences in where there is room.
    fn fill(&mut self, i: u32) -> Chunk {
        let inst = &self.instances[i as usize];
        let (first, ranks) = (inst.first_port, inst.ranks);
        let pool = &self.deployment.pools[inst.pool as usize];
        let (max_seqs, decode) = (pool.max_seqs, pool.role == Role::Decode);
        // Between two steps of the cadence nobody new comes in; prompts under way go on.
        let opens = inst.rounds.is_multiple_of(pool.interval);
        let mut chunk = Chunk::default();
        let per_decode = pool.per_decode;
        // Tokens of the fullest rank.
        let mut fullest = 0;
        let waiting = (first..first + ranks)
            .any(|q| !self.ports[q as usize].waiting.is_empty() || !self.ports[q as usize].prefilling.is_empty());
        if !waiting {
            return chunk;
        }
        // Seats of the whole instance before anyone comes in at this boundary.
        let on_instance = self.view(first).on_instance;
        for q in first..first + ranks {
            let view = View { on_instance, ..self.view(q) };
            let mut left = self.policy.prompt_tokens(&view);
            let mut own = Chunk::default();
            let mut at = 0;
            while left > 0 {
                if at == self.ports[q as usize].prefilling.len() {
                    let p = &self.ports[q as usize];
                    // What waits at decode and was never preempted there comes by wire.
                    let wired =
                        decode && p.waiting.peek().is_some_and(|Reverse(k)| !self.seqs[(*k as u32) as usize].again);
                    if !opens
                        || p.blocked
                        || p.seats >= max_seqs
                        || wired
                        || !self.policy.lets_in(&view)
                        || !self.admit_prompt(q, left)
                    {
                        break;
                    }
                    continue;
                }
                let request = self.ports[q as usize].prefilling[at];
                let s = self.seqs[request as usize];
                let want = s.need - s.done;
                if want > left && !self.policy.cuts() && own.tokens > 0 {
                    break;
                }
                let tokens = if self.policy.cuts() { want.min(left) } else { want };
                if !self.cover(q, at, tokens) {
                    continue;
                }
                left = left.saturating_sub(tokens);
                own.tokens += tokens;
                own.sequences += 1;
                own.ending += u32::from(tokens == want);
                // Past of a token: what is in KV before the piece.
                own.past_weight += u64::from(tokens) * u64::from(s.done);
                self.instances[i as usize].pieces.push(Piece { request, tokens });
                at += 1;
            }
            fullest = fullest.max(own.tokens + self.ports[q as usize].running.len() as u32 * per_decode);
            chunk.all += u64::from(own.tokens);
            if own.tokens > chunk.tokens {
                chunk = Chunk { all: chunk.all, ..own };
            }
        }
        chunk.beside = (fullest - chunk.tokens).div_ceil(per_decode);
        chunk
    }

    /// Starts the next step, or the next run of decode steps, or rests.
    fn start(&mut self, i: u32, chunk: &Chunk) {
        let now = self.now;
        let inst = &self.instances[i as usize];
        let pool = &self.deployment.pools[inst.pool as usize];
        let pricer = &self.pricers[inst.pool as usize];
        let micro = pool.microbatches as usize;
        let ranks = inst.first_port..inst.first_port + inst.ranks;
        let fullest = |m: usize| inst.groups.iter().skip(m).step_by(micro).max_by_key(|g| g.context);
        let mut run = if chunk.tokens > 0 {
            let decodes = inst.decoding > 0 && self.policy.decodes_beside();
            let (all, context) = if decodes {
                let rank = |row: &[super::state::Group]| row.iter().map(|g| g.context).sum::<u64>();
                (inst.decoding, inst.groups.chunks(micro).map(rank).max().unwrap_or(0))
            } else {
                (0, 0)
            };
            let first = pricer.mixed(all, context, chunk);
            Run { steps: Steps { first, delta: 0, count: 1 }, decodes, prompts: true, start_ps: now, grown: 0 }
        } else if inst.decoding > 0 {
            let due = inst.ends.peek().map_or(1, |Reverse((step, ..))| (step - inst.step).max(1));
            let mut most = due.min(self.settings.max_run);
            let late = self.ports[ranks.start as usize..ranks.end as usize]
                .iter()
                .any(|p| !p.arriving.is_empty() || pool.intake.late > 0 && !p.joining.is_empty());
            if inst.fresh || late {
                // Who was seen too late for this step is in the next one.
                most = 1;
            }
            for q in ranks {
                let p = &self.ports[q as usize];
                if pool.interval > 1 && !p.waiting.is_empty() {
                    // Who waits for the cadence comes in at its next step.
                    most = most.min(pool.interval - inst.rounds % pool.interval);
                }
                if pool.grow == PARTS {
                    most = p.kv.steps_that_fit(inst.step, most);
                }
            }
            let parts: Vec<PassPart> = (0..micro)
                .map(|m| {
                    let of_ranks = || inst.groups.iter().skip(m).step_by(micro).map(|g| g.n);
                    let (n, all) = (of_ranks().max().unwrap_or(0), of_ranks().sum());
                    let g = fullest(m).copied().unwrap_or_default();
                    PassPart { n, all, context: g.context, grow: u64::from(g.n) * pool.grow }
                })
                .collect();
            Run { steps: pricer.decode(&parts, most), decodes: true, prompts: false, start_ps: now, grown: 0 }
        } else {
            // The next prompt finds an idle instance and is let in at once.
            let inst = &mut self.instances[i as usize];
            let waits = inst.rounds != 0;
            inst.rounds = 0;
            if waits && self.ports[ranks.start as usize..ranks.end as usize].iter().any(|p| !p.waiting.is_empty()) {
                self.again(i);
            }
            return;
        };
        let inst = &mut self.instances[i as usize];
        if inst.extra > 0 {
            // Swapping stops the instance before the step.
            run.steps = Steps { first: run.steps.first + inst.extra, delta: 0, count: 1 };
            inst.extra = 0;
        }
        let at = ceil_ps(inst.clock + run.steps.time(run.steps.count));
        inst.run = Some(run);
        inst.ticket += 1;
        let ticket = inst.ticket;
        self.push(at, Event::Boundary(i, ticket));
    }
}
