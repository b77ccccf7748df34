//! Compiled kernel surfaces: verbatim hits, edges, order, odd EPs, prefill over a past.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use disagg::kernels::ops::{self, ExpertShape, Served, Source};
use disagg::kernels::report;
use disagg::kernels::table::{Table, TableKey};
use disagg::kernels::{Evidence, KernelDb, Surface};
use disagg::spec::{Device, Dtype, Model, catalog};
use proptest::prelude::*;

fn device() -> Device {
    catalog::system("b200_sxm").unwrap().0
}

fn pack() -> Arc<KernelDb> {
    static DB: OnceLock<Arc<KernelDb>> = OnceLock::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/disagg/data/kernels");
    DB.get_or_init(|| KernelDb::open(&dir).unwrap()).clone()
}

fn source(framework: &str, graph: bool) -> Source {
    Source {
        db: pack(),
        system: "b200_sxm".into(),
        framework: framework.into(),
        device: device(),
        graph,
        by_rule: false,
    }
}

fn deepseek(sparse: bool) -> Model {
    catalog::model(if sparse { "deepseek-ai/DeepSeek-V3.2" } else { "deepseek-ai/DeepSeek-V3" }).unwrap()
}

fn experts(ep: u32) -> ExpertShape {
    ExpertShape { hidden: 7168, intermediate: 2048, topk: 8, experts: 256, moe_tp: 1, ep, gated: true }
}

/// A database with one made-up GEMM table: (m, milliseconds) of one (n, k).
fn made_up(curve: &[(i64, f32)], graph: bool) -> Source {
    let int = |name: &str, values: Vec<i64>| TableKey::Int { name: name.into(), values };
    let n = curve.len();
    let table = Table {
        system: "b200_sxm".into(),
        framework: "trtllm".into(),
        version: "1".into(),
        name: "gemm".into(),
        keys: vec![
            TableKey::Text { name: "gemm_dtype".into(), codes: vec![0; n], labels: vec!["bfloat16".into()] },
            int("m", curve.iter().map(|c| c.0).collect()),
            int("n", vec![4096; n]),
            int("k", vec![4096; n]),
        ],
        measures: vec![("latency".into(), curve.iter().map(|c| c.1).collect())],
        ..Table::default()
    };
    let db = KernelDb::empty().with_tables("made-up", vec![table]).unwrap();
    Source { db, ..source("trtllm", graph) }
}

fn made_up_gemm(curve: &[(i64, f32)], graph: bool) -> Surface {
    ops::gemm(&made_up(curve, graph), Dtype::Bf16, 4096, 4096).unwrap()
}

#[test]
fn a_grid_point_is_the_measured_value() {
    let s = made_up_gemm(&[(1, 0.010), (16, 0.012), (64, 0.020), (256, 0.050)], false);
    let r = s.at(&[64.0]);
    assert_eq!(r.seconds, f64::from(0.020_f32) * 1e-3);
    assert_eq!(r.evidence, Evidence::Measured);
    let between = s.at(&[40.0]);
    assert_eq!(between.evidence, Evidence::Interpolated);
    assert!((between.seconds - 16e-6).abs() < 1e-10, "linear between nodes: {between:?}");
    assert_eq!(s.at(&[0.5]).evidence, Evidence::Extrapolated);
    assert_eq!(s.at(&[0.5]).seconds, s.at(&[1.0]).seconds);
}

#[test]
fn beyond_the_last_point_the_slope_goes_on() {
    // 0.2 us a row on the last octave, which is above the roofline's 0.015.
    let s = made_up_gemm(&[(128, 0.030), (256, 0.0556), (512, 0.1068)], false);
    let (edge, far) = (s.at(&[512.0]).seconds, s.at(&[1512.0]));
    assert!((far.seconds - edge - 200e-6).abs() < 2e-6, "{far:?}");
    assert_eq!(far.evidence, Evidence::Extrapolated);
    // A flat lane still pays what the roofline pays.
    let flat = made_up_gemm(&[(128, 0.030), (256, 0.030), (512, 0.030)], false);
    let grown = flat.at(&[100_512.0]).seconds - flat.at(&[512.0]).seconds;
    assert!(grown >= 0.6 * 100_000.0 * 2.0 * 4096.0 * 4096.0 / 2250e12, "{grown}");
}

