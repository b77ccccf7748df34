//! vLLM: `vllm serve`, NIXL between prefill and decode, `vllm-router` in front.
//!
//! Flags: argument parser of vLLM 0.24.0 and 0.33.0 (`vllm/engine/arg_utils.py`, `vllm/entrypoints`), NixlConnector usage guide
//! (docs.vllm.ai/en/stable/features/nixl_connector_usage), vllm-router 0.1.17. One engine a data-parallel rank: `max-num-seqs` and
//! `max-num-batched-tokens` count one rank, as a plan's batch and chunk do.
//!
//! Limit: flags of the versions named; what a plan does not choose keeps the server's default.

use super::ask::Ask;
use super::flags::Flags;
use super::place::of;
use super::place::{ProcessPart, Role, Server};
use super::script::Out;
use super::script::{Process, host, url};
use crate::spec::{Dtype, Pool};

/// Ports between ranks: data-parallel coordination, engines across nodes, NIXL handshakes. Each server has its own.
const RPC: u16 = 13_345;
const MASTER: u16 = 29_500;
const NIXL: u16 = 31_000;

pub fn write(ask: &Ask, servers: &[Server], out: &mut Out) {
    for s in servers {
        for part in s.parts(ask.case.cluster.fabric.node_gpus) {
            let process = process(ask, s, &part, "vllm serve \"$MODEL\"", &mut out.notes);
            out.processes.push(process);
        }
    }
    router(ask, servers, out);
}

/// A server's process on one node.
pub fn process(ask: &Ask, s: &Server, part: &ProcessPart, program: &str, notes: &mut Vec<String>) -> Process {
    let mut f = Flags::default();
    if part.rank == 0 {
        f.set("--host", "0.0.0.0", "");
        f.set("--port", s.port, "");
    }
    engine(ask, s, part, &mut f, notes);
    let mut process = Process::on(part, s.name(), program, f);
    if matches!(s.role, Role::Prefill | Role::Decode) {
        process.env.extend(handshake(s, part));
    }
    process
}

/// Where the other side asks for KV caches: one port a rank of the server follows the first.
pub fn handshake(s: &Server, part: &ProcessPart) -> [(String, String); 2] {
    let port = NIXL + s.number() * 32;
    [
        ("VLLM_NIXL_SIDE_CHANNEL_HOST".into(), format!("\"{}\"", host(part.node))),
        ("VLLM_NIXL_SIDE_CHANNEL_PORT".into(), port.to_string()),
    ]
}

