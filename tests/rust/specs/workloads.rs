//! Statistics of workloads: closed forms against sums, published theta, sampling.

use disagg::spec::*;
use proptest::prelude::*;

use super::{lines, near};

fn preset(name: &str) -> Workload {
    catalog::workload(name).unwrap()
}

/// Theta by its definition: tokens summed over all decode steps, divided by the steps.
fn theta_by_steps(samples: &[[u32; 3]]) -> (f64, f64) {
    let (mut steps, mut sum, mut square) = (0.0, 0.0, 0.0);
    for [prefix, isl, osl] in samples {
        for k in 0..*osl {
            let tokens = f64::from(prefix + isl + k);
            steps += 1.0;
            sum += tokens;
            square += tokens * tokens;
        }
    }
    (sum / steps, (square / steps - (sum / steps).powi(2)).sqrt())
}

#[test]
fn paper_presets_have_the_papers_lengths() {
    for (name, prefix, isl, osl) in [
        ("paper-chat", 4096.0, 512.0, 256.0),
        ("paper-coding", 2048.0, 4096.0, 1024.0),
        ("paper-agentic", 524_288.0, 256.0, 8192.0),
    ] {
        let w = preset(name);
        assert!(w.is_fixed());
        let m = w.means();
        assert_eq!((m.prefix, m.isl, m.osl), (prefix, isl, osl));
        assert_eq!(w.theta(), prefix + isl + (osl - 1.0) / 2.0);
        assert_eq!(w.peak_tokens(), prefix + isl + osl);
    }
    assert_eq!(preset("inferencemax-reasoning").means().osl, 8192.0);
}

#[test]
fn measured_presets_keep_the_measured_theta() {
    // Theta for independent lengths, from the traces themselves; 26-point tables keep it to 5 %.
    for (name, theta) in [
        ("chat_short", 1322.6),
        ("chat_long_multiturn", 12_297.0),
        ("agentic_coding", 123_053.0),
        ("agentic_swe_small", 6613.6),
    ] {
        near(preset(name).theta(), theta, 0.05);
    }
    // isl = input (1 - hit), prefix = input hit.
    let m = preset("agentic_coding").means();
    near(m.prefix / (m.prefix + m.isl), 0.963, 1e-9);
    near(m.prefix + m.isl, 122_196.8, 0.01);
    let m = preset("long_context_rag_sum").means();
    assert_eq!((m.prefix, m.isl, m.osl), (9977.0, 5349.0, 149.0));
}

#[test]
fn moments_of_every_distribution_match_its_own_quantiles() {
    for d in [
        Distribution::Fixed { value: 7.0 },
        Distribution::Uniform { low: 10.0, high: 30.0 },
        Distribution::Lognormal { mean: 100.0, p90: 180.0 },
        Distribution::Quantiles { values: vec![1.0, 5.0, 100.0], at: vec![] },
        Distribution::Quantiles { values: vec![1.0, 5.0, 100.0, 1000.0], at: vec![0.0, 0.3, 0.95, 1.0] },
        Distribution::Geometric { mean: 12.5 },
    ] {
        assert!(d.check().is_empty());
        let n = 400_000;
        for power in 1..=3 {
            let sum: f64 = (0..n).map(|i| d.quantile((f64::from(i) + 0.5) / f64::from(n)).powi(power)).sum();
            near(sum / f64::from(n), d.moment(power as u32), 0.005);
        }
    }
    let d = Distribution::Lognormal { mean: 100.0, p90: 180.0 };
    near(d.quantile(0.9), 180.0, 1e-8);
    assert_eq!(Distribution::Geometric { mean: 12.5 }.quantile(0.0), 1.0);
}

