//! Closed forms of the literature: provisioning, the micro-batch rule, and the schedule they are held against.

use disagg::math::normal;
use disagg::serving::pipeline::{Stages, schedule, schedule_flat, uniform_alone, uniform_overlapped};
use disagg::serving::provision::Stations;
use proptest::prelude::*;

/// Coefficients of arXiv 2601.21351 table 2 (cycles; DeepSeek-V3 on Ascend 910C).
fn paper(batch: f64, mu_p: f64, mu_d: f64, requests: Option<f64>) -> Stations {
    Stations {
        alpha_a: 0.00165,
        beta_a: 50.0,
        alpha_f: 0.083,
        beta_f: 100.0,
        alpha_c: 0.022,
        beta_c: 20.0,
        batch,
        mu_p,
        mu_d,
        requests,
        barrier: false,
    }
}

#[test]
fn published_ratios() {
    let finite = [
        (128.0, 100.0, 500.0, 7.08),
        (256.0, 100.0, 500.0, 9.34),
        (512.0, 100.0, 500.0, 10.31),
        (256.0, 100.0, 100.0, 2.17),
        (256.0, 500.0, 500.0, 17.25),
    ];
    for (b, p, d, want) in finite {
        let r = paper(b, p, d, Some(10_000.0)).best().unwrap().ratio;
        assert!((r / want - 1.0).abs() < 0.01, "B {b} ({p}, {d}): {r} for {want}");
    }
    // The long run, by the same formulas (reference values to three digits).
    for (b, p, d, want) in [
        (128.0, 100.0, 500.0, 7.22),
        (256.0, 100.0, 500.0, 9.57),
        (512.0, 100.0, 500.0, 10.75),
        (256.0, 500.0, 500.0, 17.53),
    ] {
        let r = paper(b, p, d, None).best().unwrap().ratio;
        assert!((r - want).abs() < 0.006, "B {b} ({p}, {d}): {r} for {want}");
    }
    assert_eq!(paper(256.0, 100.0, 500.0, None).best().unwrap().bottleneck, "attention");
    assert_eq!(paper(256.0, 100.0, 100.0, None).best().unwrap().bottleneck, "ffn");
}

/// The best of a fine grid of ratios: the slow, obvious twin.
fn best_of_grid(s: &Stations) -> (f64, f64) {
    let ratios = (0..20_000).map(|i| 0.01 * 1.0005_f64.powi(i));
    ratios.map(|r| (r, s.throughput(r))).fold((0.0, 0.0), |best, x| if x.1 > best.1 { x } else { best })
}

#[test]
fn the_candidates_are_the_best_of_all_ratios() {
    for (b, p, d) in [(64.0, 100.0, 500.0), (256.0, 100.0, 100.0), (256.0, 500.0, 500.0), (512.0, 0.0, 50.0)] {
        for requests in [None, Some(10_000.0)] {
            let s = paper(b, p, d, requests);
            let (ratio, rate) = best_of_grid(&s);
            let found = s.best().unwrap();
            assert!((found.ratio / ratio - 1.0).abs() < 2e-3, "{s:?}: {found:?} against {ratio}");
            assert!(found.throughput >= rate * (1.0 - 1e-9));
        }
    }
}

#[test]
fn a_barrier_costs_more_with_more_instances() {
    let free = paper(256.0, 100.0, 500.0, None);
    let held = Stations { barrier: true, ..free };
    let loss = |r: f64| 1.0 - held.throughput(r) / free.throughput(r);
    for r in [1.0, 2.0, 4.0, 8.0] {
        assert!(loss(r) >= -1e-12 && loss(r) < 0.25, "{r}: {}", loss(r));
    }
    assert!(loss(8.0) > loss(2.0));
    let (free, best) = (free.best().unwrap(), held.best().unwrap());
    assert!(best.throughput < free.throughput);
    let (_, grid) = best_of_grid(&held);
    assert!(best.throughput >= grid * (1.0 - 1e-7), "{best:?} against {grid}");
    // Without spread there is nothing to wait for.
    let even = Stations { mu_d: 0.0, ..held };
    assert_eq!(even.pace(4.0), Stations { barrier: false, ..even }.pace(4.0));
}

