//! KV blocks and wires against slow, obvious twins.

use disagg::sim::kv::{Cache, Kv};
use disagg::sim::{SpanKind, Transfer};
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
        let mut cache = Cache::new(None);
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
    assert_eq!(o.first_token_ps, [130 * MS, 200 * MS]);
    let spans: Vec<_> = o.timeline.iter().filter(|s| s.kind == SpanKind::Transfer).collect();
    assert_eq!((spans.len(), spans[1].start_ps), (2, 100 * MS));
    // Each decodes on its own four steps after its KV has come, at the next boundary.
    assert_eq!(o.finish_ps, [170 * MS, 240 * MS]);
}
