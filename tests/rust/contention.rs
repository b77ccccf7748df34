//! KV beside decode traffic: the closed form against the fluid engine, and its laws.

use disagg::control::Control;
use disagg::cost::{Batch, StepPorts};
use disagg::network::fabric::Fabric;
use disagg::network::fluid::{self, Class};
use disagg::serving::contention::{self, Crowd};
use disagg::serving::pd;
use disagg::serving::pd::Several;
use disagg::serving::step_engine::EngineKind;
use disagg::serving::{Load, SteadyState, StepEngine};
use disagg::spec::{Workload, catalog};
use proptest::prelude::*;

use crate::lab;

const RANKS: u32 = 16;
const BYTES: f64 = 1e6;

/// Two nodes that exchange, and a third from which KV comes.
fn fabric() -> Fabric {
    Fabric::new(&catalog::system("h100_sxm").unwrap().1, 24)
}

fn flow(f: &Fabric, src: u32, dst: u32, bytes: f64, start_s: f64) -> Class {
    let path = f.path(src, dst).unwrap();
    Class { ports: path.as_slice().iter().map(|p| (*p, 1.0)).collect(), bytes, count: 1.0, start_s }
}

/// Every rank to every rank of the other node.
fn exchange(f: &Fabric, start_s: f64) -> Vec<Class> {
    let pairs = (0..RANKS).flat_map(|a| (0..RANKS).map(move |b| (a, b)));
    pairs.filter(|(a, b)| a / 8 != b / 8).map(|(a, b)| flow(f, a, b, BYTES, start_s)).collect()
}

fn nic() -> f64 {
    catalog::system("h100_sxm").unwrap().1.nic_bytes_per_s
}

fn makespan(f: &Fabric, classes: &[Class], of: usize) -> f64 {
    let ends = fluid::finish(f.capacities(), classes, &Control::new()).unwrap();
    ends[..of].iter().copied().fold(0.0, f64::max)
}

#[test]
fn a_crowded_phase_is_longer_by_one_flow() {
    let f = fabric();
    let phase = exchange(&f, 0.0);
    let (n, flows) = (phase.len(), 8.0);
    let alone = makespan(&f, &phase, n);
    let busy = flows * BYTES / nic();
    assert!((alone / busy - 1.0).abs() < 1e-9, "{alone} {busy}");
    // However many ranks receive KV, the phase waits for the last of them.
    for receivers in [1, 3, 8] {
        let mut all = phase.clone();
        all.extend((0..receivers).map(|i| flow(&f, 16 + i, i, 1e9, 0.0)));
        let crowded = makespan(&f, &all, n);
        assert!((crowded / (busy + busy / flows) - 1.0).abs() < 1e-6, "{receivers}: {crowded}");
    }
}

#[test]
fn kv_gets_what_the_phases_leave() {
    let f = fabric();
    let busy = 8.0 * BYTES / nic();
    for idle in [0.2, 1.0, 4.0] {
        // Steps: a phase, then work without traffic; each starts when the one before is over.
        let step = busy * (1.0 + 1.0 / 8.0 + idle);
        let mut all = Vec::new();
        for k in 0..40 {
            all.extend(exchange(&f, step * f64::from(k)));
        }
        let crowd = Crowd { busy_s: [busy, 0.0], crowded_s: step };
        let share = crowd.shared(step, [0.0; 2], 16.0).share[0];
        let bytes = 30.0 * share * step * nic();
        all.push(flow(&f, 16, 0, bytes, 0.0));
        let ends = fluid::finish(f.capacities(), &all, &Control::new()).unwrap();
        let took = *ends.last().unwrap();
        let said = bytes / (share * nic());
        assert!(took < 39.0 * step, "the phases outlast the transfer");
        assert!((took / said - 1.0).abs() < 0.04, "idle {idle}: {took} against {said}");
    }
}

