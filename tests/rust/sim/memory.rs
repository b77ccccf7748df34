//! KV blocks and wires against slow, obvious twins.

use disagg::sim::kv::{Cache, Kv};
use disagg::sim::{KvAdmission, SpanKind, Transfer};
use disagg::spec::Role;
use disagg::spec::assumptions::FirstToken;
use proptest::prelude::*;

use super::*;

proptest! {
    /// Blocks by place within a block, against counting every sequence's own.
    #[test]
    fn growth_is_the_sum_over_sequences(
        block in 1_u32..40,
        sequences in prop::collection::vec((1_u64..500, 0_u32..50), 0..30),
        ahead in 0_u32..60,
        steps in 0_u32..200,
    ) {
        let mut kv = Kv::new(10_000, block, block, None);
        let now = 50 + ahead;
        let mut held = 0;
        let mut after = Vec::new();
        for (tokens, joined) in &sequences {
            kv.join(*tokens, *joined);
            let here = tokens + u64::from(now - joined);
            held += here.div_ceil(u64::from(block));
            after.push(here);
        }
        let taken = |j: u32| -> u64 { after.iter().map(|t| (t + u64::from(j)).div_ceil(u64::from(block))).sum::<u64>() - held };
        prop_assert_eq!(kv.growth(now, steps), taken(steps));
        // The most steps that fit: the blocks of a step are there before it.
        for free in [0_u64, 1, 7, 40] {
            let mut tight = Kv::new(held + free, block, block, None);
            tight.take(held);
            sequences.iter().for_each(|(tokens, joined)| tight.join(*tokens, *joined));
            let fits = (1..=steps.max(1)).take_while(|k| taken(k - 1) <= free).last().unwrap_or(1);
            prop_assert_eq!(tight.steps_that_fit(now, steps.max(1)), fits);
        }
    }

    /// Least recently used first out, against a list that is searched.
    #[test]
    fn the_cache_forgets_the_oldest(uses in prop::collection::vec((0_u64..6, 1_usize..5, 1_u64..12), 1..80)) {
        let mut cache = Cache::new(None, 1);
        let mut idle: Vec<u64> = Vec::new();
        for (now, (topic, blocks, room)) in uses.into_iter().enumerate() {
            let names: Vec<u64> = (0..blocks as u64).map(|b| topic * 10 + b).collect();
            let known = names.iter().take_while(|n| idle.contains(n)).count();
            prop_assert_eq!(cache.leading(&names, now as u64), known);
            cache.pin(&names);
            idle.retain(|n| !names.contains(n));
            prop_assert_eq!((cache.pinned(), cache.idle()), (names.len() as u64, idle.len() as u64));
            cache.unpin(&names, now as u64);
            idle.extend(names.iter().rev());
            cache.shrink(room);
            idle.drain(..idle.len().saturating_sub(room as usize));
            prop_assert_eq!((cache.pinned(), cache.idle()), (0, idle.len() as u64));
        }
    }
}

/// Two prompts that end together share the way into the one decode instance, first come first.
#[test]
fn wires_are_shared() {
    let mut d = fixed(2, 8, 20, 10);
    let mut decode = d.pools[0].clone();
    (d.pools[0].role, decode.role, decode.count) = (disagg::spec::Role::Prompts, disagg::spec::Role::Decode, 1);
    d.pools.push(decode);
    d.first_token = FirstToken::Decode;
    d.transfer = Transfer::Line { latency_ps: 0, ps_per_token: MS as f64 };
    let r = regular(2, 0, 100, 5);
    let o = run(&d, &r, &Settings { timeline: 100, ..Settings::default() });
    // 100 tokens at a millisecond each may stream from the start of prefill (0 ms) but end with it at the least.
    assert_eq!(o.first_token_ps, [120 * MS, 200 * MS]);
    let spans: Vec<_> = o.timeline.iter().filter(|s| s.kind == SpanKind::Transfer).collect();
    assert_eq!((spans.len(), spans[1].start_ps), (2, 100 * MS));
    // Each decodes on its own four steps after its KV has come, at the next boundary.
    assert_eq!(o.finish_ps, [160 * MS, 240 * MS]);
}

