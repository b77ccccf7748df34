//! KV admission, prefix hits, ends of prompts, preemption. Limit: blocks change hands between steps, never inside one.

use std::cmp::Reverse;

use super::deployment::PARTS;
use super::itl::Largest;
use super::outcome::{NEVER, Span, SpanKind};
use super::price::FINE;
use super::route;
use super::settings::{KvAdmission, Preemption};
use super::state::NONE;
use super::world::{Event, World};
use crate::spec::Role;
use crate::spec::assumptions::FirstToken;

impl<'a> World<'a> {
    /// Draft tokens are accepted in fractions: then a sequence's room is taken as a whole.
    fn whole_room(&self, instance: u32) -> bool {
        self.deployment.pools[self.instances[instance as usize].pool as usize].grow != PARTS
    }

    /// Blocks that a decoding sequence of `context` tokens holds.
    fn room(&self, request: u32, port: u32, context: u64) -> u64 {
        let r = request as usize;
        let p = &self.ports[port as usize];
        if self.whole_room(p.instance) {
            p.kv.blocks(u64::from(self.requests.isl[r]) + u64::from(self.requests.osl[r]))
        } else {
            p.kv.blocks(context)
        }
    }

    /// Puts a request in a queue; a new head is worth a look.
    pub(crate) fn enqueue(&mut self, port: u32, key: u64) {
        let p = &mut self.ports[port as usize];
        p.waiting.push(Reverse(key));
        if p.waiting.peek() == Some(&Reverse(key)) {
            p.blocked = false;
        }
    }

    /// Looks for what has come, if it is time to. `idle`: there is no step to wait for.
    pub(crate) fn look(&mut self, i: u32, idle: bool) {
        let inst = &mut self.instances[i as usize];
        let intake = self.deployment.pools[inst.pool as usize].intake;
        inst.fresh = false;
        if !intake.waits() {
            return;
        }
        let ports = inst.first_port as usize..(inst.first_port + inst.ranks) as usize;
        let due = idle || inst.since_look > intake.polls && inst.held >= intake.holds;
        if self.ports[ports.clone()].iter().all(|p| p.arriving.is_empty()) {
            inst.since_look %= intake.polls + 1;
            return;
        }
        if due {
            (inst.since_look, inst.held, inst.fresh) = (0, 0, true);
            for q in ports {
                for key in std::mem::take(&mut self.ports[q].arriving) {
                    self.enqueue(q as u32, key);
                }
            }
        }
    }

    /// Lets the head of a queue in for its prompt, if its KV fits: all of it, or of what a step with `tokens` of room
    /// can take. `true` if it was.
    pub(crate) fn admit_prompt(&mut self, port: u32, tokens: u32) -> bool {
        let Some(&Reverse(key)) = self.ports[port as usize].waiting.peek() else { return false };
        let request = key as u32;
        let r = request as usize;
        let swapped = self.seqs[r].swapped;
        let names = if swapped { &[] } else { self.names(r) };
        let need = u64::from(self.seqs[r].need);
        let osl = self.requests.osl[r];
        let left = u64::from(osl - self.seqs[r].written);
        let p = &mut self.ports[port as usize];
        let leading = p.kv.cache.leading(names, self.now);
        p.kv.cache.pin(&names[..leading]);
        let block_tokens = u64::from(self.requests.block_tokens);
        let there = self.tier.as_ref().map_or(0, |t| t.leading(names, self.now)).max(leading);
        let declared = self.requests.prefix.get(r).copied().unwrap_or(0);
        let hit = (there as u64 * block_tokens).max(u64::from(declared)).min(need.saturating_sub(1));
        let decode = self.deployment.pools[self.instances[p.instance as usize].pool as usize].role == Role::Decode;
        let whole = swapped || decode || self.settings.kv_admission == KvAdmission::Prompt;
        let cover = if whole { need } else { need.min(hit + u64::from(tokens)) };
        let blocks = p.kv.blocks(cover) - leading as u64 * p.kv.per_name;
        let headroom = if p.seats == 0 {
            0
        } else {
            p.kv.blocks(self.policy.headroom(p.remaining, left.min(u64::from(osl)) as u32))
        };
        if blocks + headroom > p.kv.free() || p.kv.over() {
            p.kv.cache.unpin(&names[..leading], self.now);
            p.blocked = true;
            return false;
        }
        p.waiting.pop();
        p.kv.take(blocks);
        p.seats += 1;
        p.remaining += left;
        let pool = self.instances[p.instance as usize].pool as usize;
        let mut ready = self.now;
        if let Some(spec) = self.settings.shared_tier.filter(|_| there > leading) {
            let fetched = (there - leading) as u64 * block_tokens;
            ready = self.tier_free_ps.max(self.now) + super::to_ps(fetched as f64 / spec.tokens_per_s);
            self.tier_free_ps = ready;
        }
        let s = &mut self.seqs[r];
        s.named = leading as u32;
        s.covered = cover as u32;
        if swapped {
            // Its KV comes back from the host; one token is computed again, as after any hit.
            s.done = s.need.saturating_sub(1);
            let bytes = need as f64 * self.deployment.pools[pool].kv_bytes_per_token;
            let seconds = bytes / self.settings.host_bytes_per_s;
            let instance = self.ports[port as usize].instance as usize;
            self.instances[instance].extra += (seconds * super::PS * FINE as f64) as i64;
        } else {
            s.done = hit as u32;
            if self.out.preemptions[r] == 0 {
                self.out.prefix_hit_tokens[r] = hit as u32;
            }
        }
        s.prefill_start_ps = self.now;
        if ready > self.now {
            let life = s.life;
            self.push(ready, Event::Fetched(request, life));
        } else {
            self.ports[port as usize].prefilling.push_back(request);
        }
        true
    }

