//! Statistics of runs: queueing theory inside the intervals, intervals that cover, goodput.

use disagg::control::Control;
use disagg::sim::metrics::{self, Latencies};
use disagg::sim::statistics::{interval, quantile};
use disagg::sim::steady::{Steady, steady};
use disagg::sim::trace::draw;
use disagg::sim::{Deployment, Requests, Settings, Timing, simulate};
use disagg::spec::{Distribution, Slo, Workload};

/// Waits in seconds of one instance of `servers` slots; a token takes `token_s`. One more request decodes all the time,
/// so that every step is a decode step.
fn waits(servers: u32, osl: Distribution, rate: f64, n: usize, token_s: f64) -> Vec<f64> {
    let w = Workload { osl, ..Workload::fixed("queue", 0.0, 1.0, 1.0) };
    let mut r = draw::open(&w, rate, 1.0, n, 11).unwrap().requests;
    r.arrival_ps.insert(0, 0);
    r.isl.insert(0, 1);
    r.osl.insert(0, (2.0 * n as f64 / rate / token_s) as u32);
    let timing = Timing::Fixed { prefill_ps: 0, decode_ps: (token_s * 1e12) as u64 };
    let d = Deployment::uniform(1, servers + 1, 1024, timing);
    let o = simulate(&d, &r, &Settings::default(), &Control::new()).unwrap();
    assert_eq!(o.counts(), (n + 1, 0, 0));
    Latencies::of(&r, &o).ttft_ms[1..].iter().map(|ms| ms / 1e3 - token_s).collect()
}

#[test]
fn m_d_1_inside_the_99_percent_interval() {
    // Pollaczek and Khinchine: rho / (2 (1 - rho)) services of 1 s, which the end of a prompt is here.
    let w = Workload::fixed("queue", 0.0, 1.0, 1.0);
    let t = draw::open(&w, 0.7, 1.0, 200_000, 11).unwrap();
    let d = Deployment::uniform(1, 1, 1024, Timing::Fixed { prefill_ps: 1_000_000_000_000, decode_ps: 1 });
    let o = simulate(&d, &t.requests, &Settings::default(), &Control::new()).unwrap();
    let waits: Vec<f64> = Latencies::of(&t.requests, &o).ttft_ms.iter().map(|ms| ms / 1e3 - 1.0).collect();
    let i = interval(&waits);
    let (theory, half) = (0.7 / (2.0 * 0.3), i.half_99.unwrap());
    assert!((i.mean - theory).abs() < half && half < 0.1 * theory, "{i:?} {theory}");
}

#[test]
fn m_m_c_inside_the_99_percent_interval() {
    // Erlang C with 4 servers at 80 %: 0.5964 / (4 - 3.2) services; a service is a geometric number
    // of tokens of 1/500 of it, and an arrival waits half a token for the step to end.
    let i = interval(&waits(4, Distribution::Geometric { mean: 500.0 }, 3.2, 200_000, 0.002));
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
            let i = interval(&series);
            let (low, high) = i.ends_95().unwrap();
            low > 0.0 || high < 0.0
        })
        .count();
    assert!((8..=36).contains(&misses), "{misses} of 400");
}

#[test]
fn a_skewed_series_reaches_further_up() {
    // Means of a lognormal (sigma 2) are skewed: the interval is wider above, and covers where an even one does not.
    let mut rng = rand_pcg::Pcg64::new(6, 6);
    let truth = 2f64.exp();
    let (mut uneven, mut even, mut up, mut ended) = (0, 0, 0, 0);
    for _ in 0..400 {
        let series: Vec<f64> = (0..400)
            .map(|_| {
                let (r, a) = (draw::uniform(&mut rng), draw::uniform(&mut rng));
                (2.0 * (-2.0 * (1.0 - r).ln()).sqrt() * (std::f64::consts::TAU * a).cos()).exp()
            })
            .collect();
        let i = interval(&series);
        let (low, high) = i.ends_95().unwrap();
        uneven += usize::from((low..=high).contains(&truth));
        // The same variance, evenly.
        let half = (high - low) / 2.0;
        even += usize::from((i.mean - truth).abs() <= half);
        up += usize::from(high - i.mean > i.mean - low);
        ended += usize::from(i.half_95.is_some());
        assert!(i.half_95.is_none_or(|h| h >= half && i.half_99.is_none_or(|w| w > h)));
    }
    assert!(uneven >= even && uneven >= 350 && up > 380, "{uneven} and {even} of 400, {up} wider above");
    assert!(ended >= 350, "{ended} have both ends");
    assert!(interval(&[1.0, 2.0]).half_95.is_none());
    assert_eq!(interval(&[3.0; 500]).half_95, Some(0.0));
    assert_eq!(quantile(&[0.0, 10.0, 20.0], 0.25), 5.0);
}

