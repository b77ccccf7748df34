//! Communication times: measured rows verbatim, bytes conserved, never falling, continuous at the
//! edges, near published tables that nothing here was fitted to.

use std::sync::{Arc, OnceLock};

use disagg::kernels::table::Value;
use disagg::kernels::{Evidence, KernelDb, Table};
use disagg::math::combinatorics::{distinct_groups, even_split, hit_probability};
use disagg::network::spread::Spread;
use disagg::network::traffic::{Ports, distinct_nodes, packed, payload_bytes, return_bytes};
use disagg::network::wires::Wires;
use disagg::network::{A2aKind, A2aShape, AfdShape, Comm, CommTime};
use disagg::spec::{Cluster, Device, Dtype, Fabric};
use disagg::units::{GB, US};
use proptest::prelude::*;

const SYSTEMS: [&str; 6] = ["h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300"];

fn cluster(system: &str, gpus: u32) -> Cluster {
    let hopper = system.starts_with('h');
    let rack = system.starts_with('g');
    Cluster {
        system: system.into(),
        gpus,
        device: Device {
            name: system.into(),
            source: "test".into(),
            bf16_flops: 1e15,
            fp8_flops: 2e15,
            fp4_flops: 0.0,
            hbm_bytes_per_s: 3e12,
            hbm_bytes: 8e10,
            launch_s: 2e-6,
            power_w: 700.0,
            usd_per_hour: 2.0,
            sm: if hopper { 90 } else { 100 },
            log_tpot_error: 0.0,
            log_ttft_error: 0.0,
        },
        fabric: Fabric {
            domain_gpus: if rack { 72 } else { 8 },
            node_gpus: if rack { 4 } else { 8 },
            nvlink_bytes_per_s: if hopper { 450.0 * GB } else { 900.0 * GB },
            nic_bytes_per_s: 50.0 * GB,
            oversubscription: 1.0,
            source: "test".into(),
        },
    }
}

fn db() -> Arc<KernelDb> {
    static DB: OnceLock<Arc<KernelDb>> = OnceLock::new();
    DB.get_or_init(|| KernelDb::open(&crate::kernels_pack::pack()).unwrap()).clone()
}

fn comm(system: &str) -> Comm {
    static ALL: OnceLock<Vec<Comm>> = OnceLock::new();
    let all = ALL
        .get_or_init(|| SYSTEMS.iter().map(|s| Comm::new(db(), &cluster(s, 1024), "sglang", 1.0).unwrap()).collect());
    all[SYSTEMS.iter().position(|s| *s == system).unwrap()].clone()
}

fn v3(ep: u32) -> A2aShape {
    A2aShape { hidden: 7168, topk: 8, experts: 256, groups: 8, topk_groups: 4, ep, dispatch_dtype: Dtype::Fp8Block }
}

fn unit(attention: u32, ffn: u32) -> AfdShape {
    AfdShape {
        hidden: 7168,
        topk: 8,
        experts: 256,
        groups: 8,
        topk_groups: 4,
        attention_gpus: attention,
        attention_tp: 1,
        ffn_gpus: ffn,
        ep: ffn,
        moe_tp: 1,
        dispatch_dtype: Dtype::Fp8Block,
        prereduce: false,
        shared_copy: false,
        half_duplex: false,
        spread: None,
    }
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs()
}

/// Rows of a table that match, as (key values asked for, seconds of the measures added up).
fn rows(table: &Table, wanted: &[(&str, Value)], keys: &[&str], measures: &[&str]) -> Vec<(Vec<i64>, f64)> {
    table
        .find(wanted)
        .into_iter()
        .map(|r| {
            let r = r as usize;
            let id = keys.iter().map(|k| table.key(k).unwrap().code(r)).collect();
            (id, measures.iter().map(|m| table.seconds(r, m).unwrap()).sum())
        })
        .collect()
}

