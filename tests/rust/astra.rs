//! ASTRA mode against the 16 native rows, the event queue against the tandem, unit values of the original.

use std::collections::BTreeMap;

use disagg::control::Control;
use disagg::network::astra::{Engine, Message, Network, Topology};
use disagg::network::fluid::{self, Class};
use proptest::prelude::*;

pub struct Golden {
    pub id: String,
    pub network: Network,
    pub messages: Vec<Message>,
    pub finish_ns: u64,
    pub mean_ns: f64,
    pub fluid_ns: Option<f64>,
}

fn message((src, dst, bytes): (u32, u32, u64)) -> Message {
    Message { src, dst, bytes, start_ns: 0 }
}

pub fn golden() -> Vec<Golden> {
    let mut lists: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for line in include_str!("../golden/astra_lists.csv").lines().skip(1) {
        let f: Vec<&str> = line.split(',').collect();
        let m = message((f[1].parse().unwrap(), f[2].parse().unwrap(), f[3].parse().unwrap()));
        lists.entry(f[0].into()).or_default().push(m);
    }
    include_str!("../golden/astra.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let f: Vec<&str> = line.split(',').collect();
            let n: u32 = f[2].parse().unwrap();
            let side = |i: usize| (f[i].parse::<u32>().unwrap()..f[i + 1].parse::<u32>().unwrap()).collect::<Vec<_>>();
            let bytes = f[10].parse::<u64>().unwrap_or(0);
            let pairs: Vec<(u32, u32)> = match f[5] {
                "a2a" => (0..n).flat_map(|s| (0..n).filter(move |d| *d != s).map(move |d| (s, d))).collect(),
                "a2a-rotated" => (1..n).flat_map(|k| (0..n).map(move |s| (s, (s + k) % n))).collect(),
                "bipartite" => side(6).into_iter().flat_map(|s| side(8).into_iter().map(move |d| (s, d))).collect(),
                "bipartite-rotated" => {
                    let to = side(8);
                    let at = |i: usize, k: usize| to[(i + k) % to.len()];
                    (0..to.len())
                        .flat_map(|k| {
                            side(6).into_iter().enumerate().map(move |(i, s)| (s, at(i, k))).collect::<Vec<_>>()
                        })
                        .collect()
                }
                _ => Vec::new(),
            };
            let messages = if pairs.is_empty() {
                lists[f[0]].clone()
            } else {
                pairs.into_iter().map(|(s, d)| message((s, d, bytes))).collect()
            };
            let topology = if f[1] == "Switch" { Topology::Switch } else { Topology::FullyConnected };
            Golden {
                id: f[0].into(),
                network: Network {
                    topology,
                    npus: n,
                    gib_per_s: f[3].parse().unwrap(),
                    latency_ns: f[4].parse().unwrap(),
                },
                messages,
                finish_ns: f[11].parse().unwrap(),
                mean_ns: f[12].parse().unwrap(),
                fluid_ns: f[14].parse().ok(),
            }
        })
        .collect()
}

#[test]
fn the_native_rows_are_reproduced_to_the_nanosecond() {
    let rows = golden();
    assert_eq!(rows.len(), 16);
    for g in rows {
        let found = g.network.finish(&g.messages, Engine::Fast, &Control::new()).unwrap();
        assert_eq!(found.iter().max(), Some(&g.finish_ns), "{}", g.id);
        let mean = found.iter().sum::<u64>() as f64 / found.len() as f64;
        assert!((mean - g.mean_ns).abs() <= 0.051, "{}: {mean} {}", g.id, g.mean_ns);
        if g.messages.len() < 100_000 {
            assert_eq!(found, g.network.finish(&g.messages, Engine::Events, &Control::new()).unwrap(), "{}", g.id);
        }
    }
}

/// The same sets as fluid: one port out and one in for each device, two hops of latency.
#[test]
fn the_fluid_engine_agrees_with_the_published_max_min_times() {
    let known = golden().into_iter().filter(|g| g.messages.len() < 10_000);
    let known: Vec<_> = known.filter_map(|g| g.fluid_ns.map(|wanted| (g, wanted))).collect();
    assert!(known.len() >= 8, "{}", known.len());
    for (g, wanted) in known {
        let n = g.network.npus;
        let rate = g.network.gib_per_s * (1u64 << 30) as f64;
        let classes: Vec<Class> = g
            .messages
            .iter()
            .map(|m| Class {
                ports: vec![(m.src, 1.0), (n + m.dst, 1.0)],
                bytes: m.bytes as f64,
                count: 1.0,
                start_s: 0.0,
            })
            .collect();
        let ends = fluid::finish(&vec![rate; 2 * n as usize], &classes, &Control::new()).unwrap();
        let last = ends.into_iter().fold(0.0, f64::max) * 1e9 + 2.0 * g.network.latency_ns;
        assert!((last / wanted - 1.0).abs() < 1e-4, "{}: {last} {wanted}", g.id);
    }
}