/// One request after another on a small memory, held against a list of all blocks in the order in which they were let
/// go: hits, and who is pushed out, answers included.
#[test]
fn answers_take_their_turn_in_a_tight_cache() {
    let (block, capacity) = (16_u32, 40_usize);
    let mut r = Requests { block_tokens: 16, hash_offsets: vec![0], ..Requests::default() };
    for i in 0..400_u64 {
        let topic = (i * i * 7919 + i / 3) % 9;
        r.arrival_ps.push(i * 10_000 * MS);
        r.isl.push(16 * (4 + (i % 5) as u32) + (i % 16) as u32);
        r.osl.push(2 + (i * 31 % 90) as u32);
        let full = u64::from(r.isl[i as usize] / block);
        r.hashes.extend((0..full).map(|b| if b < 4 { topic * 100 + b } else { 10_000 + i * 100 + b }));
        r.hash_offsets.push(r.hashes.len() as u32);
    }
    let s = Settings { kv_blocks: Some(capacity as u64), ..Settings::default() };
    let o = run(&fixed(1, 4, 20, 10), &r, &s);
    // Oldest first; a block of no name is an answer's or the begun end of a prompt.
    let mut idle: Vec<Option<u64>> = vec![None; capacity];
    for i in 0..r.len() {
        let names = r.blocks(i);
        let hit = names.iter().take_while(|n| idle.contains(&Some(**n))).count();
        assert_eq!(o.prefix_hit_tokens[i], (hit as u32 * block).min(r.isl[i] - 1), "request {i}");
        // The last token is never fed back.
        let all = (r.isl[i] + r.osl[i] - 1).div_ceil(block) as usize;
        idle.retain(|b| b.is_none_or(|n| !names[..hit].contains(&n)));
        idle.drain(..all - hit);
        idle.extend(std::iter::repeat_n(None, all - names.len()));
        idle.extend(names.iter().rev().map(|n| Some(*n)));
        assert_eq!(idle.len(), capacity);
    }
    assert!(o.prefix_hit_tokens.iter().filter(|h| **h > 0).count() > 100);
}

/// Prompts that take their blocks piece by piece are let in earlier, and the last one gives way where blocks run out.
#[test]
fn prompts_take_their_blocks_as_a_choice() {
    let mut r = regular(2, MS, 1000, 4);
    r.isl[1] = 1025;
    let with = |kv_admission, blocks| Settings { kv_admission, kv_blocks: Some(blocks), ..Settings::default() };
    let d = Deployment::uniform(1, 8, 256, Timing::Fixed { prefill_ps: 20 * MS, decode_ps: MS });
    // Not quite room for both: reserved whole, the second waits until the first has gone.
    let whole = run(&d, &r, &with(KvAdmission::Prompt, 120));
    let pieces = run(&d, &r, &with(KvAdmission::Chunk, 120));
    assert_eq!(whole.first_token_ps[0], pieces.first_token_ps[0]);
    assert!(pieces.first_token_ps[1] < whole.first_token_ps[1]);
    assert_eq!(whole.preemptions, [0, 0]);
    // Two that would fit one by one come together: the later is put out, and both are served.
    r.arrival_ps = vec![0, 0];
    r.isl = vec![300, 1000];
    r.osl = vec![600, 40];
    let tight = run(&d, &r, &with(KvAdmission::Chunk, 70));
    assert_eq!(tight.counts().0, 2);
    assert!(tight.preemptions[1] > 0 && tight.preemptions[0] == 0);
    // With room for all the two are one.
    assert_eq!(
        run(&d, &r, &with(KvAdmission::Chunk, 900)).finish_ps,
        run(&d, &r, &with(KvAdmission::Prompt, 900)).finish_ps
    );
}

/// On a prefill instance too. Who gives way there starts anew there: its KV still comes by wire.
#[test]
fn prompts_of_a_prefill_instance_take_their_blocks_as_a_choice() {
    let mut d = Deployment::uniform(1, 8, 256, Timing::Fixed { prefill_ps: 20 * MS, decode_ps: MS });
    let mut decode = d.pools[0].clone();
    d.pools[0].role = Role::Prompts;
    decode.role = Role::Decode;
    d.pools.push(decode);
    d.transfer = Transfer::Line { latency_ps: MS, ps_per_token: 1e7 };
    d.first_token = FirstToken::Decode;
    let with = |kv_admission, blocks| Settings { kv_admission, kv_blocks: Some(blocks), ..Settings::default() };
    let mut r = regular(2, MS, 1000, 4);
    r.isl[1] = 1025;
    let whole = run(&d, &r, &with(KvAdmission::Prompt, 120));
    let pieces = run(&d, &r, &with(KvAdmission::Chunk, 120));
    assert_eq!(whole.first_token_ps[0], pieces.first_token_ps[0]);
    assert!(pieces.first_token_ps[1] < whole.first_token_ps[1]);
    // The KV of the first is on the wire for 50 ms: the second is put out when its prompt is half done.
    d.transfer = Transfer::Line { latency_ps: MS, ps_per_token: 1e8 };
    let r = regular(3, 0, 500, 4);
    let tight = run(&d, &r, &with(KvAdmission::Chunk, 40));
    assert_eq!(tight.counts().0, 3);
    assert!(tight.preemptions[0] == 0 && tight.preemptions[1] > 0, "{:?}", tight.preemptions);
    assert_eq!(tight.usage[1].prefill_tokens, 0);
    assert_eq!(
        run(&d, &r, &with(KvAdmission::Chunk, 900)).finish_ps,
        run(&d, &r, &with(KvAdmission::Prompt, 900)).finish_ps
    );
}