#[test]
fn a_spike_is_an_outlier_and_a_dip_gives_way() {
    let s = made_up_gemm(&[(16, 0.010), (32, 0.011), (64, 38.8), (128, 0.015), (256, 0.020)], false);
    assert_eq!(s.dropped().len(), 1);
    assert!(s.at(&[64.0]).seconds < 15e-6);
    let dip = made_up_gemm(&[(16, 0.010), (32, 0.011), (64, 0.006), (128, 0.015)], false);
    assert!(dip.dropped().is_empty());
    assert!(dip.at(&[64.0]).seconds >= 0.9 * dip.at(&[32.0]).seconds);
    assert_ne!(dip.at(&[64.0]).evidence, Evidence::Measured);
}

#[test]
fn a_graph_takes_the_launch_floor_off_and_leaves_large_sizes() {
    let curve = [(1, 0.250), (64, 0.250), (1024, 0.250), (8192, 0.500), (32768, 2.0)];
    let (eager, graph) = (made_up_gemm(&curve, false), made_up_gemm(&curve, true));
    assert_eq!(eager.at(&[64.0]).evidence, Evidence::Measured);
    let r = graph.at(&[64.0]);
    assert_eq!(r.evidence, Evidence::Roofline);
    assert!(r.seconds < 20e-6, "{r:?}");
    assert_eq!(graph.at(&[32768.0]), eager.at(&[32768.0]));
    // A lane without such a floor is untouched.
    let sound = [(1, 0.010), (64, 0.011), (1024, 0.03)];
    assert_eq!(made_up_gemm(&sound, true).at(&[64.0]), made_up_gemm(&sound, false).at(&[64.0]));
}

#[test]
fn nothing_measured_is_a_tagged_roofline() {
    let empty = Source { db: KernelDb::empty(), ..source("trtllm", true) };
    let surfaces = [
        ops::gemm(&empty, Dtype::Fp8Block, 4096, 4096).unwrap(),
        ops::context_attention(&empty, 8, 1, 128, 0, Dtype::Bf16, Dtype::Fp8).unwrap(),
        ops::generation_attention(&empty, 8, 1, 128, 128, Dtype::Fp8).unwrap(),
        ops::mla_context(&empty, &deepseek(true), 128, Dtype::Fp8Block, Dtype::Fp8).unwrap(),
        ops::mla_generation(&empty, &deepseek(false), 128, Dtype::Fp8Block, Dtype::Fp8).unwrap(),
        ops::moe(&empty, experts(8), Dtype::Nvfp4, "balanced").unwrap(),
        ops::memory(&empty),
    ];
    for s in surfaces {
        let r = s.at(&[4.0, 100.0, 1000.0]);
        assert!(r.seconds > 0.0 && r.seconds.is_finite(), "{}", s.source());
        assert_eq!(r.evidence, Evidence::Roofline, "{}", s.source());
    }
    assert!(ops::grouped_moe(&empty, experts(8), Dtype::Fp8Block, "uniform", true).unwrap().is_none());
}

#[test]
fn measured_rows_of_the_pack_come_back_verbatim() {
    // One row each of the parquet files (b200).
    let t = source("trtllm", false);
    let near = |s: &Surface, x: &[f64], ms: f64| {
        let r = s.at(x);
        assert!((r.seconds / (ms * 1e-3) - 1.0).abs() < 1e-3, "{} at {x:?}: {r:?}, not {ms} ms", s.source());
        assert_eq!(r.evidence, Evidence::Measured);
    };
    let dsa = ops::mla_context(&t, &deepseek(true), 128, Dtype::Fp8Block, Dtype::Fp8).unwrap();
    near(&dsa, &[1.0, 4096.0, 0.0], 2.5896);
    near(&dsa, &[1.0, 512.0, 128.0], 0.2832);
    let dsa = ops::mla_generation(&t, &deepseek(true), 128, Dtype::Fp8Block, Dtype::Fp8).unwrap();
    near(&dsa, &[128.0, 4096.0], 0.2435);
    let g = source("sglang", false);
    let dsa = ops::mla_context(&g, &deepseek(true), 128, Dtype::Fp8Block, Dtype::Fp8).unwrap();
    near(&dsa, &[1.0, 4096.0, 65_536.0], 4.9054);
    let grouped = ops::grouped_moe(&g, experts(64), Dtype::Fp8Block, "power_law_1.01", false).unwrap().unwrap();
    near(&grouped, &[65_536.0], 2.3300);
}

