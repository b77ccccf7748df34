//! What binds is what binds (physics.md section 8): relaxing only the limit that is named changes the
//! verdict or what binds next.

use disagg::spec::Framework;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use disagg::control::Control;
use disagg::cost::Library;
use disagg::network::Link;
use disagg::search::{Question, Study, explore};
use disagg::serving::pd;
use disagg::serving::pd::Several;
use disagg::serving::{Binding, Engine, Load, aggregated};
use disagg::spec::{Aggregated, Case, Cluster, PdPlan, Plan, Slo, Slot, Workload};
use proptest::prelude::*;

use crate::lab::{self, afd_plan, pool, split, worker, workers};

const ROOM: f64 = 1e14;

fn relaxed(cluster: &Cluster) -> Cluster {
    let mut c = cluster.clone();
    c.device.hbm_bytes = ROOM;
    c
}

/// The same library with room for everything, made once.
fn roomy(lib: &Library) -> Arc<Library> {
    static MADE: OnceLock<Arc<Library>> = OnceLock::new();
    MADE.get_or_init(|| lab::library(&lib.model, &relaxed(&lib.cluster), lib.framework, &lib.assumptions)).clone()
}

/// What the fullest GPU holds needs a device of some size; a thousandth less is not enough.
#[test]
fn the_fullest_gpu_is_the_limit() {
    let w = Workload::fixed("law", 4096.0, 512.0, 256.0);
    let lib = lab::lib("deepseek-ai/DeepSeek-V3.2", "h200_sxm", 16, "sglang");
    for kind in 0..5 {
        let plan = plan(kind, 2000, 900, 2);
        let p = Engine::new(&lib, &w, &plan).unwrap().point;
        assert!(matches!(p.binding, Binding::Memory(_)), "{plan:?}: {:?}", p.binding);
        let fits = |bytes: f64| {
            let mut cluster = lib.cluster.clone();
            cluster.device.hbm_bytes = bytes;
            let other = lab::library(&lib.model, &cluster, "sglang", &lib.assumptions);
            let q = Engine::new(&other, &w, &plan).unwrap().point;
            !matches!(q.binding, Binding::Memory(_))
        };
        // What it holds is not enough: a part stays outside the server's share. Three times as much is.
        let (mut short, mut enough) = (p.memory_bytes, 3.0 * p.memory_bytes);
        assert!(!fits(short) && fits(enough), "{plan:?}");
        while enough / short > 1.001 {
            let middle = 0.5 * (short + enough);
            *(if fits(middle) { &mut enough } else { &mut short }) = middle;
        }
        assert!(enough < 2.2 * p.memory_bytes, "{plan:?}: {enough} for {}", p.memory_bytes);
    }
}

/// A plan from numbers, of each kind.
fn plan(kind: usize, batch: u32, chunk: u32, n: u32) -> Plan {
    let mut afd = afd_plan(pool(n, 1), pool(8 - n.min(7), 1), 2);
    afd.batch = Some(batch.max(2));
    afd.chunk_tokens = Some(chunk + 2 * batch.max(2));
    match kind {
        0 => Plan::Aggregated(Aggregated {
            parallel: split(1, 8, 1),
            batch: Some(batch),
            chunk_tokens: Some(chunk),
            replicas: 1,
            ..Default::default()
        }),
        1 => Plan::Aggregated(Aggregated {
            parallel: split(4, 1, 1),
            batch: Some(batch),
            chunk_tokens: Some(chunk),
            replicas: 2,
            ..Default::default()
        }),
        2 => Plan::Afd(afd),
        3 => Plan::Pd(PdPlan {
            prefill: workers(1, split(n.next_power_of_two(), 1, 1), Some(1), Some(chunk)),
            decode: workers(1, split(1, 8, 1), Some(batch), None),
        }),
        _ => Plan::Pd(PdPlan {
            prefill: workers(1, split(1, 8, 1), Some(1 + batch / 64), Some(chunk)),
            decode: Slot::Afd(afd),
        }),
    }
}

fn relax_limit(slo: &Slo, binding: Binding) -> Slo {
    let mut s = *slo;
    match binding {
        Binding::Ttft => s.ttft_ms = None,
        Binding::Tpot => s.tpot_ms = None,
        _ => {}
    }
    s
}

