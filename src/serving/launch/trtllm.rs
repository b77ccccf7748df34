//! TensorRT-LLM: `trtllm-serve` with a YAML file a role, `trtllm-serve disaggregated` in front of P/D.
//!
//! Keys: `tensorrt_llm/llmapi/llm_args.py`, the pages "disagg-serving" and "parallel-strategy" of its documentation. `tensor_parallel_size`
//! counts all GPUs of a stage; with `enable_attention_dp` each of them is an attention rank of its own, and `max_batch_size` and
//! `max_num_tokens` count one rank.
//!
//! Limit: keys of the versions named; engines that have to be built beforehand are not written.

use super::ask::Ask;
use super::flags::Flags;
use super::place::of;
use super::place::{Role, Server};
use super::script::Out;
use super::script::{Process, host};
use crate::spec::Dtype;

pub fn write(ask: &Ask, servers: &[Server], out: &mut Out) {
    configs(ask, servers, out);
    for s in servers {
        let parts = s.parts(ask.case.cluster.fabric.node_gpus);
        for part in &parts {
            // One rank a GPU; across nodes MPI starts them and the first node has the API.
            if part.rank > 0 {
                continue;
            }
            let mut f = Flags::default();
            f.set("--host", "0.0.0.0", "");
            f.set("--port", s.port, "");
            f.set("--backend", "pytorch", "");
            f.set("--config", format!("{}.yaml", s.role.name()), "every choice of the plan, with comments");
            let program = if parts.len() == 1 {
                "trtllm-serve serve \"$MODEL\"".to_string()
            } else {
                let hosts: Vec<String> = parts.iter().map(|q| format!("{}:{}", host(q.node), q.local.len())).collect();
                let hosts = hosts.join(",");
                let ranks = s.gpus;
                format!(
                    "mpirun -n {ranks} --host \"{hosts}\" -x MODEL -x CUDA_VISIBLE_DEVICES trtllm-llmapi-launch trtllm-serve serve \"$MODEL\""
                )
            };
            out.processes.push(Process::on(part, s.name(), &program, f));
        }
    }
    front(ask, servers, out);
}

/// A YAML file for each role.
pub fn configs(ask: &Ask, servers: &[Server], out: &mut Out) {
    for role in [Role::Serve, Role::Prefill, Role::Decode] {
        if let Some(s) = of(servers, role).next() {
            out.files.push((format!("{}.yaml", role.name()), config(ask, s, &mut out.notes)));
        }
    }
}

/// Lines of YAML, each with the choice that it carries.
struct Yaml(Vec<(String, String)>);

impl Yaml {
    fn set(&mut self, depth: usize, key: &str, value: impl ToString, why: impl Into<String>) {
        let value = value.to_string();
        let space = if value.is_empty() { "" } else { " " };
        self.0.push((format!("{}{key}:{space}{value}", "  ".repeat(depth)), why.into()));
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|l| l.0.len()).max().unwrap_or(0);
        let line = |(text, why): &(String, String)| {
            let why = if why.is_empty() { String::new() } else { format!("  # {why}") };
            format!("{}\n", format!("{text:<width$}{why}").trim_end())
        };
        self.0.iter().map(line).collect()
    }
}