#[test]
fn trtllm_past_grows_by_what_sglang_measured() {
    let at = |framework: &str, x: [f64; 3]| {
        ops::mla_context(&source(framework, false), &deepseek(true), 128, Dtype::Fp8Block, Dtype::Fp8)
            .unwrap()
            .at(&x)
            .seconds
    };
    // Well above sglang's eager floor its growth is taken over as it is.
    let grown = at("trtllm", [1.0, 4096.0, 65_536.0]) - at("trtllm", [1.0, 4096.0, 128.0]);
    let donor = at("sglang", [1.0, 4096.0, 65_536.0]) - at("sglang", [1.0, 4096.0, 128.0]);
    assert!((grown / donor - 1.0).abs() < 0.03, "{grown} {donor}");
    // Where sglang only shows its launch floor (0.8 ms dense, 1.4 ms sparse), trtllm does not inherit it.
    let grown = at("trtllm", [1.0, 512.0, 4096.0]) - at("trtllm", [1.0, 512.0, 0.0]);
    assert!((0.0..0.15e-3).contains(&grown), "{grown}");
}

#[test]
fn odd_expert_parallel_sizes_lie_between_their_neighbours() {
    for framework in ["trtllm", "sglang", "vllm"] {
        let s = source(framework, false);
        let at =
            |ep: u32, x: f64| ops::moe(&s, experts(ep), Dtype::Fp8Block, "power_law_1.01").unwrap().at(&[x]).seconds;
        for (low, odd, high) in [(2, 3, 4), (4, 5, 8), (16, 28, 32), (64, 126, 128)] {
            for tokens in [1.0, 100.0, 3000.0, 16384.0, 60000.0] {
                let (a, b, c) = (at(low, tokens), at(odd, tokens), at(high, tokens));
                assert!(b <= 1.05 * a.max(c) && b >= 0.95 * a.min(c), "{framework} ep {odd} at {tokens}: {a} {b} {c}");
            }
        }
        // The fullest rank counts: 126 ranks hold 3 experts, as 86 do.
        assert_eq!(at(126, 64.0), at(86, 64.0));
        assert_eq!(at(300, 64.0), at(256, 64.0));
    }
}

#[test]
fn a_shape_axis_is_continuous_through_its_sites() {
    let s = source("trtllm", false);
    let at = |n: u32| ops::gemm(&s, Dtype::Fp8Block, n, 7168).unwrap().at(&[64.0]).seconds;
    for n in [4096, 5120, 7168] {
        assert!((at(n) / at(n + 1) - 1.0).abs() < 0.01);
        assert!((at(n) / at(n - 1) - 1.0).abs() < 0.01);
    }
}

#[test]
fn the_bad_batch_1024_line_of_sglang_decode_is_not_used() {
    let s = ops::mla_generation(&source("sglang", false), &deepseek(true), 128, Dtype::Fp8Block, Dtype::Fp8).unwrap();
    assert!(!s.dropped().is_empty());
    let (half, whole) = (s.at(&[512.0, 64.0]).seconds, s.at(&[1024.0, 64.0]).seconds);
    assert!(whole < 2.5 * half, "{half} {whole}");
}

#[test]
fn leave_one_out_stays_within_its_bounds() {
    for (framework, table, bound) in [
        ("trtllm", "gemm", 0.035),
        ("trtllm", "dsa_generation_module", 0.03),
        ("sglang", "dsa_context_module", 0.04),
        ("sglang", "moe", 0.05),
    ] {
        let rows = report::leave_one_out(&source(framework, false), table, 40, 7).unwrap();
        let points: Vec<_> = rows.iter().filter(|r| r.axis == "point").collect();
        let n: usize = points.iter().map(|r| r.n).sum();
        let median = points.iter().map(|r| r.median * r.n as f64).sum::<f64>() / n as f64;
        assert!(n >= 15 && median < bound, "{framework} {table}: {median} of {n}");
    }
    assert!(report::leave_one_out(&source("trtllm", false), "gem", 1, 1).is_err());
}

#[test]
fn suspects_are_found_by_rule() {
    let vllm = report::suspects(&source("vllm", false), "gemm").unwrap();
    assert!(vllm.iter().any(|s| s.reason.starts_with("floor")), "{vllm:?}");
    let sglang = report::suspects(&source("sglang", false), "dsa_generation_module").unwrap();
    assert!(sglang.iter().any(|s| s.reason.contains("not used")), "{sglang:?}");
}