#[test]
fn unit_values_of_the_original() {
    let network = |topology, npus| Network { topology, npus, gib_per_s: 50.0, latency_ns: 500.0 };
    let one =
        |n: Network, src, dst| n.finish(&[message((src, dst, 1 << 20))], Engine::Fast, &Control::new()).unwrap()[0];
    assert_eq!(one(network(Topology::FullyConnected, 8), 1, 4), 20_031);
    assert_eq!(one(network(Topology::Switch, 8), 1, 4), 40_062);
    assert_eq!(one(network(Topology::Ring, 16), 1, 4), 60_093);
    assert_eq!(one(network(Topology::Ring, 16), 2, 15), 60_093);
    // All-gather on a ring of 16: every device to every other.
    let all: Vec<Message> =
        (0..16).flat_map(|s| (0..16).filter(move |d| *d != s).map(move |d| message((s, d, 1 << 20)))).collect();
    let last = network(Topology::Ring, 16).finish(&all, Engine::Fast, &Control::new()).unwrap().into_iter().max();
    assert_eq!(last, Some(704_116));
}

#[test]
fn wrong_messages_are_named() {
    let n = Network { topology: Topology::Switch, npus: 4, gib_per_s: 0.0, latency_ns: 0.0 };
    let wrong = [message((0, 4, 1)), message((1, 1, 5)), message((0, 1, 0)), message((0, 1, u64::MAX))];
    let text = n.finish(&wrong, Engine::Fast, &Control::new()).unwrap_err().to_string();
    for part in [
        "fabric.gib_per_s",
        "flows[0].dst: 4 is not in a network of 4",
        "flows[1]: goes from",
        "flows[2].bytes: 0",
        "flows[3].bytes",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_tandem_is_the_event_queue(
        n in 2u32..12,
        sizes in prop::collection::vec((0u32..12, 0u32..12, prop_oneof![1u64..4, 1000u64..1004, 1u64..2_000_000]), 1..80),
        latency in 0u32..900,
        late in prop::bool::weighted(0.3),
    ) {
        let messages: Vec<Message> = sizes
            .iter()
            .enumerate()
            .filter(|(_, (s, d, _))| s % n != d % n)
            .map(|(i, (s, d, b))| Message { src: s % n, dst: d % n, bytes: *b, start_ns: if late { i as u64 % 3 * 700 } else { 0 } })
            .collect();
        prop_assume!(!messages.is_empty());
        let network = Network { topology: Topology::Switch, npus: n, gib_per_s: 1.0, latency_ns: f64::from(latency) };
        let fast = network.finish(&messages, Engine::Fast, &Control::new()).unwrap();
        prop_assert_eq!(fast, network.finish(&messages, Engine::Events, &Control::new()).unwrap());
    }
}

/// Messages in 64 chunks are nearly fluid: 0.6 % of its makespan on average over random sets, 1.5 % at worst
/// (chunks of a message are as large as the message is, so its sharing is weighted, not max-min).
#[test]
fn sixty_four_chunks_are_nearly_fluid() {
    let mut state = 1u64;
    let mut apart = Vec::new();
    for n in [8u32, 8, 8, 8, 8, 8, 16, 16, 16, 32] {
        let mut messages = Vec::new();
        for s in 0..n {
            for d in (0..n).filter(|d| *d != s) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                messages.push(message((s, d, (16 << 20) + (state >> 33) % (32 << 20))));
            }
        }
        let network = Network { topology: Topology::Switch, npus: n, gib_per_s: 450.0, latency_ns: 0.0 };
        // Chunk by chunk, every message in turn.
        let chunks: Vec<Message> =
            (0..64).flat_map(|_| messages.iter().map(|m| Message { bytes: m.bytes / 64, ..*m })).collect();
        let last = network.finish(&chunks, Engine::Fast, &Control::new()).unwrap().into_iter().max().unwrap();
        let rate = 450.0 * (1u64 << 30) as f64;
        let classes: Vec<Class> = messages
            .iter()
            .map(|m| Class {
                ports: vec![(m.src, 1.0), (n + m.dst, 1.0)],
                bytes: m.bytes as f64,
                count: 1.0,
                start_s: 0.0,
            })
            .collect();
        let ends = fluid::finish(&vec![rate; 2 * n as usize], &classes, &Control::new()).unwrap();
        apart.push((last as f64 * 1e-9 / ends.into_iter().fold(0.0, f64::max) - 1.0).abs());
    }
    let mean = apart.iter().sum::<f64>() / apart.len() as f64;
    assert!(mean <= 0.006 && apart.iter().all(|a| *a <= 0.015), "{mean} {apart:?}");
}