#[test]
fn nccl_rows_are_returned_as_measured() {
    for system in SYSTEMS {
        let table = db().table(system, "nccl", "nccl", None).unwrap();
        let comm = comm(system);
        for op in ["all_gather", "reduce_scatter"] {
            let wanted = [("op_name", Value::from(op)), ("nccl_dtype", Value::from("half"))];
            let rows = rows(&table, &wanted, &["num_gpus", "message_size"], &["latency"]);
            assert!(rows.len() >= 42);
            let mut verbatim = 0;
            for (id, seconds) in &rows {
                let bytes = 2.0 * id[1] as f64;
                let t = if op == "all_gather" {
                    comm.all_gather(bytes, id[0] as u32)
                } else {
                    comm.reduce_scatter(bytes, id[0] as u32)
                };
                if t.evidence == Evidence::Measured {
                    assert!(near(t.seconds, *seconds, 1e-9), "{system} {op} {id:?}");
                    verbatim += 1;
                } else {
                    // Jitter: slower than a larger message.
                    assert!(t.evidence == Evidence::Interpolated && t.seconds < *seconds, "{system} {op} {id:?}");
                    assert!(t.seconds > 0.4 * seconds, "{system} {op} {id:?}");
                }
            }
            assert!(verbatim * 10 >= rows.len() * 7, "{system} {op}: {verbatim} of {}", rows.len());
        }
    }
}

#[test]
fn all_reduce_takes_the_faster_kernel() {
    for framework in ["sglang", "trtllm", "vllm"] {
        for system in SYSTEMS {
            let comm = Comm::new(db(), &cluster(system, 64), framework, 1.0).unwrap();
            let own = db().table(system, framework, "custom_allreduce", None).unwrap();
            for (id, seconds) in rows(&own, &[], &["num_gpus", "message_size", "kernel_source"], &["latency"]) {
                let eager = own.key("kernel_source").unwrap().show(id[2]).contains("eager");
                let t = comm.all_reduce(2.0 * id[1] as f64, id[0] as u32, !eager);
                assert!(t.seconds <= seconds * (1.0 + 1e-9), "{framework} {system} {id:?}");
            }
        }
    }
    // 128 tokens of H = 7168 in 8 ranks: one-shot graph kernels beat NCCL's launch on Hopper.
    let comm = comm("h100_sxm");
    assert!(comm.all_reduce(8192.0, 8, true).seconds < 5.0 * US);
}

#[test]
fn deepep_rows_are_returned_as_measured() {
    for system in SYSTEMS {
        let comm = comm(system);
        let node = if system.starts_with('g') { 4 } else { 8 };
        for (name, kind, out, back) in [
            ("wideep_deepep_ll", A2aKind::LowLatency, vec!["dispatch_avg_t_us"], vec!["combine_avg_t_us"]),
            (
                "wideep_deepep_normal",
                A2aKind::Normal,
                vec!["dispatch_transmit_us", "dispatch_notify_us"],
                vec!["combine_transmit_us", "combine_notify_us"],
            ),
        ] {
            let table = db().table(system, "sglang", name, Some("0.5.12")).unwrap();
            let keys = ["hidden_size", "num_topk", "num_experts", "num_token"];
            let at20 = |k: &'static str| if kind == A2aKind::Normal { vec![(k, Value::from(20))] } else { vec![] };
            for (phase, wanted, measures) in [(0, at20("dispatch_sms"), out), (1, at20("combine_sms"), back)] {
                let (mut verbatim, rows) = (0, rows(&table, &wanted, &keys, &measures));
                assert!(rows.len() > 150);
                for (id, seconds) in &rows {
                    let shape = A2aShape {
                        hidden: id[0] as u32,
                        topk: id[1] as u32,
                        experts: id[2] as u32,
                        groups: 0,
                        topk_groups: 0,
                        ep: node,
                        dispatch_dtype: Dtype::Fp8,
                    };
                    let tokens = id[3] as f64;
                    let t = if phase == 0 {
                        comm.dispatch(&shape, tokens, kind)
                    } else {
                        comm.combine(&shape, tokens, kind)
                    };
                    if t.evidence == Evidence::Measured {
                        verbatim += 1;
                        assert!(near(t.seconds, *seconds, 1e-9), "{system} {name} {phase} {id:?}");
                    } else {
                        assert!(t.seconds < *seconds, "{system} {name} {phase} {id:?} {t:?} {seconds}");
                    }
                }
                assert!(verbatim * 10 >= rows.len() * 6, "{system} {name}: {verbatim} of {}", rows.len());
            }
        }
    }
}

