//! Figures of `ai-dynamo-runtime` 1.6.1 with fixed timing: vLLM scheduler, block 64, 16,384 blocks,
//! 1024 -> 200 tokens, prefill 20 ms. A step that decodes nothing takes the prefill time alone (osl 2, 50 and 25 ms: TTFT 50).

use disagg::sim::{Router, Settings};

use super::*;

fn replay(n: usize, workers: u32, gap_ms: u64, decode_ms: u64) -> (f64, f64, f64) {
    let r = regular(n, gap_ms * MS, 1024, 200);
    let s =
        Settings { kv_blocks: Some(16_384), kv_block_tokens: 64, router: Router::RoundRobin, ..Settings::default() };
    let o = run(&fixed(workers, 256, 20, decode_ms), &r, &s);
    assert_eq!(o.counts(), (n, 0, 0));
    (mean(&ttft_ms(&o)), mean(&tpot_ms(&r, &o)), o.end_ps as f64 / MS as f64 / 1e3)
}

#[test]
fn fixed_timing_rows() {
    for (n, workers, gap, decode, ttft, tpot, seconds) in [
        (20_000, 4, 20, 10, 30.0, 13.305, 402.0),
        (20_000, 4, 20, 40, 70.0, 53.139, 408.0),
        (2_000, 4, 200, 5, 25.0, 5.100, 400.8),
        (20_000, 1, 80, 30, 50.0, 39.925, 1605.9),
    ] {
        let (a, b, c) = replay(n, workers, gap, decode);
        // The first prompt of each worker decodes beside nothing: one decode step less, which the published digits do not show.
        let ttft = ttft - f64::from(workers) * decode as f64 / n as f64;
        assert!((a - ttft).abs() < 0.005, "TTFT {a} for {ttft}");
        assert!((b - tpot).abs() < 0.0006, "TPOT {b} for {tpot}");
        assert!((c - seconds).abs() < 0.06, "duration {c} for {seconds}");
    }
}

#[test]
fn a_step_that_decodes_nothing_is_a_prompt_alone() {
    let o = run(&fixed(1, 8, 50, 25), &regular(3, 1000 * MS, 1024, 2), &Settings::default());
    assert_eq!(ttft_ms(&o), [50.0; 3]);
    assert_eq!(o.finish_ps[0], 75 * MS);
}
