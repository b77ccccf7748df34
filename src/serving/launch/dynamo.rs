//! Dynamo: one frontend, and workers that run vLLM, SGLang or TensorRT-LLM with the flags of these.
//!
//! Flags: `dynamo.frontend`, `dynamo.vllm`, `dynamo.sglang` and `dynamo.trtllm` of ai-dynamo 1.6.1. Workers find the frontend
//! through the discovery service (etcd and NATS, started by the operator), so no URLs are passed.
//!
//! Limit: flags of ai-dynamo 1.6.1; its planner, KVBM and Kubernetes operators are not written for.

use super::ask::Ask;
use super::flags::Flags;
use super::place::{Role, Server};
use super::script::Out;
use super::script::Process;
use super::{sglang, trtllm, vllm};
use crate::spec::Framework;

pub const VERSION: &str = "1.6.1";

pub fn write(ask: &Ask, engine: Framework, servers: &[Server], out: &mut Out) {
    if engine == Framework::Trtllm {
        trtllm::configs(ask, servers, out);
    }
    for s in servers {
        let parts = s.parts(ask.case.cluster.fabric.node_gpus);
        for part in &parts {
            let mut f = Flags::default();
            let program = match engine {
                Framework::Vllm => {
                    f.set("--model", "\"$MODEL\"", "");
                    vllm::engine(ask, s, part, &mut f, &mut out.notes);
                    role(s, &mut f);
                    "python -m dynamo.vllm"
                }
                Framework::Sglang => {
                    f.set("--model-path", "\"$MODEL\"", "");
                    sglang::engine(ask, s, part, &mut f, &mut out.notes);
                    "python -m dynamo.sglang"
                }
                Framework::Trtllm => {
                    f.set("--model-path", "\"$MODEL\"", "");
                    f.set(
                        "--extra-engine-args",
                        format!("{}.yaml", s.role.name()),
                        "every choice of the plan, with comments",
                    );
                    role(s, &mut f);
                    if parts.len() > 1 {
                        let text = format!(
                            "{}: start it with mpirun or srun, one rank a GPU, under trtllm-llmapi-launch",
                            s.name()
                        );
                        out.notes.push(text);
                    }
                    "python -m dynamo.trtllm"
                }
            };
            if engine == Framework::Trtllm && part.rank > 0 {
                continue;
            }
            let mut process = Process::on(part, s.name(), program, f);
            if engine == Framework::Vllm && s.role != Role::Serve {
                process.env.extend(vllm::handshake(s, part));
            }
            out.processes.push(process);
        }
    }
    out.notes.push("etcd and NATS must run before the workers (ETCD_ENDPOINTS, NATS_SERVER)".into());
    out.notes.dedup();
    let mut f = Flags::default();
    f.set("--http-port", 8000, "");
    f.set("--router-mode", "round-robin", "the estimate spreads requests evenly; kv routes by cached prefixes");
    out.processes.push(Process::router("the frontend and its router", "python -m dynamo.frontend", f));
}

fn role(s: &Server, f: &mut Flags) {
    match s.role {
        Role::Prefill => f.set("--disaggregation-mode", "prefill", ""),
        Role::Decode => f.set("--disaggregation-mode", "decode", ""),
        _ => {}
    }
}