/// SplitMix64 as a number in [0, 1).
fn draw(i: u64) -> f64 {
    let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[test]
fn a_step_waits_as_often_as_any_rank_has_kv() {
    let f = fabric();
    let phase = exchange(&f, 0.0);
    let (n, busy) = (phase.len(), 8.0 * BYTES / nic());
    let crowd = Crowd { busy_s: [busy, 0.0], crowded_s: busy * 1.125 };
    for q in [0.01, 0.05, 0.2] {
        let draws = 600;
        let mut mean = 0.0;
        for k in 0..draws {
            let mut all = phase.clone();
            for rank in 0..RANKS {
                if draw(u64::from(k * RANKS + rank)) < q {
                    all.push(flow(&f, 16 + rank % 8, rank, 1e9, 0.0));
                }
            }
            mean += makespan(&f, &all, n) / f64::from(draws);
        }
        // rho/share = q: presence is what is drawn here.
        let share = crowd.shared(busy, [0.0; 2], 1.0).share[0];
        let said = crowd.shared(busy, [q * share, 0.0], f64::from(RANKS)).seconds;
        assert!((mean / said - 1.0).abs() < 0.01, "q {q}: {mean} against {said}");
    }
}

proptest! {
    #[test]
    fn sharing_keeps_its_bounds(
        busy in 0.0..2.0f64, extra in 0.0..1.0f64, rho in 0.0..2.0f64, more in 0.0..1.0f64, gpus in 1u32..512,
    ) {
        let crowd = Crowd { busy_s: [busy, 0.5 * busy], crowded_s: 2.0 + extra };
        let at = |rho: f64, gpus: f64| crowd.shared(2.0, [rho, 0.0], gpus);
        let s = at(rho, f64::from(gpus));
        prop_assert!((2.0..=2.0 + extra + 1e-12).contains(&s.seconds));
        prop_assert!(s.share.iter().all(|g| *g > 0.0 && *g <= 1.0));
        prop_assert!(at(rho + more, f64::from(gpus)).seconds >= s.seconds - 1e-12);
        prop_assert!(at(rho, f64::from(gpus) + 1.0).seconds >= s.seconds - 1e-12);
        prop_assert_eq!(at(0.0, f64::from(gpus)).seconds, 2.0);
    }
}

// --- inside an estimate ----------------------------------------------------------------------------------

fn workload() -> Workload {
    Workload::fixed("heavy KV", 0.0, 8192.0, 256.0)
}

/// A model whose KV is heavy (GQA in BF16), on nodes of eight.
fn point(nic_scale: f64, contention: bool, np: u32, nd: u32) -> SteadyState {
    let base = lab::lib("Qwen/Qwen3-235B-A22B", "b200_sxm", 64, "sglang");
    let mut cluster = base.cluster.clone();
    cluster.fabric.nic_bytes_per_s *= nic_scale;
    let mut assumptions = base.assumptions.clone();
    assumptions.kv_contention = contention;
    let lib = lab::library(&base.model, &cluster, "sglang", &assumptions);
    let w = workload();
    let load = Load::of(&w);
    let s = lab::worker(&lib, lab::split(1, 16, 1), &w);
    let side = pd::prefill_side(&s, &load, 1.0, load.isl);
    pd::combine(Several::of(&s, &side, np), Several::of(&s, &pd::decode_side(&s, &load, 32.0), nd), &load)
}

#[test]
fn contention_enters_both_latencies() {
    let (with, without) = (point(1.0, true, 3, 1), point(1.0, false, 3, 1));
    println!("KV {:?}: TTFT {} {}, TPOT {} {}", with.kv, with.ttft_s, without.ttft_s, with.tpot_s, without.tpot_s);
    assert!(with.ttft_s > without.ttft_s && with.requests_per_s <= without.requests_per_s);
    assert!(with.kv.decode_s > 0.0 && with.kv.prefill_s > 0.0 && with.kv.wait_s > without.kv.wait_s);
    assert_eq!((without.kv.decode_s, without.kv.prefill_s), (0.0, 0.0));
    // A faster NIC leaves less of it, in seconds.
    let cost = |p: SteadyState| p.ttft_s;
    let mut last = f64::INFINITY;
    for scale in [0.25, 0.5, 1.0, 2.0, 8.0] {
        let p = point(scale, true, 3, 1);
        assert!(cost(p) <= last * (1.0 + 1e-9), "NIC x {scale}");
        assert!(p.requests_per_s <= point(scale, false, 3, 1).requests_per_s * (1.0 + 1e-9));
        last = cost(p);
    }
}

#[test]
fn sides_that_know_their_ports_answer_alike() {
    let lib = lab::lib("Qwen/Qwen3-235B-A22B", "b200_sxm", 64, "sglang");
    let w = workload();
    let load = Load::of(&w);
    let worker = lab::worker(&lib, lab::split(1, 16, 1), &w);
    let unit = StepEngine::afd(&lib, &lab::afd_plan(lab::pool(16, 1), lab::pool(16, 1), 3), &w).unwrap();
    for s in [&worker, &unit] {
        let (p, d) = (pd::prefill_side(s, &load, 2.0, 4096.0), pd::decode_side(s, &load, 32.0));
        let lazy = pd::combine(Several::of(s, &p, 1), Several::of(s, &d, 1), &load);
        let eager =
            pd::combine(Several::of(s, &p.with_ports(s, &load), 1), Several::of(s, &d.with_ports(s, &load), 1), &load);
        assert_eq!(lazy, eager);
        // Three micro-batches hide the unit's longer F2A; its prefill and the worker's steps hide nothing.
        assert!(lazy.kv.prefill_s > 0.0 && (s.is_afd() || lazy.kv.decode_s > 0.0), "{:?}", lazy.kv);
    }
}

#[test]
fn kv_into_decode_meets_only_what_comes_in() {
    let lib = lab::lib("Qwen/Qwen3-235B-A22B", "b200_sxm", 64, "sglang");
    let w = workload();
    let s = StepEngine::afd(&lib, &lab::afd_plan(lab::pool(16, 1), lab::pool(16, 1), 3), &w).unwrap();
    let EngineKind::Afd(u) = &s.kind else { unreachable!() };
    let b = Batch::decode(32.0, 8192.0, 1.0);
    let ports = |price: &dyn Fn(&mut StepPorts)| {
        let mut p = StepPorts::default();
        price(&mut p);
        p.tiers[1].map(|way| way.busy_s)
    };
    let [a2f_in, a2f_out] = ports(&|p| u.unit.hops().price(&b, false, p));
    let [f2a_in, f2a_out] = ports(&|p| u.unit.hops().price(&b, true, p));
    assert_eq!((a2f_in, f2a_out), (0.0, 0.0));
    assert!(a2f_out > 0.0 && f2a_in > 0.0);
    // No extra: the schedule itself. An A2F that is hidden costs nothing when it is a little longer.
    let parts = u.parts(&b);
    let plain = u.schedule(&parts, true).seconds;
    assert_eq!(u.schedule_beside(&parts, true, |_| disagg::serving::stages::Extra::default()), plain);
    let longer =
        u.schedule_beside(&parts, true, |_| disagg::serving::stages::Extra { f2a: 1e-3, ..Default::default() });
    assert!(longer > plain);
    let step = pd::decode_side(&s, &Load::of(&w), 32.0).step.seconds;
    let [near, far] = contention::decode(&s, 32.0, 8192.0, step, [true, false]);
    assert!(far.crowded_s >= step && near.crowded_s >= step);
    // The whole step at most: every layer's F2A of every micro-batch longer by its share.
    assert!(far.crowded_s <= step + far.busy_s[0]);
}