/// Balanced rows that are slower than skewed ones are listed on every generation of device, and serving does
/// not use them; where balance was measured as such it stays.
#[test]
fn a_balanced_load_is_never_slower_than_a_skewed_one() {
    let on = |system: &str, framework: &str| {
        let device = catalog::system(system).unwrap().0;
        Source { system: system.into(), device, ..source(framework, true) }
    };
    for system in ["h100_sxm", "b200_sxm"] {
        let found = report::suspects(&on(system, "sglang"), "moe").unwrap();
        let listed = found.iter().any(|s| s.reason.starts_with("balanced") && s.lane.contains("fp8_block/7168/2048"));
        assert!(listed, "{system}: {found:?}");
    }
    for (system, framework, dtype) in [
        ("h100_sxm", "sglang", Dtype::Fp8Block),
        ("gb200", "sglang", Dtype::Nvfp4),
        ("b200_sxm", "vllm", Dtype::Nvfp4),
        ("b200_sxm", "trtllm", Dtype::Nvfp4),
    ] {
        let s = on(system, framework);
        for ep in [8, 32, 64] {
            let even = ops::served_moe(&s, experts(ep), dtype, "balanced", &Served::default()).unwrap();
            let skewed = ops::served_moe(&s, experts(ep), dtype, "power_law_1.01", &Served::default()).unwrap();
            let asked = ops::moe(&s, experts(ep), dtype, "balanced").unwrap();
            let what = format!("{system} {framework} ep {ep}: {}", even.source());
            for tokens in [2048.0, 8192.0, 16_384.0] {
                let (e, k, a) = (even.at(&[tokens]), skewed.at(&[tokens]), asked.at(&[tokens]));
                assert!(e.seconds <= 1.1 * k.seconds, "{what} at {tokens}: {e:?} against {k:?}");
                assert_eq!(e.seconds == a.seconds, framework == "trtllm", "{what}: what is asked by name stays");
                assert!(framework == "trtllm" || e.evidence == Evidence::Extrapolated, "{what}: tagged");
            }
        }
    }
}

/// NVFP4 experts of sglang and vllm have no grouped table of their own: trtllm's stands in, tagged.
#[test]
fn grouped_nvfp4_experts_borrow_the_lane_that_exists() {
    for framework in ["sglang", "vllm"] {
        let s = source(framework, true);
        let grouped = ops::grouped_moe(&s, experts(32), Dtype::Nvfp4, "balanced", true).unwrap().unwrap();
        assert!(grouped.source().contains("trtllm") && grouped.source().contains("wideep_moe"), "{}", grouped.source());
        assert_eq!(grouped.at(&[4096.0]).evidence, Evidence::Extrapolated);
        let fused = ops::moe(&s, experts(32), Dtype::Nvfp4, "balanced").unwrap();
        assert!(grouped.at(&[16_384.0]).seconds < 0.5 * fused.at(&[16_384.0]).seconds);
        // A lane of its own is preferred.
        let own = ops::grouped_moe(&s, experts(32), Dtype::Fp8Block, "balanced", true).unwrap().unwrap();
        assert!(own.source().contains("sglang"), "{}", own.source());
    }
}

/// sglang's FP8-KV decode kernel on Hopper takes longer alone than the whole block in its wide-EP table:
/// the block is taken. With BF16 KV, and on Blackwell, the kernels add up as before.
#[test]
fn a_kernel_slower_than_its_whole_block_is_not_the_one_that_runs() {
    for (system, kv, wide) in
        [("h200_sxm", Dtype::Fp8, true), ("h200_sxm", Dtype::Bf16, false), ("b200_sxm", Dtype::Fp8, false)]
    {
        let device = catalog::system(system).unwrap().0;
        let s = Source { system: system.into(), device, ..source("sglang", true) };
        let block = ops::mla_generation(&s, &deepseek(false), 128, Dtype::Fp8Block, kv).unwrap();
        assert_eq!(block.source().contains("wideep_generation_mla"), wide, "{system} {kv:?}: {}", block.source());
        let kernel = ops::mla_kernel(&s, &deepseek(false), 128, kv, true).unwrap().unwrap();
        let (whole, part) = (block.at(&[128.0, 2048.0]).seconds, kernel.at(&[128.0, 2048.0]).seconds);
        assert_eq!(part > whole, wide, "{system} {kv:?}: {part} of {whole}");
    }
}

