//! The fluid engine against brute force and linear programs, and its laws.

use disagg::control::Control;
use disagg::network::fluid::{Class, bound, finish, rates};
use microlp::{ComparisonOp, OptimizationDirection, Problem};
use proptest::prelude::*;

/// Progressive filling, written as in the textbook, over single flows.
fn slow_rates(capacities: &[f64], flows: &[&Class]) -> Vec<f64> {
    let mut rate = vec![0.0; flows.len()];
    let mut open: Vec<bool> = flows.iter().map(|f| !f.ports.is_empty()).collect();
    let mut left = capacities.to_vec();
    while open.iter().any(|o| *o) {
        let weight = |p: usize| -> f64 {
            flows
                .iter()
                .zip(&open)
                .filter(|(_, o)| **o)
                .flat_map(|(f, _)| f.ports.iter().filter(|q| q.0 as usize == p).map(move |q| q.1 * f.count))
                .sum()
        };
        let weights: Vec<f64> = (0..capacities.len()).map(weight).collect();
        let step = (0..capacities.len())
            .filter(|p| weights[*p] > 1e-12)
            .map(|p| left[p] / weights[p])
            .fold(f64::INFINITY, f64::min);
        for p in 0..capacities.len() {
            left[p] -= step * weights[p];
        }
        for (i, f) in flows.iter().enumerate() {
            if open[i] {
                rate[i] += step;
                if f.ports.iter().any(|(p, _)| left[*p as usize] <= 1e-9 * capacities[*p as usize]) {
                    open[i] = false;
                }
            }
        }
    }
    rate
}

/// From event to event, every rate worked out anew.
fn slow_finish(capacities: &[f64], classes: &[Class]) -> Vec<f64> {
    let mut left: Vec<f64> = classes.iter().map(|c| c.bytes).collect();
    let mut out = vec![f64::NAN; classes.len()];
    let mut now = 0.0;
    loop {
        let active: Vec<usize> =
            (0..classes.len()).filter(|i| out[*i].is_nan() && classes[*i].start_s <= now).collect();
        let flows: Vec<&Class> = active.iter().map(|i| &classes[*i]).collect();
        let rate = slow_rates(capacities, &flows);
        let start = classes.iter().map(|c| c.start_s).filter(|s| *s > now).fold(f64::INFINITY, f64::min);
        let ends: Vec<f64> = active.iter().zip(&rate).map(|(i, r)| now + left[*i] / r).collect();
        let end = ends.iter().copied().fold(f64::INFINITY, f64::min);
        let next = start.min(end);
        if next.is_infinite() {
            return out;
        }
        for ((i, r), e) in active.iter().zip(&rate).zip(&ends) {
            left[*i] -= r * (next - now);
            if *e <= next * (1.0 + 1e-12) {
                out[*i] = next;
            }
        }
        now = next;
    }
}

/// Lexicographic max-min by linear programs: raise the least rate, fix who cannot go higher, go on.
fn lp_rates(capacities: &[f64], classes: &[Class]) -> Vec<f64> {
    let n = classes.len();
    let mut fixed: Vec<Option<f64>> = vec![None; n];
    let solve = |fixed: &[Option<f64>], least: Option<f64>, which: Option<usize>| -> f64 {
        let mut lp = Problem::new(OptimizationDirection::Maximize);
        let t = lp.add_var(if which.is_none() { 1.0 } else { 0.0 }, (0.0, f64::INFINITY));
        let r: Vec<_> =
            (0..n).map(|i| lp.add_var(if which == Some(i) { 1.0 } else { 0.0 }, (0.0, f64::INFINITY))).collect();
        for i in 0..n {
            match (fixed[i], least) {
                (Some(x), _) => lp.add_constraint([(r[i], 1.0)], ComparisonOp::Ge, x * (1.0 - 1e-9)),
                (None, Some(x)) => lp.add_constraint([(r[i], 1.0)], ComparisonOp::Ge, x * (1.0 - 1e-9)),
                (None, None) => lp.add_constraint([(r[i], 1.0), (t, -1.0)], ComparisonOp::Ge, 0.0),
            };
        }
        for (p, capacity) in capacities.iter().enumerate() {
            let terms: Vec<_> = classes
                .iter()
                .enumerate()
                .flat_map(|(i, c)| c.ports.iter().filter(|q| q.0 as usize == p).map(move |q| (i, q.1 * c.count)))
                .map(|(i, w)| (r[i], w))
                .collect();
            if !terms.is_empty() {
                lp.add_constraint(terms, ComparisonOp::Le, *capacity);
            }
        }
        lp.add_constraint([(t, 1.0)], ComparisonOp::Le, 1e6);
        lp.solve().unwrap().objective()
    };
    while fixed.iter().any(Option::is_none) {
        let least = solve(&fixed, None, None);
        let stuck: Vec<usize> = (0..n)
            .filter(|i| fixed[*i].is_none() && solve(&fixed, Some(least), Some(*i)) <= least * (1.0 + 1e-6))
            .collect();
        assert!(!stuck.is_empty());
        for i in stuck {
            fixed[i] = Some(least);
        }
    }
    fixed.into_iter().map(Option::unwrap).collect()
}

