//! AFD on vLLM's afd-plugin: an attention server and an FFN server a unit, joined by a connector.
//!
//! README and recipes of vllm-project/afd-plugin (vLLM 0.30.0, `P2pNcclAFDConnector`): AFD is configured through
//! `--additional-config`; requests go to the attention server; two micro-batches are vLLM's dual-batch overlap; expert
//! parallelism is on where experts are whole.
//!
//! Limit: flags of one version of the plugin; what it has no switch for stands in the notes.

use super::ask::Ask;
use super::flags::Flags;
use super::place::{Role, Server, of, path};
use super::script::Out;
use super::script::host;
use super::vllm;
use crate::spec::plan::{Duplex, PipelineMode, Side};
use crate::spec::{self, AfdPlan, Level, Plan, Slot};

/// First port of the connectors' rendezvous; each unit has its own.
const RENDEZVOUS: u16 = 6_239;

pub fn write(ask: &Ask, servers: &[Server], out: &mut Out) {
    let node_gpus = ask.case.cluster.fabric.node_gpus;
    for s in servers.iter().filter(|s| !matches!(s.role, Role::Attention | Role::Ffn)) {
        for part in s.parts(node_gpus) {
            out.processes.push(vllm::process(ask, s, &part, "vllm serve \"$MODEL\"", &mut out.notes));
        }
    }
    for attention in of(servers, Role::Attention) {
        let Some(ffn) = of(servers, Role::Ffn).find(|f| f.index == attention.index && f.slot == attention.slot) else {
            continue;
        };
        let gate = unit_at(ask.plan, attention.slot).is_some_and(|u| u.router == Side::Attention);
        // FFN ranks come first in the connector's world: the rendezvous is on their first node.
        let home = ffn.parts(node_gpus)[0].node;
        for s in [attention, ffn] {
            let config = format!(
                concat!(
                    r#"{{"afd": {{"role": "{}", "connector": "P2pNcclAFDConnector", "host": "'"{}"'", "port": {}, "#,
                    r#""num_attention_ranks": {}, "num_ffn_ranks": {}, "compute_gate_on_attention": {}}}}}"#
                ),
                s.role.name(),
                host(home),
                RENDEZVOUS + u16::try_from(attention.index).unwrap_or(0) * 10,
                attention.gpus,
                ffn.gpus,
                gate,
            );
            for part in s.parts(node_gpus) {
                let role = match (s.role, ask.plan.level()) {
                    // The decode side of P/D takes KV caches.
                    (Role::Attention, Level::PdAfd) if s.slot == spec::Role::Decode => Role::Decode,
                    (Role::Attention, Level::PdAfd) => Role::Prefill,
                    (role, _) => role,
                };
                let as_server = Server { role, ..s.clone() };
                let mut process = vllm::process(ask, &as_server, &part, "vllm serve \"$MODEL\"", &mut out.notes);
                process.title = process.title.replacen(&as_server.name(), &s.name(), 1);
                extra(&mut process.flags, s, &config);
                out.processes.push(process);
            }
        }
    }
    for &slot in spec::Role::ALL {
        let stands = servers.iter().any(|s| s.role == Role::Attention && s.slot == slot);
        if let Some(unit) = unit_at(ask.plan, slot).filter(|_| stands) {
            untold(unit, path(slot), &mut out.notes);
        }
    }
    out.notes.push(
        "needs vllm==0.30.0 and vllm-afd-plugin (experimental) on every node; send requests to attention servers"
            .into(),
    );
    vllm::router(ask, servers, out);
}

/// Choices of a unit that the plugin has no switch for.
fn untold(unit: &AfdPlan, path: &str, notes: &mut Vec<String>) {
    let choices = [
        ("prereduce=True", unit.prereduce),
        ("duplex='half'", unit.duplex == Duplex::Half),
        ("pipeline='alone'", unit.pipeline == PipelineMode::Alone),
        ("shared_expert='attention'", unit.shared_expert == Side::Attention),
        ("dense='ffn'", unit.dense == Side::Ffn),
    ];
    for (choice, _) in choices.iter().filter(|c| c.1) {
        notes.push(format!("{path}.{choice}: the plugin has no such switch"));
    }
    if unit.placement.is_some() {
        notes.push(format!("{path}.placement: GPUs are given in order; change CUDA_VISIBLE_DEVICES to place them"));
    }
}

/// The unit in a slot.
fn unit_at(plan: &Plan, slot: spec::Role) -> Option<&AfdPlan> {
    match plan {
        Plan::Aggregated(_) => None,
        Plan::Afd(a) => Some(a),
        Plan::Pd(p) => match if slot == spec::Role::Prompts { &p.prefill } else { &p.decode } {
            Slot::Afd(a) => Some(a),
            Slot::Workers(_) => None,
        },
    }
}

fn extra(f: &mut Flags, s: &Server, config: &str) {
    // The text holds a variable of the script: the shell joins its three quoted parts.
    let quoted = format!("'{config}'");
    f.set("--additional-config", quoted, format!("{}: the {} pool of unit {}", s.path(), s.role.name(), s.index));
}
