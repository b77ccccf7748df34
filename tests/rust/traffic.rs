//! Bytes per port: the closed forms against an explicit sum over every pair of GPUs, and their laws.

use disagg::math::combinatorics::{even_split, hit_probability};
use disagg::network::AfdShape;
use disagg::network::fabric::{Fabric, Port};
use disagg::network::spread::Spread;
use disagg::network::traffic::{Ports, low_latency, one_sided, packed, payload_bytes, return_bytes};
use disagg::network::wires::Wires;
use disagg::spec::{Dtype, catalog};
use proptest::prelude::*;

/// Bytes through every port when `bytes(s, d)` go from each GPU to each other.
fn explicit(fabric: &Fabric, sources: &[u32], sinks: &[u32], bytes: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = vec![0.0; fabric.capacities().len()];
    for (i, s) in sources.iter().enumerate() {
        for (j, d) in sinks.iter().enumerate() {
            for p in fabric.path(*s, *d).unwrap().as_slice() {
                out[*p as usize] += bytes(i, j);
            }
        }
    }
    out
}

/// The busiest GPU's ports, out or in, among these GPUs.
fn busiest(fabric: &Fabric, through: &[f64], gpus: &[u32], out: bool) -> Ports {
    let most =
        |port: fn(u32) -> Port| gpus.iter().map(|g| through[fabric.id(port(*g)).unwrap() as usize]).fold(0.0, f64::max);
    if out {
        Ports { nvlink: most(Port::NvlinkOut), nic: most(Port::NicOut) }
    } else {
        Ports { nvlink: most(Port::NvlinkIn), nic: most(Port::NicIn) }
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-30)
}

fn same(a: Ports, b: Ports) -> bool {
    near(a.nvlink, b.nvlink) && near(a.nic, b.nic)
}