/// The same expectation from draws: a linear congruential generator and Box-Muller.
#[test]
fn expected_maximum_against_draws() {
    let mut state = 7_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    for (other, mean, sigma, r) in [(1.0, 1.0, 0.2, 8_u32), (0.0, 1.0, 0.5, 3), (2.0, 1.0, 0.4, 32)] {
        let n = 40_000;
        let sum: f64 = (0..n)
            .map(|_| {
                (0..r).fold(other, |m: f64, _| {
                    let z = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
                    m.max(mean + sigma * z)
                })
            })
            .sum();
        let drawn = sum / f64::from(n);
        let exact = other + sigma * normal::excess((other - mean) / sigma, f64::from(r));
        assert!((drawn - exact).abs() < 5.0 * sigma / f64::from(n).sqrt(), "{drawn} against {exact}");
    }
}

#[test]
fn bad_numbers_are_named_together() {
    let s = Stations { batch: 0.0, alpha_f: f64::NAN, requests: Some(-1.0), ..paper(1.0, 1.0, 1.0, None) };
    let text = s.best().unwrap_err().to_string();
    for field in ["batch", "alpha_f", "requests"] {
        assert!(text.contains(field), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// MegaScale-Infer (arXiv 2504.02263): with T_a = T_e = T_f and T_c < T_f, m >= 2 (1 + T_c/T_f)
    /// hides communication; then T = m T_f L overlapped, and with fewer micro-batches it does not.
    #[test]
    fn megascale_rule(f in 1.0..100.0f64, share in 0.01..1.0f64, layers in 2u32..80, m in 1u32..7) {
        let s = Stages::new(f, share * f, f, share * f);
        let hidden = f64::from(layers) * f64::from(m) * f;
        let t = uniform_overlapped(&s, layers, m);
        if f64::from(m) >= 2.0 * (1.0 + share) {
            prop_assert!((t / hidden - 1.0).abs() < 1e-12);
            // T_total = (T_a + T_e + 2 T_c) + T_f (m L - 1), one step alone.
            let alone = s.sum() + f * (f64::from(m * layers) - 1.0);
            prop_assert!((uniform_alone(&s, layers, m) / alone - 1.0).abs() < 1e-12);
        } else {
            prop_assert!(t > hidden);
        }
        let least = if share < 0.5 { 3 } else { 4 };
        prop_assert!(f64::from(least) >= 2.0 * (1.0 + share) || share == 0.5);
    }

    /// A flat array in any of its three shapes is the schedule of its groups.
    #[test]
    fn flat_arrays(rows in proptest::collection::vec(proptest::collection::vec(0.0..10.0f64, 4), 1..6), m in 1u32..5, half: bool, overlapped: bool) {
        let layers = rows.len() as u32;
        let stages = |r: &Vec<f64>| Stages::new(r[0], r[1], r[2], r[3]);
        let groups: Vec<(u32, Vec<Stages>)> = rows.iter().map(|r| (1, vec![stages(r); m as usize])).collect();
        let slow = schedule(&groups, half, overlapped);
        let two: Vec<f64> = rows.concat();
        let three: Vec<f64> = rows.iter().flat_map(|r| r.repeat(m as usize)).collect();
        let by_layer = schedule_flat(&two, &[rows.len(), 4], layers, m, 1, half, overlapped).unwrap();
        let by_part = schedule_flat(&three, &[rows.len(), m as usize, 4], layers, m, 1, half, overlapped).unwrap();
        prop_assert!((by_layer - slow).abs() <= 1e-9 * slow && by_part == by_layer);
        let one = schedule_flat(&rows[0], &[4], 5, m, 1, half, overlapped).unwrap();
        let same = schedule(&[(5, vec![stages(&rows[0]); m as usize])], half, overlapped);
        prop_assert!((one - same).abs() <= 1e-9 * same);
    }
}

#[test]
fn the_sum_at_one_micro_batch_and_wrong_shapes() {
    assert_eq!(schedule_flat(&[20.0, 10.0, 5.0, 5.0], &[4], 1, 1, 1, false, false).unwrap(), 40.0);
    for (shape, layers, m) in [(&[4, 1][..], 4, 1), (&[1, 4], 2, 1), (&[1, 1, 4], 1, 2), (&[4], 0, 1), (&[4], 1, 65)] {
        assert!(schedule_flat(&[1.0; 4], shape, layers, m, 1, false, true).is_err(), "{shape:?}");
    }
    let text = schedule_flat(&[1.0, f64::NAN, 1.0, 1.0], &[4], 0, 0, 1, false, true).unwrap_err().to_string();
    for field in ["layers", "microbatches", "stage_ms"] {
        assert!(text.contains(field), "{text}");
    }
}