    pub(crate) fn fetched(&mut self, request: u32, life: u32) {
        let s = &self.seqs[request as usize];
        if s.life == life && s.port != NONE {
            let port = s.port;
            self.ports[port as usize].prefilling.push_back(request);
            self.poke(port);
        }
    }

    /// The last prompt token of `request` is computed.
    pub(crate) fn prompt_done(&mut self, request: u32) {
        let r = request as usize;
        let port = self.seqs[r].port;
        let instance = self.ports[port as usize].instance;
        let names = self.names(r);
        let swapped = self.seqs[r].swapped;
        if !swapped {
            let held = self.seqs[r].named as usize;
            let p = &mut self.ports[port as usize];
            let fresh = &names[held..];
            p.kv.give(fresh.len() as u64 * p.kv.per_name);
            p.kv.cache.pin(fresh);
            p.kv.settle();
            self.seqs[r].named = names.len() as u32;
            if let (Some(tier), Some(spec)) = (&mut self.tier, self.settings.shared_tier) {
                tier.pin(names);
                tier.unpin(names, self.now);
                tier.shrink(spec.tokens / u64::from(self.requests.block_tokens));
            }
        }
        self.seqs[r].swapped = false;
        let prefill = self.deployment.pools[self.instances[instance as usize].pool as usize].role == Role::Prompts;
        let first = self.out.first_token_ps[r] == NEVER;
        let osl = self.requests.osl[r];
        let waits = prefill && self.deployment.first_token != FirstToken::Prefill && osl > 1;
        if first && !waits {
            self.out.first_token_ps[r] = self.now;
        }
        if !first {
            let gap = self.now - self.seqs[r].last_token_ps;
            self.stalls.entry(request).or_default().push((gap, 1));
        }
        // Where decode makes the first token again, that of prefill is thrown away.
        let kept = u32::from(!(waits && self.deployment.first_token == FirstToken::DecodeStep));
        self.seqs[r].written += kept;
        let p = &mut self.ports[port as usize];
        p.remaining = p.remaining.saturating_sub(u64::from(kept));
        if self.seqs[r].written >= osl {
            self.vacate(request, port, u64::from(self.seqs[r].need));
            let s = &mut self.seqs[r];
            s.join = s.finish;
            self.finish(request, instance);
        } else if prefill {
            self.seqs[r].last_token_ps = self.now;
            self.hand_over(request);
        } else {
            self.join(request);
        }
    }