#[test]
fn relaxing_what_binds_a_plan_changes_what_binds() {
    // Plans that bind on memory, on divisibility, on a limit, and on nothing.
    let judged = [const { AtomicU32::new(0) }; 4];
    let count = |what: usize| judged[what].fetch_add(1, Ordering::Relaxed);
    let config = ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() };
    // Even over octaves: small plans stand, large ones do not fit; a budget of one token leaves no room beside decode.
    let octaves = |most: u32| (0..most).prop_flat_map(|e| 1_u32 << e..2_u32 << e);
    proptest!(config, |(
        kind in 0usize..5, batch in octaves(9), chunk in prop_oneof![3 => octaves(12).boxed(), 1 => Just(1).boxed()], n in 1u32..8,
        prefix in octaves(14), isl in octaves(12), osl in octaves(9),
        ttft in 0.1f64..3.0, tpot in 0.1f64..3.0,
    )| {
        let w = Workload::fixed("law", f64::from(prefix), f64::from(isl), f64::from(osl));
        let lib = lab::lib("deepseek-ai/DeepSeek-V3.2", "h200_sxm", 16, "sglang");
        let plan = plan(kind, batch, chunk, n);
        let e = match Engine::new(&lib, &w, &plan) {
            Ok(e) => e,
            Err(e) => return Err(TestCaseError::fail(format!("{plan:?}: {e}"))),
        };
        let p = e.point;
        match p.binding {
            Binding::Memory(pool) => {
                let q = Engine::new(&roomy(&lib), &w, &plan).unwrap().point;
                prop_assert!(q.stands() || q.binding != p.binding, "more room in {}: still {:?}", pool.name(), q.binding);
                prop_assert!(p.memory_bytes > 0.5 * lib.cluster.device.hbm_bytes);
                count(0);
            }
            Binding::Divisibility => {
                // A budget with room for a token beside each decoding sequence.
                let wide = match plan {
                    Plan::Aggregated(a) => Plan::Aggregated(Aggregated { chunk_tokens: Some(chunk + batch + 2), ..a }),
                    other => return Err(TestCaseError::fail(format!("{other:?} does not divide"))),
                };
                let q = Engine::new(&lib, &w, &wide).unwrap().point;
                prop_assert!(q.binding != Binding::Divisibility);
                count(1);
            }
            _ => {
                prop_assert!(p.stands());
                // Limits around what the plan reaches.
                let tpot_ms = (osl > 1).then_some(p.tpot_s * 1e3 * tpot);
                let slo = Slo { ttft_ms: Some(p.ttft_s * 1e3 * ttft), tpot_ms, percentile: None };
                let b = p.binding_under(&slo);
                let within = ttft >= 1.0 && (osl == 1 || tpot >= 1.0);
                prop_assert_eq!(b == Binding::None, within, "{:?} under {:?}", p, slo);
                prop_assert_eq!(p.excess(&slo) <= 1.0, within);
                if b != Binding::None {
                    let after = p.binding_under(&relax_limit(&slo, b));
                    prop_assert!(after != b, "{b:?} still binds without its limit");
                }
                count(if within { 3 } else { 2 });
            }
        }
    });
    let judged = judged.map(AtomicU32::into_inner);
    assert!(judged.iter().all(|n| *n >= 3), "memory, divisibility, a limit, nothing: {judged:?}");
}

/// A plan that stands names what limits its rate; more of that, and only of that, gives more.
#[test]
fn what_limits_the_rate_is_named() {
    let lib = lab::small();
    // Aggregated: more budget a step relieves prefill, and only where it binds.
    let w = Workload::fixed("law", 0.0, 2048.0, 32.0);
    let load = Load::of(&w);
    let s = worker(&lib, split(1, 1, 1), &w);
    let at = |chunk: f64| aggregated::solve(&s, &load, 32.0, chunk, 1);
    let (tight, wide) = (at(256.0), at(16_384.0));
    assert_eq!(tight.binding, Binding::PrefillRate);
    assert_eq!(wide.binding, Binding::None);
    assert!(wide.requests_per_s > tight.requests_per_s);

    // P/D: prefill-rate, then another prefill worker; bandwidth, then a faster NIC.
    let side = pd::prefill_side(&s, &load, 1.0, load.isl);
    let d = pd::decode_side(&s, &load, 64.0);
    let pair = |np, nd| pd::combine(Several::of(&s, &side, np), Several::of(&s, &d, nd), &load);
    let bound = pair(1, 4);
    assert_eq!(bound.binding, Binding::PrefillRate);
    assert!(pair(2, 4).requests_per_s > bound.requests_per_s);
    lab::near(pair(1, 5).requests_per_s, bound.requests_per_s, 1e-12, "more decode does not help");

    let slow = |nic: f64| {
        let mut cluster = lib.cluster.clone();
        cluster.fabric.nic_bytes_per_s = nic;
        let lib = lab::library(&lib.model, &cluster, "trtllm", &lib.assumptions);
        let s = worker(&lib, split(1, 1, 1), &w);
        let side = pd::prefill_side(&s, &load, 1.0, load.isl);
        // More than one domain, so the NICs carry the KV.
        pd::combine(Several::of(&s, &side, 5), Several::of(&s, &pd::decode_side(&s, &load, 64.0), 5), &load)
    };
    let starved = slow(5e7);
    assert_eq!(starved.binding, Binding::Bandwidth(Link::Nic));
    let fed = slow(5e10);
    assert!(fed.binding != Binding::Bandwidth(Link::Nic) && fed.requests_per_s > starved.requests_per_s);
}