#[test]
fn noise_is_of_repeats_or_unknown() {
    for (framework, table, repeats) in [("trtllm", "gemm", false), ("sglang", "moe", true)] {
        let on = Source { system: "gb200".into(), ..source(framework, false) };
        let rows = report::leave_one_out(&on, table, 6, 3).unwrap();
        assert!(!rows.is_empty());
        for r in rows {
            assert_eq!(r.noise.is_finite(), repeats, "{r:?}");
            assert!(!repeats || r.noise > 0.0, "{r:?}");
            assert!(r.jitter > 0.0 && r.jitter < 0.2, "{r:?}");
            assert_eq!(r.within(), r.median <= r.aim && r.p90 <= 0.2);
        }
    }
}

/// A surface of every operator, on every framework.
fn zoo() -> &'static [(Surface, usize)] {
    static ZOO: OnceLock<Vec<(Surface, usize)>> = OnceLock::new();
    ZOO.get_or_init(|| {
        let mut all = Vec::new();
        for framework in ["trtllm", "sglang", "vllm"] {
            for graph in [false, true] {
                let s = source(framework, graph);
                all.push((ops::gemm(&s, Dtype::Fp8Block, 7168, 2048).unwrap(), 1));
                all.push((ops::gemm(&s, Dtype::Int4Wo, 30_000, 999).unwrap(), 1));
                all.push((ops::context_attention(&s, 64, 4, 128, 0, Dtype::Bf16, Dtype::Bf16).unwrap(), 3));
                all.push((ops::context_attention(&s, 7, 1, 64, 128, Dtype::Fp8, Dtype::Fp8).unwrap(), 3));
                all.push((ops::generation_attention(&s, 16, 2, 128, 0, Dtype::Fp8).unwrap(), 2));
                for (heads, kv) in [(128, Dtype::Fp8), (16, Dtype::Bf16), (4, Dtype::Fp8)] {
                    for sparse in [true, false] {
                        all.push((ops::mla_context(&s, &deepseek(sparse), heads, Dtype::Fp8Block, kv).unwrap(), 3));
                        all.push((ops::mla_generation(&s, &deepseek(sparse), heads, Dtype::Nvfp4, kv).unwrap(), 2));
                    }
                }
                for ep in [1, 28, 64, 300] {
                    all.push((ops::moe(&s, experts(ep), Dtype::Fp8Block, "power_law_1.01").unwrap(), 1));
                    for decode in [true, false] {
                        if let Some(g) = ops::grouped_moe(&s, experts(ep), Dtype::Fp8Block, "balanced", decode).unwrap()
                        {
                            all.push((g, 1));
                        }
                    }
                }
                all.push((ops::memory(&s), 1));
            }
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_input_gives_a_positive_finite_time(b in -3.0..9.0_f64, c in -3.0..9.0_f64, p in -3.0..9.0_f64) {
        for (s, _) in zoo() {
            let r = s.at(&[10f64.powf(b), 10f64.powf(c), 10f64.powf(p)]);
            prop_assert!(r.seconds > 0.0 && r.seconds.is_finite(), "{}", s.source());
        }
    }

    #[test]
    fn more_never_costs_less_than_nine_tenths(b in 0.0..3.3_f64, c in 0.0..4.5_f64, p in 0.0..5.3_f64, axis in 0..3_usize, factor in 1.0..4.0_f64) {
        for (s, axes) in zoo() {
            let x = [10f64.powf(b), 10f64.powf(c), 10f64.powf(p)];
            let mut y = x;
            y[axis % axes] *= factor;
            let (small, large) = (s.at(&x[..*axes]).seconds, s.at(&y[..*axes]).seconds);
            // DSA changes its kernel at new + past = 2,048; two measured kernels meet there.
            let switch = *axes == 3 && x[1] + x[2] <= 2048.0 && y[1] + y[2] > 2048.0;
            prop_assert!(large >= if switch { 0.75 } else { 0.899 } * small, "{}: {x:?} {small}, {y:?} {large}", s.source());
        }
    }

    #[test]
    fn a_small_step_is_a_small_change(b in 0.0..3.5_f64, c in 0.0..5.0_f64, p in 0.0..5.5_f64, axis in 0..3_usize) {
        for (s, axes) in zoo() {
            let x = [10f64.powf(b), 10f64.powf(c), 10f64.powf(p)];
            // DSA changes its kernel at new + past = 2,048: a real step.
            if *axes == 3 && (x[1] + x[2]) / 2048.0 > 0.999 && (x[1] + x[2]) / 2048.0 < 1.001 {
                continue;
            }
            let mut y = x;
            y[axis % axes] *= 1.0 + 1e-6;
            let (a, b) = (s.at(&x[..*axes]).seconds, s.at(&y[..*axes]).seconds);
            prop_assert!((b / a - 1.0).abs() < 1e-3, "{}: {x:?} {a} {b}", s.source());
        }
    }
}

#[test]
fn the_slope_beyond_131k_meets_the_half_million_rows() {
    // GLM-5.2 was measured to a million tokens (BF16 projections); hidden beyond 131,072 it is continued.
    let whole = source("sglang", false);
    let glm = catalog::model("zai-org/GLM-5").unwrap();
    for (name, decode) in [("dsa_generation_module", true), ("dsa_context_module", false)] {
        let table = whole.db.table("b200_sxm", "sglang", name, None).unwrap();
        let Some(TableKey::Int { values, .. }) = table.key("step") else { panic!("no step column") };
        let short: Vec<u32> = (0..values.len() as u32).filter(|&r| values[r as usize] <= 131_072).collect();
        let db = KernelDb::empty().with_tables("short", vec![table.subset(&short)]).unwrap();
        let cut = Source { db, ..whole.clone() };
        for heads in [8, 64] {
            for kv in [Dtype::Bf16, Dtype::Fp8] {
                let at = |s: &Source, x: &[f64]| {
                    let surface = if decode {
                        ops::mla_generation(s, &glm, heads, Dtype::Bf16, kv)
                    } else {
                        ops::mla_context(s, &glm, heads, Dtype::Bf16, kv)
                    };
                    surface.unwrap().at(x)
                };
                let points: &[&[f64]] =
                    if decode { &[&[1.0, 524_288.0], &[1.0, 1_000_000.0]] } else { &[&[1.0, 4096.0, 524_288.0]] };
                for &x in points {
                    let (known, guess) = (at(&whole, x), at(&cut, x));
                    let error = guess.seconds / known.seconds - 1.0;
                    println!(
                        "{name} {heads} {kv:?} {x:?}: {:.1} us {:?}, continued {:.1} us {:?}, {:.1} %",
                        known.seconds * 1e6,
                        known.evidence,
                        guess.seconds * 1e6,
                        guess.evidence,
                        error * 100.0
                    );
                    assert!(error.abs() < 0.35, "{name} {heads} {kv:?} {x:?}: {error}");
                }
            }
        }
    }
}

/// On another system, read by rule or as measured.
fn ruled(system: &str, framework: &str, by_rule: bool) -> Source {
    let (device, _) = catalog::system(system).unwrap();
    Source { system: system.into(), device, by_rule, ..source(framework, false) }
}

/// One library's product is one kernel: a lane that others contradict takes their rows, by rule alone, and sound ones stay.
#[test]
fn a_gemm_lane_that_others_contradict_takes_their_rows() {
    for system in ["b200_sxm", "h200_sxm"] {
        let at = |framework: &str, by_rule, dtype, m: f64| {
            ops::gemm(&ruled(system, framework, by_rule), dtype, 4096, 4096).unwrap().at(&[m])
        };
        let (measured, kernel) = (at("trtllm", false, Dtype::Fp8, 1.0), at("trtllm", true, Dtype::Fp8, 1.0));
        assert!(measured.seconds > 1.3 * kernel.seconds, "{system}: {measured:?} {kernel:?}");
        assert!(kernel.evidence >= Evidence::Interpolated, "{system}: not its own row, and so tagged");
        for m in [1.0, 16.0, 100.0, 1024.0, 8192.0] {
            let least = ["trtllm", "sglang", "vllm"].map(|f| at(f, false, Dtype::Fp8, m).seconds);
            let least = least.into_iter().fold(f64::INFINITY, f64::min);
            let by_rule = at("trtllm", true, Dtype::Fp8, m).seconds;
            assert!((0.8..1.15).contains(&(by_rule / least)), "{system} m {m}: {by_rule} {least}");
        }
        for (framework, dtype) in [("trtllm", Dtype::Bf16), ("sglang", Dtype::Fp8), ("trtllm", Dtype::Fp8Block)] {
            assert_eq!(at(framework, true, dtype, 64.0), at(framework, false, dtype, 64.0), "{system} {framework}");
        }
    }
}

/// Experts of trtllm on Blackwell: the kernel its servers are set up with for the layout, or the one asked for by name.
#[test]
fn expert_kernels_follow_the_layout() {
    let (s, tabled) = (ruled("b200_sxm", "trtllm", true), ruled("b200_sxm", "trtllm", false));
    let shape = ExpertShape { moe_tp: 8, ..experts(1) };
    let of = |s: &Source, dtype, served: &Served| ops::served_moe(s, shape, dtype, "power_law_1.01", served).unwrap();
    let (tensor, dp) = (Served::default(), Served { attention_dp: true, ..Served::default() });
    for (dtype, whole, split) in
        [(Dtype::Fp8Block, "flashinfer_trtllm", "deepgemm"), (Dtype::Nvfp4, "min_latency", "cutlass")]
    {
        for (served, lane) in [(&tensor, whole), (&dp, split)] {
            let surface = of(&s, dtype, served);
            assert!(surface.source().contains(lane), "{}", surface.source());
        }
        assert_eq!(of(&tabled, dtype, &tensor).source(), of(&tabled, dtype, &dp).source());
    }
    // At few tokens trtllm-gen takes half the time; its rows are another framework's, and tagged.
    let (fast, slow) = (of(&s, Dtype::Fp8Block, &tensor).at(&[16.0]), of(&s, Dtype::Fp8Block, &dp).at(&[16.0]));
    assert!(fast.seconds < 0.6 * slow.seconds && fast.evidence == Evidence::Interpolated, "{fast:?} {slow:?}");
    let named = of(&s, Dtype::Fp8Block, &Served { kernel: Some("deepgemm"), ..tensor });
    assert_eq!(named.at(&[16.0]), slow);
    let none = Served { kernel: Some("cutlas"), ..tensor };
    let text = ops::served_moe(&s, shape, Dtype::Fp8Block, "power_law_1.01", &none).unwrap_err().to_string();
    assert!(text.contains("serving.expert_kernel") && text.contains("deepgemm"), "{text}");
}

/// NVFP4 experts on dispatched tokens are no slower than FP8 ones of the same layout, unless read as measured.
#[test]
fn narrower_experts_of_a_layout_are_not_slower() {
    for tokens in [48.0 * 128.0, 48.0 * 1408.0] {
        let at = |by_rule, dtype| {
            let s = ruled("gb200", "sglang", by_rule);
            ops::grouped_moe(&s, experts(48), dtype, "power_law_1.01", true).unwrap().unwrap().at(&[tokens])
        };
        let (fp8, fp4) = (at(true, Dtype::Fp8Block), at(true, Dtype::Nvfp4));
        assert!((0.4..1.0).contains(&(fp4.seconds / fp8.seconds)), "{tokens}: {fp4:?} {fp8:?}");
        assert!(fp4.evidence >= Evidence::Extrapolated);
        // At 1,408 tokens a GPU the other layout's kernel is out of the question.
        let lent = at(false, Dtype::Nvfp4).seconds / fp4.seconds;
        assert!(tokens < 48.0 * 1000.0 || lent > 1.3, "{tokens}: {lent}");
    }
}

/// Few new tokens of sparse attention over long pasts: twice the past costs no more than a little over twice, though
/// SGLang's launch floor, whose growth TensorRT-LLM takes over, is higher there.
#[test]
fn sparse_prefill_grows_with_its_past() {
    let s = ruled("b200_sxm", "trtllm", true);
    let block = ops::mla_context(&s, &deepseek(true), 16, Dtype::Fp8Block, Dtype::Fp8).unwrap();
    let at = |past: f64| block.at(&[1.0, 128.0, past]).seconds;
    for past in [8192.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0, 262_144.0] {
        let growth = at(2.0 * past) / at(past);
        assert!((0.95..2.3).contains(&growth), "over {past}: {growth}");
    }
}

/// A long decode is bound by the device, not by a share of it that the rows exceed.
#[test]
fn long_decode_attention_reaches_what_its_rows_do() {
    let s = ruled("gb200", "vllm", true);
    let kernel = ops::generation_attention(&s, 64, 4, 128, 0, Dtype::Bf16).unwrap();
    let seconds = kernel.at(&[6.0, 131_072.0]).seconds;
    let bytes = 6.0 * 131_072.0 * 2.0 * 4.0 * 128.0 * 2.0;
    let rate = bytes / seconds / s.device.hbm_bytes_per_s;
    assert!((0.85..1.0).contains(&rate), "{rate}");
}
