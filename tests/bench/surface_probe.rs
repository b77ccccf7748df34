//! Builds every operator of DeepSeek-V3.2 and a GQA model on a system and prints times of building and evaluating.
//! `cargo run --release --example surface_probe [system]`
use disagg::kernels::ops::{self, ExpertShape, Source};
use disagg::kernels::{KernelDb, Surface};
use disagg::spec::{Dtype, catalog};
use std::time::Instant;

fn show(name: &str, build: impl FnOnce() -> Surface, at: &[&[f64]]) {
    let start = Instant::now();
    let s = build();
    let built = start.elapsed().as_secs_f64() * 1e3;
    println!("{name}  [{:.1} ms to build, {} dropped]\n    {}", built, s.dropped().len(), s.source());
    for d in s.dropped().iter().take(2) {
        println!("    - {d}");
    }
    for x in at {
        let r = s.at(x);
        let n = 20_000;
        let start = Instant::now();
        let mut sum = 0.0;
        for i in 0..n {
            let mut y = [x[0], x.get(1).copied().unwrap_or(0.0), x.get(2).copied().unwrap_or(0.0)];
            y[0] += (i & 7) as f64 * 0.1;
            sum += s.at(&y[..x.len()]).seconds;
        }
        std::hint::black_box(sum);
        let ns = start.elapsed().as_secs_f64() / f64::from(n) * 1e9;
        println!("    {x:?} -> {:.2} us {:?}  ({ns:.0} ns)", r.seconds * 1e6, r.evidence);
    }
}

fn main() {
    let system = std::env::args().nth(1).unwrap_or_else(|| "b200_sxm".into());
    let (device, _) = catalog::system(&system).expect("a system of the pack");
    let v32 = |sparse: bool| {
        catalog::model(if sparse { "deepseek-ai/DeepSeek-V3.2" } else { "deepseek-ai/DeepSeek-V3" }).expect("a preset")
    };
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels");
    let db = KernelDb::open(std::path::Path::new(dir)).expect("pack");
    for framework in ["trtllm", "sglang", "vllm"] {
        for graph in [false, true] {
            let s = Source {
                db: db.clone(),
                system: system.clone(),
                framework: framework.into(),
                device: device.clone(),
                graph,
                by_rule: true,
            };
            println!("==== {system} {framework} graph={graph}");
            show(
                "gemm fp8_block 7168x2048",
                || ops::gemm(&s, Dtype::Fp8Block, 7168, 2048).expect("gemm"),
                &[&[1.0], &[300.0], &[4096.0], &[1e5]],
            );
            show("gemm bf16 lm head", || ops::gemm(&s, Dtype::Bf16, 129_280, 7168).expect("gemm"), &[&[1.0], &[300.0]]);
            show(
                "gemm fp8_block q_b",
                || ops::gemm(&s, Dtype::Fp8Block, 24_576, 1536).expect("gemm"),
                &[&[1.0], &[300.0], &[4096.0]],
            );
            show(
                "context attention 64/4/128",
                || ops::context_attention(&s, 64, 4, 128, 0, Dtype::Bf16, Dtype::Bf16).expect("ctx"),
                &[&[1.0, 4096.0, 0.0], &[1.0, 4096.0, 4096.0], &[1.0, 8192.0, 1e5], &[3.0, 700.0, 0.0]],
            );
            show(
                "generation attention 64/4/128",
                || ops::generation_attention(&s, 64, 4, 128, 0, Dtype::Fp8).expect("gen"),
                &[&[1.0, 4096.0], &[100.0, 5000.0], &[64.0, 5e5]],
            );
            show(
                "generation attention 7/1/128",
                || ops::generation_attention(&s, 7, 1, 128, 0, Dtype::Fp8).expect("gen"),
                &[&[1.0, 4096.0], &[100.0, 5000.0]],
            );
            for heads in [128, 16] {
                for kv in [Dtype::Fp8, Dtype::Bf16] {
                    show(
                        &format!("V3.2 context {heads} {kv:?}"),
                        || ops::mla_context(&s, &v32(true), heads, Dtype::Fp8Block, kv).expect("dsa"),
                        &[
                            &[1.0, 512.0, 0.0],
                            &[1.0, 512.0, 128.0],
                            &[1.0, 512.0, 4096.0],
                            &[1.0, 4096.0, 0.0],
                            &[1.0, 4096.0, 65536.0],
                            &[1.0, 16384.0, 131072.0],
                            &[1.0, 8192.0, 516_000.0],
                            &[4.0, 100.0, 70_000.0],
                        ],
                    );
                    show(
                        &format!("V3.2 generation {heads} {kv:?}"),
                        || ops::mla_generation(&s, &v32(true), heads, Dtype::Fp8Block, kv).expect("dsa"),
                        &[&[1.0, 4096.0], &[128.0, 4096.0], &[128.0, 4608.0], &[1024.0, 4096.0], &[8.0, 528_000.0]],
                    );
                }
            }
            show(
                "V3 context 128",
                || ops::mla_context(&s, &v32(false), 128, Dtype::Fp8Block, Dtype::Fp8).expect("mla"),
                &[&[1.0, 4096.0, 0.0], &[1.0, 4096.0, 65536.0], &[1.0, 512.0, 4096.0]],
            );
            show(
                "V3 generation 128",
                || ops::mla_generation(&s, &v32(false), 128, Dtype::Fp8Block, Dtype::Fp8).expect("mla"),
                &[&[1.0, 4096.0], &[128.0, 4608.0], &[1024.0, 131_072.0]],
            );
            for ep in [1, 3, 8, 28, 64, 126, 256] {
                let shape =
                    ExpertShape { hidden: 7168, intermediate: 2048, topk: 8, experts: 256, moe_tp: 1, ep, gated: true };
                show(
                    &format!("moe ep {ep}"),
                    || ops::moe(&s, shape, Dtype::Fp8Block, "power_law_1.01").expect("moe"),
                    &[&[1.0], &[128.0], &[4000.0], &[65536.0]],
                );
                for decode in [true, false] {
                    if let Some(g) = ops::grouped_moe(
                        &s,
                        shape,
                        if framework == "trtllm" { Dtype::Nvfp4 } else { Dtype::Fp8Block },
                        "power_law_1.01",
                        decode,
                    )
                    .expect("grouped")
                    {
                        show(
                            &format!("grouped ep {ep} decode {decode}"),
                            || g,
                            &[&[1.0], &[128.0], &[4000.0], &[65536.0]],
                        );
                    }
                }
            }
        }
    }
}
