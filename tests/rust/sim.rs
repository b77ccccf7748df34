//! The event core against oracles: published fixed-timing replays, closed forms, and a slow twin.

use disagg::control::Control;
use disagg::sim::{Deployment, Outcome, Requests, Settings, Status, Timing, simulate};

mod afd;
mod laws;
mod memory;
mod oracles;
mod queueing;

pub const MS: u64 = 1_000_000_000;

/// `n` equal requests, one every `gap_ps`.
pub fn regular(n: usize, gap_ps: u64, isl: u32, osl: u32) -> Requests {
    Requests {
        arrival_ps: (0..n as u64).map(|i| i * gap_ps).collect(),
        isl: vec![isl; n],
        osl: vec![osl; n],
        ..Requests::default()
    }
}

pub fn fixed(count: u32, max_seqs: u32, prefill_ms: u64, decode_ms: u64) -> Deployment {
    Deployment::uniform(count, max_seqs, 8192, Timing::Fixed { prefill_ps: prefill_ms * MS, decode_ps: decode_ms * MS })
}

pub fn run(d: &Deployment, r: &Requests, s: &Settings) -> Outcome {
    let o = simulate(d, r, s, &Control::new()).unwrap();
    conserve(r, &o);
    o
}

/// What holds of every run.
pub fn conserve(r: &Requests, o: &Outcome) {
    let (finished, rejected, unfinished) = o.counts();
    assert_eq!(finished + rejected + unfinished, r.len());
    let mut sojourn: u128 = 0;
    for i in 0..r.len() {
        if o.arrival_ps[i] == disagg::sim::NEVER {
            assert_eq!(o.status[i], Status::Unfinished);
            continue;
        }
        let end = match o.status[i] {
            Status::Finished => o.finish_ps[i],
            Status::Rejected => o.arrival_ps[i],
            Status::Unfinished => o.end_ps,
        };
        sojourn += u128::from(end - o.arrival_ps[i]);
        if o.status[i] == Status::Finished {
            assert!(o.arrival_ps[i] <= o.first_token_ps[i] && o.first_token_ps[i] <= o.finish_ps[i], "request {i}");
            assert!(o.itl_p99_ps[i] <= o.itl_max_ps[i]);
        }
    }
    // Little's law, exactly: the integral of the number inside is the sum of the stays.
    assert_eq!(o.in_system_ps, sojourn);
}

pub fn ttft_ms(o: &Outcome) -> Vec<f64> {
    o.first_token_ps.iter().zip(&o.arrival_ps).map(|(f, a)| (f - a) as f64 / MS as f64).collect()
}

pub fn tpot_ms(r: &Requests, o: &Outcome) -> Vec<f64> {
    (0..r.len()).map(|i| (o.finish_ps[i] - o.first_token_ps[i]) as f64 / MS as f64 / f64::from(r.osl[i] - 1)).collect()
}

pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}