#[test]
fn slot_statistics_match_the_sum_over_steps() {
    // Geometric answers of mean m: theta = P + (m - 1).
    let mut w = Workload::fixed("g", 100.0, 50.0, 1.0);
    w.osl = Distribution::Geometric { mean: 40.0 };
    near(w.theta(), 150.0 + 39.0, 1e-12);
    // Fixed lengths: uniform over 0..D-1.
    let w = Workload::fixed("f", 10.0, 5.0, 9.0);
    let (theta, std) = theta_by_steps(&[[10, 5, 9]]);
    near(w.theta(), theta, 1e-12);
    near(w.slot_load_std(), std, 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Joint samples: both moments of the slot load are exact, whatever the correlation.
    #[test]
    fn joint_theta_is_exact(samples in prop::collection::vec((0u32..2000, 1u32..2000, 1u32..300), 1..20)) {
        let whole: Vec<[u32; 3]> = samples.iter().map(|s| [s.0, s.1, s.2]).collect();
        let mut w = Workload::fixed("joint", 0.0, 1.0, 1.0);
        w.lengths = whole.iter().map(|s| s.map(f64::from)).collect();
        prop_assert!(w.check().is_empty());
        let (theta, std) = theta_by_steps(&whole);
        prop_assert!((w.theta() / theta - 1.0).abs() < 1e-9);
        prop_assert!((w.slot_load_std() - std).abs() <= 1e-6 * theta);
        prop_assert_eq!(w.is_fixed(), whole.iter().all(|s| *s == whole[0]));
    }

    /// Quantiles rise, and draws stay inside the support.
    #[test]
    fn quantiles_rise(mut values in prop::collection::vec(1.0f64..1e6, 2..30), a in 0.0f64..1.0, b in 0.0f64..1.0) {
        values.sort_by(f64::total_cmp);
        let d = Distribution::Quantiles { values: values.clone(), at: vec![] };
        let (low, high) = (a.min(b), a.max(b));
        prop_assert!(d.quantile(low) <= d.quantile(high));
        prop_assert!(d.sample(a) >= values[0] && d.sample(a) <= values[values.len() - 1]);
    }
}

#[test]
fn independent_draws_have_the_promised_statistics() {
    let w = preset("chat_short");
    // A Weyl sequence per dimension: even coverage without a generator.
    let u = |i: u32, step: f64| (f64::from(i) * step).fract();
    let draws: Vec<[u32; 3]> =
        (0..40_000).map(|i| w.sample([u(i, 0.618_033_988_7), u(i, 0.754_877_666_2), u(i, 0.569_840_290_9)])).collect();
    let (theta, std) = theta_by_steps(&draws);
    near(theta, w.theta(), 0.01);
    near(std, w.slot_load_std(), 0.02);
    assert!(draws.iter().all(|[_, isl, osl]| *isl >= 1 && *osl >= 1));
}

#[test]
fn wrong_lengths_are_named_as_the_user_wrote_them() {
    let mut w = Workload::fixed("w", -1.0, 0.0, f64::NAN);
    assert_eq!(
        lines(&w.check()),
        [
            "prefix: must be from 0 to 1e8, is -1",
            "isl: must be from 1 to 1e8, is 0",
            "osl: must be from 1 to 1e8, is NaN",
        ]
    );
    w.prefix = Distribution::Uniform { low: 5.0, high: 2.0 };
    w.isl = Distribution::Lognormal { mean: 100.0, p90: 300.0 };
    w.osl = Distribution::Quantiles { values: vec![1.0, 3.0, 2.0], at: vec![0.0, 0.5, 0.9] };
    assert_eq!(
        lines(&w.check()),
        [
            "prefix.low: 5 is above high 2",
            "isl.p90: 300 does not go with mean 100; from the mean to 2.27 times it: no lognormal has more",
            "osl.values: must not fall: 2 after 3; sort them",
            "osl.at: must start at 0 and end at 1",
        ]
    );
    w.lengths = vec![[0.0, 5.0, 5.0], [0.0, 1e9, 0.0]];
    assert_eq!(
        lines(&w.check()),
        ["lengths[1].isl: must be from 1 to 1e8, is 1000000000", "lengths[1].osl: must be from 1 to 1e8, is 0",]
    );
}

/// Theta and its spread from many drawn requests.
fn drawn(w: &Workload) -> ((f64, f64), f64, [f64; 2]) {
    let draw = w.sampler();
    let u = |i: u32, step: f64| (f64::from(i) * step).fract();
    let all: Vec<[u32; 3]> =
        (1..=40_000).map(|i| draw([u(i, 0.618_033_988_7), u(i, 0.754_877_666_2), u(i, 0.569_840_290_9)])).collect();
    let n = all.len() as f64;
    let mean = |f: &dyn Fn(&[u32; 3]) -> f64| all.iter().map(f).sum::<f64>() / n;
    let (i, o) = (mean(&|r| f64::from(r[1])), mean(&|r| f64::from(r[2])));
    let cross = mean(&|r| (f64::from(r[1]) - i) * (f64::from(r[2]) - o));
    let (si, so) = (mean(&|r| (f64::from(r[1]) - i).powi(2)), mean(&|r| (f64::from(r[2]) - o).powi(2)));
    (theta_by_steps(&all), cross / (si * so).sqrt(), [i, o])
}

#[test]
fn a_correlation_is_kept_with_both_marginals() {
    let marginals = [
        (Distribution::Uniform { low: 100.0, high: 900.0 }, Distribution::Geometric { mean: 200.0 }),
        (Distribution::Lognormal { mean: 800.0, p90: 1500.0 }, Distribution::Uniform { low: 10.0, high: 400.0 }),
    ];
    for (isl, osl) in marginals {
        let alone = Workload { isl: isl.clone(), osl: osl.clone(), ..Workload::fixed("w", 64.0, 1.0, 1.0) };
        for correlation in [-0.6, 0.0, 0.3, 0.8] {
            let w = Workload { correlation, ..alone.clone() };
            assert!(w.check().is_empty(), "{:?}", lines(&w.check()));
            let ((theta, std), r, [i, o]) = drawn(&w);
            assert!((r - correlation).abs() < 0.02, "{r} for {correlation}");
            near(i, isl.mean(), 0.01);
            near(o, osl.mean(), 0.01);
            near(w.theta(), theta, 0.015);
            near(w.slot_load_std(), std, 0.03);
            // By hand: E[DP] grows by the covariance, and nothing else does.
            let by_hand = correlation * (isl.variance() * osl.variance()).sqrt() / osl.mean();
            assert!((w.theta() - alone.theta() - by_hand).abs() < 1e-9 * theta);
        }
    }
}

#[test]
fn no_joint_lengths_have_an_impossible_correlation() {
    // Two uniforms reach both ends; exponential-like lengths reach -(pi^2/6 - 1) at most when one falls.
    let uniform = Distribution::Uniform { low: 1.0, high: 99.0 };
    let [least, most] = distribution::correlation_range(&uniform, &uniform).unwrap();
    assert!((least + 1.0).abs() < 1e-4 && (most - 1.0).abs() < 1e-4, "{least} {most}");
    let long = Distribution::Geometric { mean: 4000.0 };
    let [least, most] = distribution::correlation_range(&long, &long).unwrap();
    assert!((least - (1.0 - std::f64::consts::PI.powi(2) / 6.0)).abs() < 2e-3, "{least}");
    assert!((most - 1.0).abs() < 2e-3, "{most}");
    // Lognormals in closed form: (exp(-s^2) - 1) / (exp(s^2) - 1) = -exp(-s^2).
    let skewed = Distribution::Lognormal { mean: 100.0, p90: 200.0 };
    let [least, _] = distribution::correlation_range(&skewed, &skewed).unwrap();
    assert!((least + 1.0 / (1.0 + skewed.variance() / 100f64.powi(2))).abs() < 1e-3, "{least}");

    let said = |isl: &Distribution, osl: &Distribution, correlation: f64| {
        let w = Workload { isl: isl.clone(), osl: osl.clone(), correlation, ..Workload::fixed("w", 0.0, 1.0, 1.0) };
        lines(&w.check())
    };
    assert_eq!(
        said(&long, &long, -0.9),
        ["correlation: -0.9 is not possible for this isl and osl; these marginals allow -0.645 to 1.000"]
    );
    assert!(said(&long, &long, -0.6).is_empty() && said(&long, &long, 0.9).is_empty());
    assert_eq!(said(&uniform, &long, 1.5), ["correlation: must be from -1 to 1, is 1.5"]);
    assert!(said(&uniform, &long, f64::NAN)[0].contains("must be from -1 to 1"));
    let whole = Distribution::Fixed { value: 7.0 };
    assert!(said(&uniform, &whole, 0.1)[0].contains("a length that does not vary has none"));
    let joint = Workload { lengths: vec![[0.0, 1.0, 1.0]], correlation: 0.2, ..Workload::fixed("w", 0.0, 1.0, 1.0) };
    assert!(lines(&joint.check())[0].contains("stands beside lengths"));
}