    /// Gives back the seat and the KV of a sequence that holds blocks for `tokens`.
    fn vacate(&mut self, request: u32, port: u32, tokens: u64) {
        let r = request as usize;
        let named = self.seqs[r].named as usize;
        let names = &self.names(r)[..named];
        let left = u64::from(self.requests.osl[r] - self.seqs[r].written.min(self.requests.osl[r]));
        let p = &mut self.ports[port as usize];
        p.kv.let_go(p.kv.blocks(tokens) - named as u64 * p.kv.per_name, self.named, self.now);
        p.kv.cache.unpin(names, self.now);
        p.kv.settle();
        p.seats -= 1;
        p.blocked = false;
        p.remaining = p.remaining.saturating_sub(left);
        self.seqs[r].named = 0;
    }

    /// The sequence decodes from the next step on; its blocks cover `need` tokens so far.
    pub(crate) fn join(&mut self, request: u32) {
        let r = request as usize;
        let port = self.seqs[r].port;
        let i = self.ports[port as usize].instance;
        let (grow, micro) = {
            let pool = &self.deployment.pools[self.instances[i as usize].pool as usize];
            (pool.grow, pool.microbatches)
        };
        let context = u64::from(self.requests.isl[r]) + u64::from(self.seqs[r].written);
        let room = self.room(request, port, context);
        let whole = self.whole_room(i);
        if self.seqs[r].written > 0 && self.out.first_token_ps[r] == NEVER {
            // The prompt's token leaves as decode takes its request in.
            self.out.first_token_ps[r] = self.now;
        }
        let inst = &mut self.instances[i as usize];
        let p = &mut self.ports[port as usize];
        let before = p.kv.blocks(u64::from(self.seqs[r].need));
        p.kv.take(room.saturating_sub(before));
        if !whole {
            p.kv.join(context, inst.step);
        }
        if inst.decoding == 0 {
            inst.log.last_end_ps = self.now;
        }
        inst.decoding += 1;
        // The micro-batch with the fewest sequences, then the least KV.
        let rank = port - inst.first_port;
        let row = (rank * micro) as usize..((rank + 1) * micro) as usize;
        let group = row.min_by_key(|g| (inst.groups[*g].n, inst.groups[*g].context, *g)).unwrap_or(0);
        inst.groups[group].n += 1;
        inst.groups[group].context += context * PARTS;
        let left = u64::from(self.requests.osl[r] - self.seqs[r].written);
        let s = &mut self.seqs[r];
        s.base = context * PARTS;
        s.group = group as u32;
        s.join = inst.step;
        s.finish = inst.step + (left * PARTS).div_ceil(grow) as u32;
        s.place = p.running.len() as u32;
        s.lag_ps = self.now.saturating_sub(inst.log.last_end_ps);
        p.running.push(request);
        if s.written == 0 {
            inst.ends.push(Reverse((inst.step + 1, request, s.life)));
        }
        if s.finish > inst.step + u32::from(s.written == 0) {
            inst.ends.push(Reverse((s.finish, request, s.life)));
        }
    }

    /// Takes a decoding sequence out of its rank; returns its context.
    fn part(&mut self, request: u32) -> u64 {
        let r = request as usize;
        let s = self.seqs[r];
        let p = &mut self.ports[s.port as usize];
        let inst = &mut self.instances[p.instance as usize];
        let grow = self.deployment.pools[inst.pool as usize].grow;
        let context = s.context(inst.step, grow);
        if grow == PARTS {
            p.kv.leave(context, inst.step);
        }
        let group = &mut inst.groups[s.group as usize];
        group.n -= 1;
        group.context -= s.base + u64::from(inst.step - s.join) * grow;
        inst.decoding -= 1;
        p.running.swap_remove(s.place as usize);
        if let Some(&moved) = p.running.get(s.place as usize) {
            self.seqs[moved as usize].place = s.place;
        }
        context
    }

    /// A decoding sequence has written its last token.
    pub(crate) fn ended(&mut self, request: u32) {
        let r = request as usize;
        let port = self.seqs[r].port;
        let context = self.part(request);
        let room = self.room(request, port, context);
        let (tokens, written) = (room * u64::from(self.ports[port as usize].kv.block), self.requests.osl[r]);
        self.seqs[r].written = written;
        self.vacate(request, port, tokens);
        let instance = self.ports[port as usize].instance;
        self.finish(request, instance);
    }