fn classes(ports: u32, most: usize, starts: bool) -> impl Strategy<Value = Vec<Class>> {
    let weight = prop_oneof![3 => Just(1.0), 1 => 0.1..1.0f64];
    let class = (
        prop::collection::btree_map(0..ports, weight, 1..4),
        prop_oneof![1.0..100.0f64, Just(10.0)],
        prop_oneof![3 => Just(1.0), 1 => (1u32..5).prop_map(f64::from)],
        if starts { (0.0..3.0f64).boxed() } else { Just(0.0).boxed() },
    );
    let class = class.prop_map(|(ports, bytes, count, start_s)| Class {
        ports: ports.into_iter().collect(),
        bytes,
        count,
        start_s,
    });
    prop::collection::vec(class, 1..most)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Many flows on few paths, which share what they are told, and few on many ports, which are kept in order.
    #[test]
    fn flows_of_one_path_and_ports_of_one_flow_are_those_of_brute_force(
        few in prop::collection::vec((0u32..3, 3u32..5, prop_oneof![Just(7.0), 1.0..9.0f64], prop_oneof![Just(0.0), 0.0..3.0f64]), 1..40),
        far in prop::collection::vec((0u32..150, 150u32..300, 1.0..9.0f64), 1..30),
        capacities in prop::collection::vec(5.0..50.0f64, 300),
    ) {
        let class = |a: u32, b: u32, bytes, start_s| Class { ports: vec![(a, 1.0), (b, 1.0)], bytes, count: 1.0, start_s };
        let few: Vec<Class> = few.iter().map(|(a, b, bytes, start)| class(*a, *b, *bytes, *start)).collect();
        // Enough other ports in use that the shares are kept in order.
        let mut far: Vec<Class> = far.iter().map(|(a, b, bytes)| class(*a, *b, *bytes, 0.0)).collect();
        far.extend((0..150).map(|p| class(p, 150 + p, 4.0, 0.0)));
        for (flows, ports) in [(&few, 5), (&far, 300)] {
            let fast = finish(&capacities[..ports], flows, &Control::new()).unwrap();
            for (i, (a, b)) in fast.iter().zip(slow_finish(&capacities[..ports], flows)).enumerate() {
                prop_assert!(close(*a, b), "{i}: {a} {b}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_end_is_that_of_brute_force(flows in classes(8, 24, true), capacities in prop::collection::vec(5.0..50.0f64, 8)) {
        let fast = finish(&capacities, &flows, &Control::new()).unwrap();
        for (i, (a, b)) in fast.iter().zip(slow_finish(&capacities, &flows)).enumerate() {
            prop_assert!(close(*a, b), "{i}: {a} {b}");
        }
    }

    #[test]
    fn classes_stand_for_equal_flows(flows in classes(6, 8, true), capacities in prop::collection::vec(5.0..50.0f64, 6)) {
        let one_by_one: Vec<Class> = flows.iter().flat_map(|c| (0..c.count as usize).map(|_| Class { count: 1.0, ..c.clone() })).collect();
        let fast = finish(&capacities, &flows, &Control::new()).unwrap();
        let many = finish(&capacities, &one_by_one, &Control::new()).unwrap();
        let mut at = 0;
        for (c, a) in flows.iter().zip(fast) {
            for _ in 0..c.count as usize {
                prop_assert!(close(a, many[at]));
                at += 1;
            }
        }
    }

    #[test]
    fn no_order_matters_and_more_bytes_never_help(flows in classes(6, 10, true), capacities in prop::collection::vec(5.0..50.0f64, 6), turn in 0usize..10, more in 1.0..2.0f64) {
        let base = finish(&capacities, &flows, &Control::new()).unwrap();
        let mut turned = flows.clone();
        turned.rotate_left(turn % flows.len());
        let other = finish(&capacities, &turned, &Control::new()).unwrap();
        for (i, b) in base.iter().enumerate() {
            prop_assert!(close(*b, other[(i + flows.len() - turn % flows.len()) % flows.len()]));
        }
        // All bytes more: everything later. (One flow's alone may speed another up: that is max-min.)
        let scaled: Vec<Class> = flows.iter().map(|c| Class { bytes: c.bytes * more, start_s: 0.0, ..c.clone() }).collect();
        let still: Vec<Class> = flows.iter().map(|c| Class { start_s: 0.0, ..c.clone() }).collect();
        let (a, b) = (finish(&capacities, &still, &Control::new()).unwrap(), finish(&capacities, &scaled, &Control::new()).unwrap());
        for (a, b) in a.iter().zip(&b) {
            prop_assert!(close(a * more, *b));
        }
    }

    /// Bytes are conserved at every port and no port carries more than it can; no end is before the bound.
    #[test]
    fn the_bound_holds_and_ports_are_not_overdrawn(flows in classes(6, 12, true), capacities in prop::collection::vec(5.0..50.0f64, 6)) {
        let ends = finish(&capacities, &flows, &Control::new()).unwrap();
        let bounds = bound(&capacities, &flows).unwrap();
        let last = ends.iter().copied().fold(0.0, f64::max);
        let least = bounds.iter().copied().fold(0.0, f64::max);
        prop_assert!(last >= least * (1.0 - 1e-9), "{last} {least}");
        for p in 0..6u32 {
            let own = |c: &Class| c.ports.iter().find(|q| q.0 == p).map_or(0.0, |q| q.1 * c.count * c.bytes);
            let bytes: f64 = flows.iter().map(own).sum();
            let until = flows.iter().zip(&ends).filter(|(c, _)| own(c) > 0.0).map(|(_, e)| *e).fold(0.0, f64::max);
            prop_assert!(bytes <= until * capacities[p as usize] * (1.0 + 1e-9));
        }
        let all = rates(&capacities, &flows).unwrap();
        for p in 0..6u32 {
            let load: f64 = flows.iter().zip(&all).map(|(c, r)| c.ports.iter().filter(|q| q.0 == p).map(|q| q.1 * c.count * r).sum::<f64>()).sum();
            prop_assert!(load <= capacities[p as usize] * (1.0 + 1e-9));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rates_are_those_of_the_linear_programs(flows in classes(5, 7, false), capacities in prop::collection::vec(5.0..50.0f64, 5)) {
        let fast = rates(&capacities, &flows).unwrap();
        for (a, b) in fast.iter().zip(lp_rates(&capacities, &flows)) {
            prop_assert!((a - b).abs() <= 1e-5 * a.max(b), "{a} {b}");
        }
    }
}

#[test]
fn a_lone_flow_takes_its_bytes_over_the_narrowest_port() {
    let flow = |start_s: f64, ports: &[(u32, f64)]| Class { ports: ports.to_vec(), bytes: 100.0, count: 1.0, start_s };
    let ends = finish(&[10.0, 5.0], &[flow(2.0, &[(0, 1.0), (1, 1.0)]), flow(1.0, &[])], &Control::new()).unwrap();
    assert_eq!(ends, [22.0, 1.0]);
    // A quarter of the bytes passes the narrow port.
    assert_eq!(finish(&[10.0, 5.0], &[flow(0.0, &[(0, 1.0), (1, 0.25)])], &Control::new()).unwrap(), [10.0]);
}

#[test]
fn wrong_flows_are_named() {
    let ok = Class { ports: vec![(0, 1.0)], bytes: 1.0, count: 1.0, start_s: 0.0 };
    let wrong = [
        Class { bytes: 0.0, ..ok.clone() },
        Class { bytes: f64::NAN, ..ok.clone() },
        Class { bytes: 1e300, ..ok.clone() },
        Class { start_s: -1.0, ..ok.clone() },
        Class { ports: vec![(7, 1.0)], ..ok.clone() },
        Class { count: 0.0, ..ok },
    ];
    let text = finish(&[1.0], &wrong, &Control::new()).unwrap_err().to_string();
    for part in [
        "flows[0].bytes: 0 bytes",
        "flows[1].bytes: NaN",
        "flows[2].bytes",
        "flows[3].start_s: cannot be -1",
        "flows[4].ports: port 7 is absent",
        "flows[5].count",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let cancelled = Control::new();
    cancelled.cancel();
    let many: Vec<Class> = (0..600)
        .map(|i| Class { ports: vec![(0, 1.0)], bytes: 1.0 + f64::from(i), count: 1.0, start_s: 0.0 })
        .collect();
    assert!(matches!(finish(&[1.0], &many, &cancelled), Err(disagg::Error::Cancelled)));
}
