//! Statistics of runs: queueing theory inside the intervals, intervals that cover, goodput.

use disagg::control::Control;
use disagg::sim::metrics::{self, Latencies};
use disagg::sim::statistics::{interval, quantile, warm_up};
use disagg::sim::trace::draw;
use disagg::sim::{Deployment, Settings, Timing, simulate};
use disagg::spec::{Distribution, Slo, Workload};

/// Waits in seconds of one instance of `servers` slots; a token takes `token_s`.
fn waits(servers: u32, osl: Distribution, rate: f64, n: usize, token_s: f64) -> Vec<f64> {
    let w = Workload { osl, ..Workload::fixed("queue", 0.0, 1.0, 1.0) };
    let t = draw::open(&w, rate, 1.0, n, 11).unwrap();
    let timing = Timing::Fixed { prefill_ps: 0, decode_ps: (token_s * 1e12) as u64 };
    let d = Deployment::uniform(1, servers, 1024, timing);
    let o = simulate(&d, &t.requests, &Settings::default(), &Control::new()).unwrap();
    assert_eq!(o.counts(), (n, 0, 0));
    Latencies::of(&t.requests, &o).ttft_ms.iter().map(|ms| ms / 1e3 - token_s).collect()
}

#[test]
fn m_d_1_inside_the_99_percent_interval() {
    // Pollaczek and Khinchine: rho / (2 (1 - rho)) services of 1 s.
    let i = interval(&waits(1, Distribution::fixed(1.0), 0.7, 200_000, 1.0), true);
    let (theory, half) = (0.7 / (2.0 * 0.3), i.half_99.unwrap());
    assert!((i.mean - theory).abs() < half && half < 0.1 * theory, "{i:?} {theory}");
}

#[test]
fn m_m_c_inside_the_99_percent_interval() {
    // Erlang C with 4 servers at 80 %: 0.5964 / (4 - 3.2) services; a service is a geometric number
    // of tokens of 1/500 of it, and an arrival waits half a token for the step to end.
    let i = interval(&waits(4, Distribution::Geometric { mean: 500.0 }, 3.2, 200_000, 0.002), true);
    let (theory, half) = (0.596_43 / 0.8 + 0.001, i.half_99.unwrap());
    assert!((i.mean - theory).abs() < half && half < 0.1 * theory, "{i:?} {theory}");
}

#[test]
fn intervals_of_correlated_series_cover_as_often_as_they_say() {
    // First-order autoregression (0.8) of known mean 0: 95 % intervals miss about one time in twenty.
    let mut rng = rand_pcg::Pcg64::new(5, 5);
    let misses = (0..400)
        .filter(|_| {
            let mut x = 0.0;
            let series: Vec<f64> = (0..4000)
                .map(|_| {
                    x = 0.8 * x + draw::uniform(&mut rng) - 0.5;
                    x
                })
                .collect();
            let i = interval(&series, false);
            i.mean.abs() > i.half_95.unwrap()
        })
        .count();
    assert!((8..=36).contains(&misses), "{misses} of 400");
}

#[test]
fn the_warm_up_is_cut_and_no_more() {
    let mut rng = rand_pcg::Pcg64::new(6, 6);
    let noisy: Vec<f64> = (0..2000).map(|i| (if i < 300 { 50.0 } else { 0.0 }) + draw::uniform(&mut rng)).collect();
    assert!((300..600).contains(&warm_up(&noisy)), "{}", warm_up(&noisy));
    assert_eq!(warm_up(&[1.0; 500]), 0);
    assert!(interval(&[1.0, 2.0], true).half_95.is_none());
    assert_eq!(quantile(&[0.0, 10.0, 20.0], 0.25), 5.0);
}

#[test]
fn goodput_counts_what_is_lost_as_missed() {
    let l = Latencies {
        ttft_ms: vec![10.0, 20.0, 30.0, f64::NAN],
        tpot_ms: vec![1.0, f64::NAN, 9.0, f64::NAN],
        e2e_ms: vec![20.0, 20.0, 99.0, f64::NAN],
    };
    let slo = Slo { ttft_ms: Some(30.0), tpot_ms: Some(5.0), percentile: Some(50.0) };
    let g = metrics::judge(&l, &[true, true, true, false], 2.0, &slo);
    assert_eq!((g.requests_per_s, g.share, g.ttft_ms, g.holds), (1.0, 0.5, 20.0, false));
    let slo = Slo { percentile: Some(99.0), ..slo };
    assert_eq!(metrics::judge(&l, &[true, true, true, false], 2.0, &slo).ttft_ms, f64::INFINITY);
}