#[test]
fn rows_across_nodes_are_h100s_own() {
    let (h100, h200) = (comm("h100_sxm"), comm("h200_sxm"));
    for (ep, out, back) in [(16, 102.1, 186.2), (32, 143.0, 263.3), (64, 166.8, 304.7)] {
        let (d, c) =
            (h100.dispatch(&v3(ep), 128.0, A2aKind::LowLatency), h100.combine(&v3(ep), 128.0, A2aKind::LowLatency));
        assert!((d.seconds / US - out).abs() < 0.1 && (c.seconds / US - back).abs() < 0.1, "{ep} {d:?} {c:?}");
        assert_eq!((d.evidence, c.evidence), (Evidence::Measured, Evidence::Measured));
        // The h200 file repeats h100's values: no measurement of h200.
        let copy = h200.dispatch(&v3(ep), 128.0, A2aKind::LowLatency);
        assert_eq!(copy, CommTime { evidence: Evidence::Interpolated, ..d });
        // No other system has any.
        assert_eq!(comm("b200_sxm").dispatch(&v3(ep), 128.0, A2aKind::LowLatency).evidence, Evidence::Extrapolated);
    }
}

#[test]
fn one_sided_rows_at_the_bytes_they_moved() {
    let comm = comm("gb200");
    let table = db().table("gb200", "trtllm", "trtllm_alltoall", Some("1.3.0rc10")).unwrap();
    for (op, out) in [("alltoall_dispatch", true), ("alltoall_combine", false)] {
        let wanted = [
            ("kernel_source", Value::from("NVLinkOneSided")),
            ("op_name", Value::from(op)),
            ("moe_dtype", Value::from("nvfp4")),
        ];
        for (id, seconds) in rows(&table, &wanted, &["moe_ep_size", "num_tokens"], &["latency"]) {
            let ep = id[0] as u32;
            let shape = A2aShape { dispatch_dtype: Dtype::Nvfp4, ..v3(ep) };
            // Balanced rows reach min(EP, 8) GPUs, a random router fewer.
            let tokens = id[1] as f64 * f64::from(ep.min(8)) / distinct_groups(256, ep, 8);
            let t = if out {
                comm.dispatch(&shape, tokens, A2aKind::OneSided)
            } else {
                comm.combine(&shape, tokens, A2aKind::OneSided)
            };
            assert!(t.seconds <= seconds * (1.0 + 1e-6) && t.seconds > 0.7 * seconds, "{op} {id:?} {t:?} {seconds}");
        }
    }
    // gb300 has no such table and borrows.
    let lent = self::comm("gb300").dispatch(&v3(32), 128.0, A2aKind::OneSided);
    assert_eq!(lent.evidence, Evidence::Extrapolated);
    assert!(near(lent.seconds, comm.dispatch(&v3(32), 128.0, A2aKind::OneSided).seconds, 1e-12));
}

fn mape(pairs: &[(f64, f64)]) -> f64 {
    pairs.iter().map(|(ours, theirs)| (ours / theirs - 1.0).abs()).sum::<f64>() / pairs.len() as f64
}