/// Each pool of a unit is named by itself, inside a slot too.
#[test]
fn memory_names_the_pool() {
    let w = Workload::fixed("law", 4096.0, 512.0, 256.0);
    let lib: Arc<Library> = lab::lib("deepseek-ai/DeepSeek-V3.2", "h200_sxm", 16, "sglang");
    let bound = |plan: &Plan| Engine::new(&lib, &w, plan).unwrap().point.binding.label();
    let unit = |a: u32, f: u32, batch: u32| {
        let mut p = afd_plan(pool(a, 1), pool(f, 1), 1);
        (p.batch, p.chunk_tokens) = (Some(batch), Some(batch + 512));
        p
    };
    assert_eq!(bound(&Plan::Afd(unit(8, 2, 8))), "memory:ffn");
    assert_eq!(bound(&Plan::Afd(unit(4, 8, 4000))), "memory:attention");
    let p8 = workers(1, split(8, 1, 1), Some(1), None);
    assert_eq!(bound(&Plan::Pd(PdPlan { prefill: p8.clone(), decode: Slot::Afd(unit(6, 2, 8)) })), "memory:decode.ffn");
    assert_eq!(
        bound(&Plan::Pd(PdPlan { prefill: p8.clone(), decode: workers(1, split(1, 2, 1), Some(1), None) })),
        "memory:decode"
    );
    assert_eq!(
        bound(&Plan::Pd(PdPlan { prefill: workers(1, split(2, 1, 1), Some(1), None), decode: p8 })),
        "memory:prefill"
    );
    let worker =
        Aggregated { parallel: split(1, 2, 1), batch: None, chunk_tokens: None, replicas: 1, ..Default::default() };
    assert_eq!(bound(&Plan::Aggregated(worker)), "memory:worker");
}

fn study(q: &Question) -> Study {
    explore(lab::db(), q, &Control::new()).unwrap()
}

/// The same for the verdicts of studies: limits tight and wide, memory short and ample.
#[test]
fn relaxing_what_binds_a_level_changes_its_verdict() {
    let mut bound = std::collections::BTreeSet::new();
    for (name, system, gpus, ttft, tpot) in [
        ("Qwen/Qwen3-30B-A3B", "b200_sxm", 6, 3.0, 1.0),
        ("Qwen/Qwen3-30B-A3B", "b200_sxm", 6, 1.0, 100.0),
        ("Qwen/Qwen3-30B-A3B", "b200_sxm", 6, 100.0, 3.0),
        ("Qwen/Qwen3-30B-A3B", "b200_sxm", 6, 22.0, 4.2),
        ("deepseek-ai/DeepSeek-V3", "h200_sxm", 4, 1e4, 1e3),
        ("deepseek-ai/DeepSeek-V3", "h200_sxm", 4, 1.0, 1.0),
    ] {
        let slo = Slo { ttft_ms: Some(ttft), tpot_ms: Some(tpot), percentile: None };
        let mut q = Question::new(
            Case::new(lab::model(name), lab::cluster(system, gpus), lab::chat()).on(Framework::Trtllm),
            slo,
        );
        q.batches_per_octave = 1;
        let s = study(&q);
        for v in &s.verdicts {
            let what = format!("{name} within {ttft}/{tpot} ms: {} {:?}", v.level.name(), v.binding);
            bound.insert(v.binding.label());
            match v.binding {
                Binding::None => assert!(v.feasible, "{what}"),
                Binding::Dominated => {
                    let best = s
                        .verdicts
                        .iter()
                        .filter(|o| o.feasible)
                        .filter_map(|o| o.row)
                        .map(|i| s.rows[i].point.requests_per_s)
                        .fold(0.0, f64::max);
                    assert!(s.rows[v.row.unwrap()].point.requests_per_s < best, "{what}");
                }
                _ => {
                    assert!(!v.feasible, "{what}");
                    let mut relaxed_q = q.clone();
                    relaxed_q.levels = vec![v.level];
                    match v.binding {
                        Binding::Memory(_) => relaxed_q.case.cluster = relaxed(&q.case.cluster),
                        other => relaxed_q.slo = relax_limit(&q.slo, other),
                    }
                    let after = study(&relaxed_q).verdicts[0].clone();
                    assert!(after.feasible || after.binding != v.binding, "{what}: still {:?}", after.binding);
                }
            }
        }
    }
    println!("{bound:?}");
    for word in ["", "ttft", "tpot", "dominated"] {
        assert!(bound.contains(word), "{word} was never seen: {bound:?}");
    }
    assert!(bound.iter().any(|b| b.starts_with("memory:")));
}
