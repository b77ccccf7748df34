//! SGLang: `sglang.launch_server`, NIXL between prefill and decode, `sglang_router` in front.
//!
//! Flags: `server_args.py` of SGLang 0.5.14, sglang-router 0.3.2. `--tp-size` counts all GPUs of a stage; DP attention
//! divides it. `--max-running-requests` and `--chunked-prefill-size` count the whole server, which divides them by its attention
//! ranks.
//!
//! Limit: flags of the versions named; environment variables of tuned builds are not set.

use super::ask::Ask;
use super::flags::Flags;
use super::place::of;
use super::place::{ProcessPart, Role, Server};
use super::script::Out;
use super::script::{Process, host, url};
use crate::spec::Dtype;

/// Ranks that DeepEP's throughput kernels are tuned for (`get_dispatch_config` of deep_ep/buffer.py).
const DEEPEP_RANKS: [u32; 12] = [2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 144, 160];

/// Ports: of processes across nodes, and of the prefill side's bootstrap. Each server has its own.
const INIT: u16 = 20_000;
const BOOTSTRAP: u16 = 9_998;

pub fn write(ask: &Ask, servers: &[Server], out: &mut Out) {
    for s in servers {
        for part in s.parts(ask.case.cluster.fabric.node_gpus) {
            let mut f = Flags::default();
            f.set("--model-path", "\"$MODEL\"", "");
            if part.rank == 0 {
                f.set("--host", "0.0.0.0", "");
                f.set("--port", s.port, "");
            }
            engine(ask, s, &part, &mut f, &mut out.notes);
            out.processes.push(Process::on(&part, s.name(), "python -m sglang.launch_server", f));
        }
    }
    router(ask, servers, out);
    out.notes.dedup();
}

pub fn bootstrap(s: &Server) -> u16 {
    BOOTSTRAP + s.number()
}

/// Flags of the engine, the same under `launch_server` and Dynamo.
pub fn engine(ask: &Ask, s: &Server, part: &ProcessPart, f: &mut Flags, notes: &mut Vec<String>) {
    let p = &s.parallel;
    let (dp, path) = (p.dp, s.path());
    f.set("--tp-size", s.world(), format!("{path}.parallel: tp={} * dp={dp} * cp={}", p.tp, p.cp));
    if dp > 1 {
        f.set("--dp-size", dp, format!("{path}.parallel.dp: attention ranks, each of tp={}", p.tp));
        if ask.case.model.moe.is_some() || p.tp > 1 {
            f.on("--enable-dp-attention", "");
        }
    }
    if p.cp > 1 {
        f.set("--attn-cp-size", p.cp, format!("{path}.parallel.cp: ranks that share a prompt"));
        f.on("--enable-prefill-cp", "");
        f.set("--cp-strategy", "interleave", "the one without DP attention");
    }
    f.above_one("--pp-size", p.pp, format!("{path}.parallel.pp"));
    let parts = s.parts(ask.case.cluster.fabric.node_gpus);
    if parts.len() > 1 {
        f.set("--nnodes", parts.len(), "");
        f.set("--node-rank", part.rank, "");
        let address = format!("\"{}:{}\"", host(parts[0].node), INIT + s.number());
        f.set("--dist-init-addr", address, "");
    }
    moe(ask, s, f);
    budgets(ask, s, f);
    if ask.case.serving.mtp > 0 {
        let n = ask.case.serving.mtp;
        f.set("--speculative-algorithm", "EAGLE", format!("serving.mtp={n}: the checkpoint's own MTP layers"));
        f.set("--speculative-num-steps", n, "");
        f.set("--speculative-eagle-topk", 1, "");
        f.set("--speculative-num-draft-tokens", n + 1, "");
    } else if s.role == Role::Serve {
        f.on("--enable-mixed-chunk", "aggregated: prompt chunks and decode share a step");
    }
    if s.overlap && f.0.iter().any(|f| f.name == "--moe-a2a-backend") {
        f.on("--enable-two-batch-overlap", "two_batch_overlap: two half batches hide each other's exchanges");
    } else if s.overlap {
        notes.push(format!(
            "{path}.two_batch_overlap: SGLang has it with DeepEP alone (whole experts on attention ranks)"
        ));
    }
    if let Some(n) = s.interval.filter(|n| *n > 1) {
        if f.0.iter().any(|f| f.name == "--enable-dp-attention") {
            f.on("--enable-prefill-delayer", "prefill_interval: prompts wait until every rank has one");
            f.set("--prefill-delayer-max-delay-passes", n - 1, format!("prefill_interval={n}: so many passes at most"));
        } else {
            notes.push(format!("{path}.prefill_interval={n}: SGLang has the knob for DP attention alone"));
        }
    }
    let mode = match s.role {
        Role::Prefill => "prefill",
        Role::Decode => "decode",
        _ => return,
    };
    f.set("--disaggregation-mode", mode, "");
    f.set("--disaggregation-transfer-backend", "nixl", "KV caches go over NIXL");
    if s.role == Role::Prefill {
        f.set("--disaggregation-bootstrap-port", bootstrap(s), "where decode servers ask for KV caches");
    }
}