    /// Takes the blocks of a piece of a prompt, the one at `at` of those under way, whose KV is taken as it comes. Who came
    /// last gives way where there are none; `false` if that was the one itself.
    pub(crate) fn cover(&mut self, port: u32, at: usize, tokens: u32) -> bool {
        let request = self.ports[port as usize].prefilling[at];
        let s = self.seqs[request as usize];
        let wanted = s.done + tokens;
        if wanted <= s.covered {
            return true;
        }
        loop {
            let p = &mut self.ports[port as usize];
            let more = p.kv.blocks(u64::from(wanted)) - p.kv.blocks(u64::from(s.covered));
            if more <= p.kv.free() {
                p.kv.take(more);
                self.seqs[request as usize].covered = wanted;
                return true;
            }
            // Pieces ahead of it are in the step already.
            let p = &self.ports[port as usize];
            let last = p.running.iter().chain(p.prefilling.iter().skip(at)).copied().max_by_key(|q| self.key(*q));
            let last = last.unwrap_or(request);
            self.preempt(port, last);
            if last == request {
                // It is let in again when something has ended.
                self.ports[port as usize].blocked = true;
                return false;
            }
        }
    }

    /// Takes the KV of the sequence that came last away from it. `false` if no one holds any.
    pub(crate) fn preempt_one(&mut self, port: u32) -> bool {
        let p = &self.ports[port as usize];
        let victim = p.running.iter().chain(&p.prefilling).copied().max_by_key(|q| self.key(*q));
        victim.is_some_and(|request| {
            self.preempt(port, request);
            true
        })
    }

    fn preempt(&mut self, port: u32, request: u32) {
        let (i, r) = (self.ports[port as usize].instance as usize, request as usize);
        let pool = self.instances[i].pool as usize;
        self.seqs[r].life += 1;
        // On a prefill instance its prompt starts anew, and its KV still has to come from there.
        self.seqs[r].again = self.deployment.pools[pool].role != Role::Prompts;
        self.out.preemptions[r] = self.out.preemptions[r].saturating_add(1);
        self.instances[i].usage.preemptions += 1;
        let prefilling = self.ports[port as usize].prefilling.iter().position(|q| *q == request);
        if let Some(at) = prefilling {
            self.ports[port as usize].prefilling.remove(at);
            self.vacate(request, port, u64::from(self.seqs[r].covered));
        } else {
            let s = self.seqs[r];
            let step = self.instances[i].step;
            let grow = self.deployment.pools[pool].grow;
            let steps = u64::from(step - s.join);
            if step > s.join {
                let mut largest = Largest::of(u32::MAX);
                self.instances[i].log.collect(s.join, step, s.lag_ps, &mut largest);
                self.stalls.entry(request).or_default().extend_from_slice(largest.entries());
                self.seqs[r].last_token_ps = self.instances[i].log.last_end_ps;
            } else {
                self.seqs[r].last_token_ps = self.now;
            }
            let context = self.part(request);
            let room = self.room(request, port, context);
            let tokens = room * u64::from(self.ports[port as usize].kv.block);
            let written = (u64::from(s.written) + steps * grow / PARTS).min(u64::from(self.requests.osl[r]) - 1) as u32;
            self.seqs[r].written = written;
            self.vacate(request, port, tokens);
            let isl = self.requests.isl[r];
            self.seqs[r].need = isl + written;
            if self.settings.preemption == Preemption::Swap {
                self.seqs[r].swapped = true;
                let bytes = context as f64 * self.deployment.pools[pool].kv_bytes_per_token;
                let seconds = bytes / self.settings.host_bytes_per_s;
                self.instances[i].extra += (seconds * super::PS * FINE as f64) as i64;
            }
        }
        self.seqs[r].done = 0;
        let key = self.key(request);
        self.enqueue(port, key);
    }

    /// A prompt is done on a prefill instance: it queues for decode, its KV stays until it has gone.
    fn hand_over(&mut self, request: u32) {
        let r = request as usize;
        let from = self.seqs[r].port;
        self.out_of_hand(request, from);
        let to = route::choose(self, 1, request);
        self.seqs[r].source = from;
        self.hand_to(request, to);
        let key = self.key(request);
        self.enqueue(to, key);
        self.admit_inbound(to);
    }