/// One instance of 16 seats, steps of 50 ms and 15 ms: it serves some 7.2 requests a second.
fn loaded(rate: f64, n: usize, seed: u64) -> (Requests, disagg::sim::Outcome) {
    let osl = Distribution::Lognormal { mean: 100.0, p90: 200.0 };
    let w = Workload { osl, ..Workload::fixed("w", 0.0, 500.0, 1.0) };
    let r = draw::open(&w, rate, 1.0, n, seed).unwrap().requests;
    let timing = Timing::Fixed { prefill_ps: 50_000_000_000, decode_ps: 15_000_000_000 };
    let d = Deployment::uniform(1, 16, 2048, timing);
    let o = simulate(&d, &r, &Settings::default(), &Control::new()).unwrap();
    (r, o)
}

#[test]
fn overload_is_called_unstable_with_what_it_lacks_and_load_is_not() {
    // What it serves where all come at once.
    let (r, o) = loaded(1e4, 4000, 0);
    let mut ends = o.finish_ps.clone();
    ends.sort_unstable();
    let capacity = 3000.0 / ((ends[3500] - ends[500]) as f64 / 1e12);
    assert!(matches!(steady(&r, &o), Steady::Short { .. } | Steady::Unstable { .. }));
    for seed in 0..8 {
        for load in [0.5, 0.8, 0.95] {
            let (r, o) = loaded(load * capacity, 3000, seed);
            assert_eq!(steady(&r, &o), Steady::Yes, "{load} {seed}");
        }
        for load in [1.15, 1.5, 4.0] {
            let (r, o) = loaded(load * capacity, 3000, seed);
            let Steady::Unstable { arrive, served } = steady(&r, &o) else {
                panic!("{load} {seed}: {:?}", steady(&r, &o))
            };
            assert!(
                (served / capacity - 1.0).abs() < 0.06 && (arrive / capacity / load - 1.0).abs() < 0.08,
                "{served}"
            );
            let s = metrics::summary(&r, &o, 1);
            assert!(!s.stable && s.shows == "unstable" && (s.lacks_requests_per_s - (arrive - served)).abs() < 1e-9);
            assert!(s.ttft_ms.unwrap().half_95.is_none() && s.notes[0].starts_with("unstable"), "{:?}", s.notes);
        }
    }
    // Ten seconds of arrivals and stays of two: good enough for a look, and it says so.
    let (r, o) = loaded(0.8 * capacity, 60, 1);
    let s = metrics::summary(&r, &o, 1);
    assert!(s.stable && s.notes.len() == 1 && s.notes[0].starts_with("short: arrivals last"), "{:?}", s.notes);
    // A burst shorter than a stay shows neither a steady state nor its lack, and has no interval of one.
    let (r, o) = loaded(400.0 * capacity, 3000, 1);
    let burst = metrics::summary(&r, &o, 1);
    for s in [s, burst] {
        let bare = [s.ttft_ms, s.tpot_ms, s.e2e_ms].iter().all(|i| i.unwrap().ends_95().is_none());
        assert!(s.shows == "short" && s.stable && s.lacks_requests_per_s == 0.0 && bare, "{s:?}");
    }
}

#[test]
fn goodput_is_over_the_time_of_the_arrivals() {
    // A thousand seats: nothing waits, so all that comes is good, however long the last answers take.
    let w = Workload::fixed("w", 0.0, 100.0, 200.0);
    let timing = Timing::Fixed { prefill_ps: 1_000_000_000, decode_ps: 10_000_000_000 };
    let d = Deployment::uniform(1, 1000, 100_000, timing);
    let slo = Slo { ttft_ms: Some(1000.0), tpot_ms: None, percentile: None };
    for n in [300, 3000, 30_000] {
        let r = draw::open(&w, 100.0, 1.0, n, 3).unwrap().requests;
        let o = simulate(&d, &r, &Settings::default(), &Control::new()).unwrap();
        let offered = (n - 1) as f64 / ((r.arrival_ps[n - 1] - r.arrival_ps[0]) as f64 / 1e12);
        let g = metrics::goodput(&r, &o, &slo);
        assert!((g.requests_per_s / offered - 1.0).abs() < 1e-9 && g.share == 1.0, "{n}: {g:?}");
        let short = metrics::summary(&r, &o, 1).notes.iter().any(|n| n.starts_with("short: arrivals"));
        assert_eq!(short, n == 300, "{n}");
    }
}

#[test]
fn goodput_counts_what_is_lost_as_missed() {
    let l = Latencies {
        ttft_ms: vec![10.0, 20.0, 30.0, f64::NAN],
        tpot_ms: vec![1.0, f64::NAN, 9.0, f64::NAN],
        e2e_ms: vec![20.0, 20.0, 99.0, f64::NAN],
    };
    let slo = Slo { ttft_ms: Some(30.0), tpot_ms: Some(5.0), percentile: Some(50.0) };
    let g = metrics::judge(&l, &[true, true, true, false], 2.0, 0.0, &slo);
    assert_eq!((g.requests_per_s, g.share, g.ttft_ms, g.holds), (1.0, 0.5, 20.0, false));
    let slo = Slo { percentile: Some(99.0), ..slo };
    assert_eq!(metrics::judge(&l, &[true, true, true, false], 2.0, 0.0, &slo).ttft_ms, f64::INFINITY);
}