fn moe(ask: &Ask, s: &Server, f: &mut Flags) {
    if ask.case.model.moe.is_none() {
        return;
    }
    let (ep, world) = (s.parallel.ep(), s.world());
    let moe_tp = s.parallel.moe_tp;
    let split = if moe_tp > 1 { format!(", each cut by moe_tp={moe_tp}") } else { String::new() };
    f.above_one("--ep-size", ep, format!("{}.parallel.ep: whole experts on each rank{split}", s.path()));
    // DeepEP wants whole experts on every rank, and outside low latency a number of ranks that it has kernels for.
    let kernels = s.role == Role::Decode || DEEPEP_RANKS.contains(&world);
    if ep == world && ep > 1 && s.parallel.dp > 1 && kernels {
        f.set("--moe-a2a-backend", "deepep", "dispatch and combine between attention ranks");
        let (mode, why) = match s.role {
            Role::Prefill => ("normal", "prefill"),
            Role::Decode => ("low_latency", "decode"),
            _ => ("auto", "by phase"),
        };
        f.set("--deepep-mode", mode, why);
    }
    let redundant = ask.redundant(ep);
    if redundant > 0 && ep > 1 {
        f.set("--ep-num-redundant-experts", redundant, ask.redundant_why(ep));
        if ask.case.serving.eplb_slots > 0 {
            f.on("--enable-eplb", "serving.eplb_slots");
        }
    }
}

fn budgets(ask: &Ask, s: &Server, f: &mut Flags) {
    let dp = s.parallel.dp;
    f.given("--context-length", ask.longest, "the workload's longest sequence");
    if s.role == Role::Prefill {
        f.given("--prefill-max-requests", s.batch, format!("{}.batch: prompts of a rank's step", s.path()));
    } else {
        let running = s.batch.map(|b| b.saturating_mul(dp));
        f.given("--max-running-requests", running, format!("{}.batch * dp: sequences of the server", s.path()));
    }
    if s.role != Role::Decode {
        let chunk = s.chunk.map(|c| c.saturating_mul(dp));
        f.given("--chunked-prefill-size", chunk, format!("{}.chunk_tokens * dp: token budget of a step", s.path()));
    }
    if let Some(fraction) = ask.case.serving.memory_fraction {
        f.set("--mem-fraction-static", fraction, "serving.memory_fraction: share of the device for weights and KV");
    }
    match ask.formats().kv {
        Dtype::Fp8 | Dtype::Fp8Block => f.set("--kv-cache-dtype", "fp8_e4m3", "quant.kv"),
        _ => f.set("--kv-cache-dtype", "auto", "quant.kv: as the model computes"),
    }
}

fn router(ask: &Ask, servers: &[Server], out: &mut Out) {
    let node = |s: &Server| s.first / ask.case.cluster.fabric.node_gpus.max(1);
    let mut f = Flags::default();
    f.set("--host", "0.0.0.0", "");
    f.set("--port", 8000, "");
    if servers.iter().any(|s| s.role == Role::Prefill) {
        f.on("--pd-disaggregation", "each request to a prefill and a decode server");
        for s in of(servers, Role::Prefill) {
            f.set("--prefill", url(node(s), s.port), "");
            f.on(&bootstrap(s).to_string(), "its bootstrap port");
        }
        for s in of(servers, Role::Decode) {
            f.set("--decode", url(node(s), s.port), "");
        }
    } else if servers.len() > 1 {
        for (i, s) in servers.iter().enumerate() {
            let u = url(node(s), s.port);
            if i == 0 { f.set("--worker-urls", u, "") } else { f.on(&u, "") }
        }
    } else {
        return;
    }
    out.processes.push(Process::router(
        "sglang_router: one address for all",
        "python -m sglang_router.launch_router",
        f,
    ));
}