/// Flags of the engine, the same under `vllm serve` and Dynamo.
pub fn engine(ask: &Ask, s: &Server, part: &ProcessPart, f: &mut Flags, notes: &mut Vec<String>) {
    layout(ask, s, part, f, notes);
    budgets(ask, s, f);
    moe(ask, s, f);
    if ask.case.serving.mtp > 0 {
        let config = format!(r#"{{"method": "mtp", "num_speculative_tokens": {}}}"#, ask.case.serving.mtp);
        f.set("--speculative-config", config, format!("serving.mtp={}", ask.case.serving.mtp));
    }
    if s.overlap {
        f.on("--enable-dbo", "two_batch_overlap: two half batches hide each other's exchanges");
    }
    if let Some(n) = s.interval {
        f.set("--prefill-schedule-interval", n, "prefill_interval: prompts join every n-th step");
    }
    let connector = |role: &str| format!(r#"{{"kv_connector": "NixlConnector", "kv_role": "{role}"}}"#);
    match s.role {
        Role::Prefill => f.set("--kv-transfer-config", connector("kv_producer"), "gives KV caches away over NIXL"),
        Role::Decode => f.set("--kv-transfer-config", connector("kv_consumer"), "takes KV caches over NIXL"),
        _ => {}
    }
}

fn layout(ask: &Ask, s: &Server, part: &ProcessPart, f: &mut Flags, notes: &mut Vec<String>) {
    let p = &s.parallel;
    f.set("--tensor-parallel-size", p.tp, s.at("tp"));
    f.above_one("--pipeline-parallel-size", p.pp, s.at("pp"));
    f.above_one("--prefill-context-parallel-size", p.cp, s.at("cp"));
    f.above_one(
        "--data-parallel-size",
        p.dp,
        format!("{}: ranks in lockstep", s.at(if s.pool == Pool::Worker { "dp" } else { "gpus" })),
    );
    let parts = s.parts(ask.case.cluster.fabric.node_gpus);
    if parts.len() == 1 {
        return;
    }
    let engine = s.engine_gpus();
    let here = part.local.len() as u32;
    if p.dp > 1 && parts.iter().all(|q| (q.local.len() as u32).is_multiple_of(engine)) {
        f.set("--data-parallel-size-local", here / engine, "ranks on this node");
        f.set("--data-parallel-address", format!("\"{}\"", host(parts[0].node)), "");
        f.set("--data-parallel-rpc-port", RPC + s.number(), "");
        if part.rank > 0 {
            let before: u32 = parts[..part.rank as usize].iter().map(|q| q.local.len() as u32).sum();
            f.set("--data-parallel-start-rank", before / engine, "");
            f.on("--headless", "the first node of the server has the API");
        }
    } else {
        f.set("--nnodes", parts.len(), "an engine across nodes");
        f.set("--node-rank", part.rank, "");
        f.set("--master-addr", format!("\"{}\"", host(parts[0].node)), "");
        f.set("--master-port", MASTER + s.number(), "");
        if part.rank > 0 {
            f.on("--headless", "the first node of the server has the API");
        }
        if p.dp > 1 {
            let text = format!("{}: a data-parallel rank of {engine} GPUs crosses nodes of {here}", s.name());
            notes.push(format!("{text}; vLLM starts such engines with --data-parallel-backend ray"));
        }
    }
}

fn budgets(ask: &Ask, s: &Server, f: &mut Flags) {
    f.given("--max-model-len", ask.longest, "the workload's longest sequence");
    f.given("--max-num-seqs", s.batch, format!("{}.batch: sequences of a rank", s.path()));
    let (budget, why) = s.budget(ask);
    f.given("--max-num-batched-tokens", budget, why);
    if let Some(fraction) = ask.case.serving.memory_fraction {
        f.set("--gpu-memory-utilization", fraction, "serving.memory_fraction: share of the device's capacity");
    }
    match ask.formats().kv {
        Dtype::Fp8 | Dtype::Fp8Block => f.set("--kv-cache-dtype", "fp8", "quant.kv"),
        _ => f.set("--kv-cache-dtype", "auto", "quant.kv: as the model computes"),
    }
}

fn moe(ask: &Ask, s: &Server, f: &mut Flags) {
    if ask.case.model.moe.is_none() {
        return;
    }
    let ep = s.parallel.ep();
    if ep == 1 {
        return;
    }
    f.on("--enable-expert-parallel", format!("whole experts on all {ep} ranks ({})", s.at("ep")));
    let wide = s.gpus > ask.case.cluster.fabric.node_gpus;
    if s.parallel.dp > 1 && (wide || s.overlap) {
        let backend = if s.role == Role::Prefill { "deepep_high_throughput" } else { "deepep_low_latency" };
        f.set(
            "--all2all-backend",
            backend,
            if wide { "experts across nodes" } else { "the overlap of two batches wants DeepEP" },
        );
    }
    let redundant = ask.redundant(ep);
    if redundant > 0 {
        f.on("--enable-eplb", "redundant experts need it");
        let config = format!(r#"{{"num_redundant_experts": {redundant}}}"#);
        f.set("--eplb-config", config, ask.redundant_why(ep));
    }
}

/// Where requests come in: the servers with an API.
pub fn router(ask: &Ask, servers: &[Server], out: &mut Out) {
    let node = |s: &Server| s.first / ask.case.cluster.fabric.node_gpus.max(1);
    let mut f = Flags::default();
    f.set("--host", "0.0.0.0", "");
    f.set("--port", 8000, "");
    f.set("--policy", "round_robin", "");
    if servers.iter().any(|s| s.role == Role::Prefill) {
        f.on("--vllm-pd-disaggregation", "prefill first, then decode with its KV cache");
        for s in of(servers, Role::Prefill) {
            f.set("--prefill", url(node(s), s.port), "");
        }
        for s in of(servers, Role::Decode).chain(of(servers, Role::Attention)) {
            f.set("--decode", url(node(s), s.port), "");
        }
    } else {
        let urls: Vec<String> =
            of(servers, Role::Serve).chain(of(servers, Role::Attention)).map(|s| url(node(s), s.port)).collect();
        if urls.len() < 2 {
            return;
        }
        for (i, u) in urls.iter().enumerate() {
            if i == 0 { f.set("--worker-urls", u, "") } else { f.on(u, "") }
        }
    }
    out.processes.push(Process::router("vllm-router: one address for all", "vllm-router", f));
}
