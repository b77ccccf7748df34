//! The commands and files that start a plan: servers, router, P/D connector, and every choice the plan carries.
//!
//! A plan becomes servers (each replica or worker one, on GPUs of its own), a server becomes one process a node with
//! flags of its framework, each with a comment that says which choice it carries; a script a node starts them, and
//! a router stands in front. Flags and keys are those of the versions in `data/serving/rules.json`; tests hold every
//! one of them against the parsers of these versions.
//! Limits: host names, ports and the path of the model are variables of the scripts; container images, drivers and
//! network devices are the operator's. What a framework has no flag for is told as a note, never left out in silence.

mod afd;
mod ask;
mod dynamo;
mod flags;
mod place;
mod script;
mod sglang;
mod trtllm;
mod vllm;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::spec::Framework;
use crate::spec::{Case, Plan, Rules};

pub use ask::{Ask, Starter};
use script::Out;

/// Commands and files.
#[derive(Clone, Debug, Serialize)]
pub struct Launch {
    pub framework: String,
    /// What the commands start, with its version.
    pub server: String,
    pub commands: Vec<String>,
    /// Name and text.
    pub files: Vec<(String, String)>,
    pub notes: Vec<String>,
}

/// Writes the launch of a plan.
///
/// # Errors
/// A plan that does not fit the model or the cluster; one that breaks a rule of the framework or
/// that no released server starts, with the rule and the cure, unless `force` is set.
pub fn launch(ask: &Ask) -> Result<Launch> {
    let Case { model, cluster, serving, .. } = ask.case;
    let mut problems = ask.plan.check(model, cluster);
    problems.nest("", ask.plan.check_blocks(model, &ask.formats()));
    super::engine::contradictions_of(&mut problems, model, serving);
    problems.into_result()?;
    let verdict = Rules::new(ask.starter.engine(), None, model, cluster)?.verdict(ask.plan);
    let mut out = Out { processes: Vec::new(), files: Vec::new(), notes: Vec::new() };
    if !verdict.runnable {
        let mut p = crate::error::Problems::new();
        for v in &verdict.why_not {
            p.push(v.path.clone(), format!("{}: {}", v.rule, v.message), format!("{} [{}]", v.instead, v.source));
            out.notes.push(format!("RULE BROKEN: {v}"));
        }
        if !ask.force {
            return Err(Error::Spec(p));
        }
    }
    let units: u64 = ask.plan.afd_units().iter().map(|a| u64::from(a.stages()) * 2).sum();
    let workers: u64 = match ask.plan {
        Plan::Aggregated(a) => u64::from(a.replicas),
        Plan::Pd(p) => [&p.prefill, &p.decode]
            .into_iter()
            .map(|s| if let crate::spec::Slot::Workers(w) = s { u64::from(w.count) } else { 0 })
            .sum(),
        Plan::Afd(_) => 0,
    };
    if units + workers > place::MOST as u64 {
        let text = format!("{} servers are too many for one set of scripts", units + workers);
        return Err(Error::spec("plan", text, format!("at most {}; launch a part of it", place::MOST)));
    }
    let servers = place::servers(ask, &mut out.notes);
    let afd = !ask.plan.afd_units().is_empty();
    if afd {
        if ask.starter != Starter::Server(Framework::Vllm) {
            let text = format!("no released server of {} starts AFD units", ask.starter.name());
            return Err(Error::spec("framework", text, "framework='vllm' (afd-plugin) is the only one"));
        }
        afd::write(ask, &servers, &mut out);
    } else {
        match ask.starter {
            Starter::Server(Framework::Vllm) => vllm::write(ask, &servers, &mut out),
            Starter::Server(Framework::Sglang) => sglang::write(ask, &servers, &mut out),
            Starter::Server(Framework::Trtllm) => trtllm::write(ask, &servers, &mut out),
            Starter::Dynamo(engine) => dynamo::write(ask, engine, &servers, &mut out),
        }
    }
    formats_note(ask, &mut out.notes);
    serving_notes(ask, &mut out.notes);
    let server = match (ask.starter, verdict.server) {
        (Starter::Dynamo(_), Some(under)) => format!("dynamo {} over {under}", dynamo::VERSION),
        (Starter::Server(_), Some(server)) => server,
        (starter, None) => starter.name().to_string(),
    };
    let (commands, mut files) = script::scripts(ask, &server, &out.processes, &out.notes);
    files.extend(out.files);
    Ok(Launch { framework: ask.starter.name().into(), server, commands, files, notes: out.notes })
}

/// Ways of serving that no framework has a flag for.
fn serving_notes(ask: &Ask, notes: &mut Vec<String>) {
    for role in ask.plan.hardware() {
        notes.extend(role.device.map(|d| format!("{}: its servers belong on {}", role.path, d.name)));
    }
    if ask.case.serving.fused_dispatch {
        notes.push(
            "serving.fused_dispatch: no released flag fuses dispatch into the experts' kernel for all models".into(),
        );
    }
}

/// Formats that differ from the checkpoint's need another checkpoint: no flag turns BF16 into blocks of FP8.
fn formats_note(ask: &Ask, notes: &mut Vec<String>) {
    let own = ask.case.model.quant;
    let parts = [
        ("gemm", ask.case.quant.gemm, own.gemm),
        ("moe", ask.case.quant.moe, own.moe),
        ("attention", ask.case.quant.attention, own.attention),
    ];
    for (part, asked, own) in parts {
        if let Some(format) = asked
            && asked != own
        {
            let text = format!("quant.{part}={}: MODEL must be a checkpoint in that format", format.name());
            notes.push(text);
        }
    }
}