/// Published tables that nothing was fitted to (network.md 2.2, 2.3).
#[test]
fn published_tables_held_out() {
    let rack = comm("gb200");
    let blog18 = |ep: u32, tokens: f64, out: bool| {
        let shape = A2aShape { dispatch_dtype: Dtype::Bf16, ..v3(ep) };
        let tokens = tokens * f64::from(ep.min(8)) / distinct_groups(256, ep, 8);
        let t = if out {
            rack.dispatch(&shape, tokens, A2aKind::OneSided)
        } else {
            rack.combine(&shape, tokens, A2aKind::OneSided)
        };
        t.seconds / US
    };
    // TensorRT-LLM blog 18, BF16, GB200: (EP, tokens, dispatch, combine).
    let rows = [
        (8, 64.0, 22.3, 34.1),
        (8, 128.0, 31.7, 38.1),
        (8, 256.0, 50.8, 53.0),
        (8, 512.0, 89.5, 91.7),
        (8, 1024.0, 166.3, 175.6),
        (8, 2048.0, 311.8, 322.6),
        (16, 64.0, 24.1, 35.6),
        (16, 128.0, 34.6, 39.9),
        (16, 256.0, 54.8, 57.0),
        (16, 512.0, 97.1, 98.2),
        (16, 1024.0, 181.2, 188.2),
        (16, 2048.0, 343.3, 348.4),
        (32, 64.0, 26.2, 36.4),
        (32, 128.0, 37.8, 41.1),
        (32, 256.0, 61.5, 59.7),
        (32, 512.0, 109.6, 102.5),
        (32, 1024.0, 197.5, 197.5),
        (32, 2048.0, 373.7, 369.5),
        (64, 1.0, 27.8, 32.6),
        (64, 16.0, 20.6, 35.0),
        (64, 64.0, 28.8, 37.7),
        (64, 128.0, 41.6, 44.5),
        (64, 256.0, 65.3, 62.9),
        (64, 512.0, 115.7, 106.7),
        (64, 1024.0, 209.4, 199.2),
        (64, 2048.0, 399.2, 372.1),
    ];
    let out: Vec<(f64, f64)> = rows.iter().map(|r| (blog18(r.0, r.1, true), r.2)).collect();
    let back: Vec<(f64, f64)> = rows.iter().map(|r| (blog18(r.0, r.1, false), r.3)).collect();
    println!("blog 18: dispatch {:.3} combine {:.3}", mape(&out), mape(&back));
    assert!(mape(&out) < 0.12 && mape(&back) < 0.15, "{} {}", mape(&out), mape(&back));

    let h100 = comm("h100_sxm");
    let ll = |ep: u32| {
        let t = |t: CommTime| t.seconds / US;
        (t(h100.dispatch(&v3(ep), 128.0, A2aKind::LowLatency)), t(h100.combine(&v3(ep), 128.0, A2aKind::LowLatency)))
    };
    // fabric-lib, DeepEP on CX-7, 128 tokens; DeepEP's own H800 table (EP8 there is not NVLink).
    let fabric = [(8, 42.6, 72.0), (16, 123.9, 203.0), (32, 159.1, 285.0), (64, 177.9, 325.0)];
    let h800 = [(16, 118.0, 195.0), (32, 155.0, 273.0), (64, 173.0, 314.0), (128, 192.0, 369.0), (256, 194.0, 360.0)];
    for (name, rows) in [("fabric-lib", &fabric[..]), ("H800", &h800[..])] {
        let out: Vec<(f64, f64)> = rows.iter().map(|r| (ll(r.0).0, r.1)).collect();
        let back: Vec<(f64, f64)> = rows.iter().map(|r| (ll(r.0).1, r.2)).collect();
        println!("{name}: dispatch {:.3} combine {:.3}", mape(&out), mape(&back));
        assert!(mape(&out) < 0.12 && mape(&back) < 0.12, "{name} {out:?} {back:?}");
    }
}

#[test]
fn works_without_any_table() {
    for system in SYSTEMS {
        let bare = Comm::new(KernelDb::empty(), &cluster(system, 256), "sglang", 1.0).unwrap();
        let full = comm(system);
        let pairs = [
            (bare.all_reduce(1.8e6, 4, true), full.all_reduce(1.8e6, 4, false)),
            (bare.all_gather(1.8e6, 8), full.all_gather(1.8e6, 8)),
            (bare.dispatch(&v3(8), 128.0, A2aKind::LowLatency), full.dispatch(&v3(8), 128.0, A2aKind::LowLatency)),
            (bare.combine(&v3(64), 128.0, A2aKind::LowLatency), full.combine(&v3(64), 128.0, A2aKind::LowLatency)),
            (bare.dispatch(&v3(8), 4096.0, A2aKind::Normal), full.dispatch(&v3(8), 4096.0, A2aKind::Normal)),
        ];
        for (i, (bare, full)) in pairs.into_iter().enumerate() {
            assert_eq!(bare.evidence, Evidence::Roofline, "{system} {i}");
            let ratio = bare.seconds / full.seconds;
            assert!(ratio > 0.4 && ratio < 2.5, "{system} {i}: {bare:?} {full:?}");
        }
    }
}

/// A time over a size.
type Price<'a> = Box<dyn Fn(f64) -> CommTime + 'a>;

/// Every byte of A2F, GPU by GPU: source x destination, split by domain. The slow twin of `direct`.
fn explicit(shape: &AfdShape, tokens: f64, payload: f64, domain: u32) -> (Vec<Ports>, Vec<Ports>) {
    let (a, f) = (shape.attention_gpus, shape.ffn_gpus);
    let mut out = vec![Ports::default(); a as usize];
    let mut into = vec![Ports::default(); f as usize];
    let (_, n_big, _, _) = even_split(shape.experts, shape.ep);
    for i in 0..a {
        for j in 0..f {
            let group = j / shape.moe_tp;
            let held = shape.experts / shape.ep + u32::from(group < n_big);
            let bytes =
                tokens / f64::from(shape.attention_tp) * hit_probability(shape.experts, held, shape.topk) * payload;
            let same = i / domain == (a + j) / domain;
            for p in [&mut out[i as usize], &mut into[j as usize]] {
                if same { p.nvlink += bytes } else { p.nic += bytes }
            }
        }
    }
    (out, into)
}