fn fabric(system: &str, gpus: u32) -> (Fabric, Wires) {
    let spec = catalog::cluster(system, gpus).unwrap().fabric;
    (Fabric::new(&spec, gpus), Wires::new(&spec))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Symmetric classes against 64 x 64 pairs: low-latency sends each of k copies its own way.
    #[test]
    fn dispatch_without_dedup(ep in 1u32..=64, k in 1u32..9) {
        let (f, wires) = fabric("h100_sxm", 64);
        let all: Vec<u32> = (0..ep).collect();
        let through = explicit(&f, &all, &all, |_, _| f64::from(k) / f64::from(ep));
        let closed = low_latency(k, ep, wires.domain);
        prop_assert!(same(busiest(&f, &through, &all, true), closed), "{closed:?}");
        prop_assert!(same(busiest(&f, &through, &all, false), closed));
    }

    /// One copy a GPU, uneven experts included: what goes out is the sum over GPUs of their hit probability.
    #[test]
    fn dispatch_with_one_copy_a_gpu(ep in 1u32..=64, k in 1u32..9) {
        let (f, _) = fabric("gb200", 72);
        let (big, n_big, small, _) = even_split(256, ep);
        let all: Vec<u32> = (0..ep).collect();
        let hit = |d: usize| hit_probability(256, if (d as u32) < n_big { big } else { small }, k);
        let through = explicit(&f, &all, &all, |_, d| hit(d));
        let closed = one_sided(256, k, ep);
        // The mean sender, to which each of the others is one destination in ep.
        let total: f64 = all.iter().map(|g| through[f.id(Port::NvlinkOut(*g)).unwrap() as usize]).sum();
        prop_assert!(near(total / f64::from(ep), closed.nvlink), "{closed:?}");
    }

    /// A2F of any M:N, packed or placed by hand, against the sum over every pair.
    #[test]
    fn afd_hops_are_the_sum_over_every_pair(
        ranks in 1u32..9, tp in prop_oneof![Just(1u32), Just(2), Just(4)], groups in 1u32..17, moe_tp in prop_oneof![Just(1u32), Just(2)],
        tokens in 1.0..500.0f64, system in prop_oneof![Just("h100_sxm"), Just("gb200")], shuffle in 0u64..1000, by_hand in any::<bool>(),
    ) {
        // Groups of equal size: each token goes to a group with the same probability.
        let ep = [1u32, 2, 4, 8, 16][(groups % 5) as usize];
        let (attention, ffn) = (ranks * tp, ep * moe_tp);
        prop_assume!(attention + ffn <= 64);
        let (f, wires) = fabric(system, 72);
        let mut ids: Vec<u32> = (0..if by_hand { 64 } else { attention + ffn }).collect();
        if by_hand {
            let mut state = shuffle.wrapping_add(7);
            for i in (1..ids.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ids.swap(i, (state >> 33) as usize % (i + 1));
            }
        }
        let (a_ids, f_ids) = (&ids[..attention as usize], &ids[attention as usize..(attention + ffn) as usize]);
        let shape = AfdShape {
            hidden: 7168, topk: 8, experts: 256, groups: 0, topk_groups: 0, attention_gpus: attention, attention_tp: tp,
            ffn_gpus: ffn, ep, moe_tp, dispatch_dtype: Dtype::Fp8, prereduce: false, shared_copy: false, half_duplex: false,
            spread: by_hand.then(|| Spread::placed(a_ids, f_ids, wires.domain)),
        };
        let payload = payload_bytes(7168, Dtype::Fp8);
        let one = tokens * hit_probability(256, 256 / ep, 8) * payload / f64::from(tp);
        let through = explicit(&f, a_ids, f_ids, |_, _| one);
        let hop = shape.direct(tokens, payload, &wires);
        prop_assert!(same(busiest(&f, &through, a_ids, true), hop.attention), "{hop:?}");
        prop_assert!(same(busiest(&f, &through, f_ids, false), hop.ffn), "{hop:?}");
        // Conservation: what leaves the attention pool is what enters the FFN pool.
        let sum = |ports: [fn(u32) -> Port; 2], gpus: &[u32]| gpus.iter().flat_map(|g| ports.map(|p| through[f.id(p(*g)).unwrap() as usize])).sum::<f64>();
        let (out, into) = (sum([Port::NvlinkOut, Port::NicOut], a_ids), sum([Port::NvlinkIn, Port::NicIn], f_ids));
        prop_assert!(near(out, into) && near(out, one * f64::from(attention) * f64::from(ffn)));
        // F2A is the same traffic the other way: equal payloads, equal bytes.
        let back = explicit(&f, f_ids, a_ids, |_, _| one);
        prop_assert!(same(busiest(&f, &back, a_ids, false), hop.attention) && same(busiest(&f, &back, f_ids, true), hop.ffn));
        // More bytes, more everywhere.
        let more = shape.direct(tokens * 1.5, return_bytes(7168), &wires);
        prop_assert!(more.attention.nvlink >= hop.attention.nvlink && more.ffn.nic >= hop.ffn.nic);
    }

    /// Renaming GPUs within their domains, or whole domains, changes nothing.
    #[test]
    fn names_do_not_matter(a in 1u32..20, n in 1u32..20, turn in 0u32..8) {
        let rename = |g: u32| (g / 8 + 3) % 8 * 8 + (g % 8 + turn) % 8;
        let (x, y): (Vec<u32>, Vec<u32>) = ((0..a).collect(), (a..a + n).collect());
        let (p, q): (Vec<u32>, Vec<u32>) = (x.iter().map(|g| rename(*g)).collect(), y.iter().map(|g| rename(*g)).collect());
        prop_assert_eq!(Spread::placed(&x, &y, 8), Spread::placed(&p, &q, 8));
    }
}

#[test]
fn kv_is_resharded_without_loss() {
    // 4 prefill ranks to 8 decode ranks: lcm(4, 8) = 8 slices of an eighth.
    let (f, _) = fabric("b200_sxm", 24);
    let (from, to): (Vec<u32>, Vec<u32>) = ((0..4).collect(), (8..16).collect());
    let through = explicit(&f, &from, &to, |s, d| if d / 2 == s { 1.0 / 8.0 } else { 0.0 });
    let (out, into) = (busiest(&f, &through, &from, true), busiest(&f, &through, &to, false));
    assert!(near(out.nic, 0.25) && near(into.nic, 0.125) && out.nvlink == 0.0);
    assert_eq!(packed(16, 8), (8, 8, 2));
}