fn config(ask: &Ask, s: &Server, notes: &mut Vec<String>) -> String {
    let (p, path) = (&s.parallel, s.path());
    let mut y = Yaml(Vec::new());
    y.set(0, "tensor_parallel_size", s.world(), format!("{path}.parallel: tp={} * dp={}", p.tp, p.dp));
    if p.pp > 1 {
        y.set(0, "pipeline_parallel_size", p.pp, format!("{path}.parallel.pp"));
    }
    let why =
        if p.dp > 1 { format!("{path}.parallel.dp={}: every GPU an attention rank", p.dp) } else { String::new() };
    y.set(0, "enable_attention_dp", p.dp > 1, why);
    if ask.case.model.moe.is_some() {
        y.set(0, "moe_expert_parallel_size", p.ep(), format!("{path}.parallel.ep"));
        y.set(0, "moe_tensor_parallel_size", p.moe_tp, format!("{path}.parallel.moe_tp"));
        let redundant = ask.redundant(p.ep());
        if redundant > 0 && p.ep() > 1 {
            let slots = ask.case.model.moe.as_ref().map_or(0, |m| m.experts) + redundant;
            y.set(0, "moe_config", "", "");
            y.set(1, "load_balancer", "", ask.redundant_why(p.ep()));
            y.set(2, "num_slots", slots, "");
            y.set(2, "layer_updates_per_iter", 1, "");
        }
    }
    if let Some(b) = s.batch {
        y.set(0, "max_batch_size", b, format!("{path}.batch: sequences of a rank"));
        if s.role != Role::Prefill {
            y.set(0, "cuda_graph_config", "", "");
            y.set(1, "enable_padding", true, "");
            y.set(1, "max_batch_size", b, "graphs up to the whole batch");
        }
    }
    if let (Some(tokens), why) = s.budget(ask) {
        y.set(0, "max_num_tokens", tokens, why);
    }
    y.set(0, "enable_chunked_prefill", s.role != Role::Decode, "");
    if let Some(n) = ask.longest {
        y.set(0, "max_seq_len", n, "the workload's longest sequence");
    }
    y.set(0, "kv_cache_config", "", "");
    match ask.formats().kv {
        Dtype::Fp8 | Dtype::Fp8Block => y.set(1, "dtype", "fp8", "quant.kv"),
        _ => y.set(1, "dtype", "auto", "quant.kv: as the model computes"),
    }
    if let Some(f) = ask.case.serving.memory_fraction {
        y.set(
            1,
            "free_gpu_memory_fraction",
            f,
            "serving.memory_fraction: share of what is free once weights are loaded",
        );
    }
    if ask.case.serving.mtp > 0 {
        y.set(0, "speculative_config", "", format!("serving.mtp={}", ask.case.serving.mtp));
        y.set(1, "decoding_type", "MTP", "");
        y.set(1, "max_draft_len", ask.case.serving.mtp, "");
    }
    if let Some(n) = s.interval.filter(|n| *n > 1) {
        if p.dp > 1 {
            y.set(0, "attention_dp_config", "", "");
            y.set(1, "enable_balance", true, "prompts of all ranks in the same step");
            y.set(
                1,
                "batching_wait_iters",
                n - 1,
                format!("{path}.prefill_interval={n}: steps that prompts wait for one another"),
            );
            y.set(1, "timeout_iters", n - 1, "and for ranks that have none");
        } else {
            notes.push(format!("{path}.prefill_interval={n}: TensorRT-LLM has the knob for attention DP alone"));
        }
    }
    if s.overlap {
        notes.push(format!("{path}.two_batch_overlap: TensorRT-LLM has no such switch"));
    }
    if matches!(s.role, Role::Prefill | Role::Decode) {
        if s.role == Role::Prefill {
            y.set(0, "disable_overlap_scheduler", true, "context servers do not support it");
        }
        y.set(0, "cache_transceiver_config", "", "KV caches go over NIXL");
        y.set(1, "backend", "NIXL", "");
        if let Some(n) = ask.longest {
            y.set(1, "max_tokens_in_buffer", n, "at least the longest prompt");
        }
    }
    y.text()
}

fn front(ask: &Ask, servers: &[Server], out: &mut Out) {
    let node = |s: &Server| s.first / ask.case.cluster.fabric.node_gpus.max(1);
    if of(servers, Role::Prefill).next().is_none() {
        if servers.len() > 1 {
            let text = "trtllm-serve has no router for equal replicas: put any HTTP balancer before their ports, or launch('dynamo')";
            out.notes.push(text.into());
        }
        return;
    }
    let mut y = Yaml(Vec::new());
    y.set(0, "hostname", "0.0.0.0", "");
    y.set(0, "port", 8000, "");
    y.set(0, "backend", "pytorch", "");
    for (key, role) in [("context_servers", Role::Prefill), ("generation_servers", Role::Decode)] {
        y.set(0, key, "", "");
        y.set(1, "num_instances", of(servers, role).count(), format!("plan.{}.count", role.name()));
        y.set(1, "urls", "", "");
        for s in of(servers, role) {
            y.0.push((format!("    - \"NODE{}:{}\"", node(s), s.port), s.name()));
        }
    }
    out.files.push(("disagg_config.yaml".into(), y.text()));
    let mut f = Flags::default();
    f.set("-c", "disagg_config.resolved.yaml", "context and generation servers");
    // The orchestrator reads no variables: host names are filled in before it starts.
    let fill = "sed -E 's/NODE([0-9]+)/${NODE\\1}/' disagg_config.yaml | envsubst > disagg_config.resolved.yaml\n";
    let program = format!("{fill}trtllm-serve disaggregated");
    out.processes.push(Process::router("the orchestrator of P/D", &program, f));
}
