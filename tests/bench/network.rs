//! Times of the network engines (`make bench`): one line `name milliseconds` each.

use std::hint::black_box;
use std::time::Instant;

use disagg::control::Control;
use disagg::network::astra::{Engine, Message, Network, Topology};
use disagg::network::fabric::Fabric;
use disagg::network::fluid::{self, Class};
use disagg::spec::catalog;

fn best(name: &str, runs: u32, mut work: impl FnMut()) {
    work();
    let least = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name} {:.4}", least * 1e3);
}

/// Every GPU to every other, sizes that differ from pair to pair.
fn matrix(fabric: &Fabric, n: u32) -> Vec<Class> {
    let mut out = Vec::new();
    for s in 0..n {
        for d in (0..n).filter(|d| *d != s) {
            let bytes = 28_672.0 * f64::from(1 + (s * 7 + d * 13) % 5);
            let Ok(path) = fabric.path(s, d) else { continue };
            out.push(Class {
                ports: path.as_slice().iter().map(|p| (*p, 1.0)).collect(),
                bytes,
                count: 1.0,
                start_s: 0.0,
            });
        }
    }
    out
}

fn main() -> disagg::Result<()> {
    let switch = |npus, gib_per_s| Network { topology: Topology::Switch, npus, gib_per_s, latency_ns: 1000.0 };
    let rotated = |n: u32, bytes| -> Vec<Message> {
        (1..n).flat_map(|k| (0..n).map(move |s| Message { src: s, dst: (s + k) % n, bytes, start_ns: 0 })).collect()
    };
    let natural = |n: u32, bytes| -> Vec<Message> {
        (0..n)
            .flat_map(|s| (0..n).filter(move |d| *d != s).map(move |d| Message { src: s, dst: d, bytes, start_ns: 0 }))
            .collect()
    };
    for (name, n, messages) in [
        ("astra_a2a_256", 256, natural(256, 28_672)),
        ("astra_a2a_256_rotated", 256, rotated(256, 28_672)),
        ("astra_a2a_1024", 1024, natural(1024, 7168)),
        ("astra_a2a_1024_rotated", 1024, rotated(1024, 7168)),
    ] {
        best(name, 3, || {
            black_box(switch(n, 50.0).finish(&messages, Engine::Fast, &Control::new()).is_ok());
        });
    }
    let cluster = catalog::cluster("h200_sxm", 1024)?;
    let fabric = Fabric::new(&cluster.fabric, 1024);
    let all = matrix(&fabric, 1024);
    best("bound_matrix_1024", 3, || {
        black_box(fluid::bound(fabric.capacities(), &all).is_ok());
    });
    best("max_min_matrix_1024", 3, || {
        black_box(fluid::rates(fabric.capacities(), &all).is_ok());
    });
    // 72 GPUs: every GPU's dispatch as one class, beside 128 KV transfers that come and go.
    let rack = catalog::cluster("gb200", 144)?;
    let fabric = Fabric::new(&rack.fabric, 144);
    let mut classes: Vec<Class> = (0..72u32)
        .map(|g| {
            let ports = vec![(4 * g, 1.0), (4 * g + 1, 1.0), (4 * g + 2, 0.05), (4 * g + 3, 0.05)];
            Class { ports, bytes: 200e6, count: 1.0, start_s: 0.0 }
        })
        .collect();
    for i in 0..128u32 {
        let path = fabric.path(i % 72, 72 + (i * 7) % 72)?;
        let ports = path.as_slice().iter().map(|p| (*p, 1.0)).collect();
        classes.push(Class { ports, bytes: 1e6 * f64::from(1 + i % 9), count: 1.0, start_s: 2e-6 * f64::from(i) });
    }
    best("fluid_ep72_kv", 20, || {
        black_box(fluid::finish(fabric.capacities(), &classes, &Control::new()).is_ok());
    });
    Ok(())
}