fn busiest(ports: &[Ports]) -> Ports {
    ports.iter().fold(Ports::default(), |m, p| Ports { nvlink: m.nvlink.max(p.nvlink), nic: m.nic.max(p.nic) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn afd_bytes_are_conserved(tp_log in 0u32..4, ranks in 1u32..20, ep in 1u32..130, moe_tp in 1u32..3, rack: bool, tokens in 1.0..500.0) {
        let tp = 1 << tp_log;
        let shape = AfdShape { attention_tp: tp, ep, moe_tp, ..unit(ranks * tp, ep * moe_tp) };
        let wires = Wires::new(&cluster(if rack { "gb200" } else { "h100_sxm" }, 1024).fabric);
        let payload = payload_bytes(7168, Dtype::Fp8);
        let (out, into) = explicit(&shape, tokens, payload, wires.domain);
        let sum = |ports: &[Ports]| ports.iter().map(|p| p.nvlink + p.nic).sum::<f64>();
        prop_assert!(near(sum(&out), sum(&into), 1e-9));
        let hop = shape.direct(tokens, payload, &wires);
        let (a, f) = (busiest(&out), busiest(&into));
        // Uneven experts: the far share is taken by GPUs, not by what each of them holds, so it can be off
        // by the odds of a token for the two group sizes at most.
        let (big, n_big, small, _) = even_split(shape.experts, ep);
        let odds = |held| hit_probability(shape.experts, held, shape.topk);
        let factor = if n_big > 0 { odds(big) / odds(small) } else { 1.0 } * (1.0 + 1e-9);
        let within = hop.attention.nic <= a.nic * factor && hop.attention.nic >= a.nic / factor;
        prop_assert!(within || a.nic == 0.0 && hop.attention.nic < 1e-6, "{:?} {:?}", hop, a);
        // Attention bytes are all sent, whatever the tier.
        prop_assert!(near(shape.copies() * f64::from(moe_tp) * tokens * payload / f64::from(tp), out[0].nvlink + out[0].nic, 1e-9));
        // The fullest FFN GPU need not be the one with the fullest far side: never below, never by more than its experts.
        prop_assert!(hop.ffn.nic >= f.nic * (1.0 - 1e-9) && hop.ffn.nvlink >= f.nvlink * (1.0 - 1e-9), "{:?} {:?}", hop, f);
        prop_assert!(hop.ffn.nic + hop.ffn.nvlink <= 2.0 * (f.nic + f.nvlink) * (1.0 + 1e-9));
        if shape.experts.is_multiple_of(ep) {
            prop_assert!(near(f64::from(shape.attention_gpus) * (out[0].nvlink + out[0].nic), f64::from(shape.ffn_gpus) * (into[0].nvlink + into[0].nic), 1e-9));
            prop_assert!(near(hop.ffn.nic, f.nic, 1e-9) || f.nic < 1e-6, "{:?} {:?}", hop, f);
        }
    }

    #[test]
    fn nothing_falls(system in 0usize..6, n in 2u32..300, a in 1u32..80, f in 1u32..130, x in 0.0..20.0_f64, more in 0.0..3.0_f64, tp in 0u32..4) {
        let comm = comm(SYSTEMS[system]);
        let (small, large) = (x.exp2(), (x + more).exp2());
        let tp = 1u32 << tp;
        let shape = AfdShape { attention_tp: tp, ..unit(a * tp, f) };
        let checks: Vec<(&str, Price<'_>)> = vec![
            ("all_reduce", Box::new(|b| comm.all_reduce(64.0 * b, n, true))),
            ("eager", Box::new(|b| comm.all_reduce(64.0 * b, n, false))),
            ("all_gather", Box::new(|b| comm.all_gather(64.0 * b, n))),
            ("reduce_scatter", Box::new(|b| comm.reduce_scatter(64.0 * b, n))),
            ("ll out", Box::new(|t| comm.dispatch(&v3(n), 0.1 * t, A2aKind::LowLatency))),
            ("ll back", Box::new(|t| comm.combine(&v3(n), 0.1 * t, A2aKind::LowLatency))),
            ("normal out", Box::new(|t| comm.dispatch(&v3(n), t, A2aKind::Normal))),
            ("normal back", Box::new(|t| comm.combine(&v3(n), t, A2aKind::Normal))),
            ("one-sided out", Box::new(|t| comm.dispatch(&v3(n), t, A2aKind::OneSided))),
            ("one-sided back", Box::new(|t| comm.combine(&v3(n), t, A2aKind::OneSided))),
            ("a2f", Box::new(|t| comm.a2f(&shape, 0.1 * t))),
            ("f2a", Box::new(|t| comm.f2a(&shape, 0.1 * t))),
            ("prereduced", Box::new(|t| comm.f2a(&AfdShape { prereduce: true, ..shape }, 0.1 * t))),
            ("kv", Box::new(|b| comm.kv_transfer(64.0 * b, 4, false))),
            ("p2p", Box::new(|b| comm.p2p(64.0 * b, true))),
            ("p2p far", Box::new(|b| comm.p2p(64.0 * b, false))),
        ];
        for (name, time) in &checks {
            let (s, l, zero) = (time(small).seconds, time(large).seconds, time(0.0).seconds);
            prop_assert!(s.is_finite() && s > 1e-6 && l < 60.0 && zero > 1e-6, "{} {} {}", name, s, l);
            prop_assert!(l >= s * (1.0 - 1e-12) && s >= zero * (1.0 - 1e-12), "{} {} {}", name, s, l);
            // Continuous: a thousandth more costs at most some thousandths more.
            prop_assert!(time(small * 1.001).seconds <= s * 1.01, "{} {}", name, s);
        }
        for (name, time) in &checks[10..13] {
            prop_assert!(time(small).evidence >= Evidence::Extrapolated, "{}", name);
        }
    }

    #[test]
    fn hops_mirror(m in 1u32..100, n in 1u32..100, tokens in 1.0..1000.0_f64) {
        // With one expert chosen per token and as many experts as GPUs, out and in are the same matrix transposed.
        let wires = Wires::new(&cluster("b200_sxm", 1024).fabric);
        let hop = |a: u32, f: u32, tokens: f64| {
            AfdShape { topk: 1, experts: f, groups: 0, ..unit(a, f) }.direct(tokens, return_bytes(7168), &wires)
        };
        let (out, back) = (hop(m * 8, n * 8, tokens), hop(n * 8, m * 8, tokens * f64::from(m) / f64::from(n)));
        prop_assert!(near(out.attention.nic, back.ffn.nic, 1e-9) && near(out.ffn.nic, back.attention.nic, 1e-9));
        prop_assert_eq!(out.domains, back.domains);
    }
}

#[test]
fn published_copies_and_uneven_experts() {
    for (n, d) in [(4, 3.61), (8, 5.30), (16, 6.52), (32, 7.27), (64, 7.68), (128, 7.89)] {
        assert!((unit(8, n).copies() - d).abs() < 0.006, "{n}");
    }
    // 126 GPUs hold 2 or 3 of 256 experts: the fullest takes half as much again as the others.
    let odd = unit(18, 126);
    assert!((odd.hit() - 3.0 * 8.0 / 256.0).abs() < 0.004 && odd.hit() > 1.4 * hit_probability(256, 2, 8));
    // A shared expert on every FFN GPU rides a routed copy.
    assert_eq!(AfdShape { shared_copy: true, ..unit(8, 64) }.copies(), unit(8, 64).copies());
    // Groups bound the nodes, not the GPUs.
    assert!(distinct_nodes(256, 8, 8, 8, 4) <= 4.0);
    assert_eq!(packed(20, 8), (8, 4, 3));
}

#[test]
fn alpha_scale_moves_alpha_only() {
    let at = |scale: f64| Comm::new(db(), &cluster("gb200", 72), "trtllm", scale).unwrap();
    let (half, one, two) = (at(0.5), at(1.0), at(2.0));
    for shape in [unit(8, 64), unit(24, 48), AfdShape { attention_tp: 8, ..unit(8, 64) }] {
        for tokens in [1.0, 64.0, 1024.0] {
            let [h, o, t] = [&half, &one, &two].map(|c| c.a2f(&shape, tokens).seconds);
            assert!(near(t - o, 2.0 * (o - h), 1e-9) && t - o > 10.0 * US && t - o < 30.0 * US);
        }
    }
    // TP ranks share the vector, and gather what comes back.
    let tp8 = AfdShape { attention_tp: 8, ..unit(8, 64) };
    let gather = one.all_gather(256.0 * 14336.0, 8).seconds;
    let back = one.f2a(&tp8, 256.0).seconds;
    let bare = one.f2a(&AfdShape { attention_tp: 1, ..unit(8, 64) }, 256.0 / 8.0).seconds;
    assert!(near(back, bare + gather, 1e-9));
}

#[test]
fn placement_decides_the_tier() {
    let comm = comm("h100_sxm");
    let inside = comm.a2f(&unit(2, 6), 64.0).seconds;
    let across = comm.a2f(&unit(8, 24), 64.0).seconds;
    assert!(across > 2.0 * inside);
    // Two attention and six FFN GPUs on every node: a quarter of the bytes stays inside.
    let ids =
        |from: u32, n: u32| (0..4u32).flat_map(|node| (8 * node + from)..(8 * node + from + n)).collect::<Vec<u32>>();
    let mixed = Spread::placed(&ids(0, 2), &ids(2, 6), 8);
    assert!(near(mixed.attention_far, 0.75, 1e-12) && near(mixed.ffn_near, 0.25, 1e-12));
    let mixed = comm.a2f(&AfdShape { spread: Some(mixed), ..unit(8, 24) }, 64.0).seconds;
    assert!(mixed < 0.95 * across && mixed > 0.6 * across, "{mixed} {across}");
    // Prefill sizes: one copy per node beats one per GPU.
    let big = comm.a2f(&unit(8, 64), 4096.0).seconds;
    let one_each = 4096.0 * unit(8, 64).copies() * 7392.0 / 50e9;
    assert!(big < one_each);
    // Few attention GPUs take in fewer bytes when the FFN side sums first; one token only pays twice.
    let rack = self::comm("gb200");
    let sums = |tokens: f64| rack.f2a(&AfdShape { prereduce: true, ..unit(4, 64) }, tokens).seconds;
    assert!(sums(1024.0) < 0.7 * rack.f2a(&unit(4, 64), 1024.0).seconds);
    assert!(sums(1.0) > 1.5 * rack.f2a(&unit(4, 64), 1.0).seconds);
}

#[test]
fn kv_and_bad_fabrics() {
    let comm = comm("h100_sxm");
    // Mooncake: 290 MB in 2.51 ms over 8 x 400G at 137 GB/s; the wire itself would take 0.73 ms.
    let t = comm.kv_transfer(290e6, 8, false).seconds;
    assert!(t > 0.9e-3 && t < 2.51e-3);
    assert!(comm.kv_layer(290e6 / 61.0, 8, false).seconds * 61.0 < 3.0 * t);
    assert!(comm.kv_transfer(290e6, 1, true).seconds < comm.kv_transfer(290e6, 1, false).seconds);
    assert_eq!(comm.packed(20).most, 8);
    assert_eq!(comm.all_reduce(1e6, 1, true).seconds, 0.0);
    let mut broken = cluster("h100_sxm", 8);
    broken.fabric.nic_bytes_per_s = 0.0;
    assert!(Comm::new(db(), &broken, "sglang", 1.0).is_err());
    assert!(Comm::new(db(), &cluster("h100_sxm", 8), "sglang", f64::NAN).is_err());
}

#[test]
#[ignore = "prints nanoseconds a call: cargo test --release network::speed -- --ignored --nocapture"]
fn speed() {
    let comm = comm("h100_sxm");
    let time = |name: &str, f: &dyn Fn(f64) -> CommTime| {
        let start = std::time::Instant::now();
        let mut sum = 0.0;
        for i in 0..200_000 {
            sum += f(1.0 + f64::from(i % 777)).seconds;
        }
        println!("{name}: {:.0} ns ({sum:.3})", start.elapsed().as_nanos() as f64 / 2e5);
    };
    time("all_reduce", &|t| comm.all_reduce(t * 14336.0, 8, true));
    time("all_reduce 16", &|t| comm.all_reduce(t * 14336.0, 16, true));
    time("ll", &|t| comm.dispatch(&v3(64), t, A2aKind::LowLatency));
    time("ll odd", &|t| comm.dispatch(&A2aShape { hidden: 5000, ..v3(24) }, t, A2aKind::LowLatency));
    time("normal", &|t| comm.dispatch(&v3(64), t, A2aKind::Normal));
    time("a2f", &|t| comm.a2f(&unit(16, 112), t));
    time("f2a", &|t| comm.f2a(&unit(16, 112), t));
}