    /// Lets requests in whose KV has to come from prefill (or, with no prefill, comes with them).
    pub(crate) fn admit_inbound(&mut self, port: u32) {
        let max_seqs = {
            let i = self.ports[port as usize].instance as usize;
            self.deployment.pools[self.instances[i].pool as usize].max_seqs
        };
        loop {
            let p = &self.ports[port as usize];
            let Some(&Reverse(key)) = p.waiting.peek() else { return };
            let request = key as u32;
            let r = request as usize;
            // A preempted one computes its KV again here: it is let in at a boundary.
            if p.seats >= max_seqs || self.seqs[r].again {
                return;
            }
            let context = u64::from(self.requests.isl[r]) + u64::from(self.seqs[r].written);
            let room = self.room(request, port, context);
            self.catch_up(self.ports[port as usize].instance, room);
            let p = &mut self.ports[port as usize];
            if room > p.kv.free() {
                return;
            }
            p.waiting.pop();
            p.kv.take(room);
            p.seats += 1;
            p.remaining += u64::from(self.requests.osl[r] - self.seqs[r].written);
            let source = self.seqs[r].source;
            // The blocks of the whole context are taken: `join` takes no more.
            let block = u64::from(p.kv.block);
            self.seqs[r].need = (room * block) as u32;
            self.refit(port);
            if source == NONE {
                self.ports[port as usize].joining.push(request);
                self.poke(port);
                continue;
            }
            let at = self.ship(request, source, port);
            self.push(at, Event::Arrived(request));
        }
    }

    /// When the KV of `request` is there if it leaves as soon as its links are free.
    fn ship(&mut self, request: u32, from: u32, to: u32) -> u64 {
        let r = request as usize;
        let declared = self.requests.prefix.get(r).copied().unwrap_or(0);
        let tokens = f64::from(self.requests.isl[r] - declared.min(self.requests.isl[r]));
        let s = self.seqs[r];
        let compute = s.last_token_ps - s.prefill_start_ps;
        let shipping = self.deployment.transfer.shipping(tokens, super::to_s(compute));
        // Only what has its place at decode when the prompt is done can have streamed layer by layer.
        let streamed = s.last_token_ps == self.now;
        let ready = if streamed { s.prefill_start_ps } else { self.now };
        let whole = super::to_ps(shipping.whole_s);
        let links = self.ports[from as usize].link_free_ps.max(self.ports[to as usize].link_free_ps);
        let begin = links.max(ready);
        let free = begin + whole;
        self.ports[from as usize].link_free_ps = free;
        self.ports[to as usize].link_free_ps = free;
        let least = self.now + if streamed { super::to_ps(shipping.after_s) } else { whole };
        let at = least.max(free);
        if self.out.timeline.len() < self.settings.timeline {
            let p = &self.ports[to as usize];
            self.out.timeline.push(Span {
                instance: p.instance,
                lane: 1 + to - self.instances[p.instance as usize].first_port,
                start_ps: begin,
                end_ps: at,
                kind: SpanKind::Transfer,
                batch: 1,
                steps: 1,
            });
        }
        at
    }

    pub(crate) fn kv_arrived(&mut self, request: u32) {
        let r = request as usize;
        let source = self.seqs[r].source;
        // The prefill side lets go.
        let named = self.seqs[r].named as usize;
        let names = &self.names(r)[..named];
        let isl = u64::from(self.requests.isl[r]);
        let p = &mut self.ports[source as usize];
        p.kv.let_go(p.kv.blocks(isl) - named as u64 * p.kv.per_name, self.named, self.now);
        p.kv.cache.unpin(names, self.now);
        p.kv.settle();
        p.seats -= 1;
        p.blocked = false;
        p.remaining = p.remaining.saturating_sub(u64::from(self.requests.osl[r] - self.seqs[r].written));
        self.seqs[r].named = 0;
        self.seqs[r].source = NONE;
        self.poke(source);
        if self.out.first_token_ps[r] == NEVER {
            let at = self.instances[self.ports[self.seqs[r].port as usize].instance as usize].pool as usize;
            if self.seqs[r].written > 0 && !self.deployment.pools[at].intake.notices {
                self.out.first_token_ps[r] = self.now;
            }
            self.seqs[r].last_token_ps = self.now;
        } else {
            let late = self.now - self.seqs[r].last_token_ps;
            self.seqs[r].lag_ps = late;
        }
        let port = self.seqs[r].port;
        self.ports[port as usize].joining.push(request);
        self.poke(port);
    }
}
