//! The commands and files that start a plan: servers, router, P/D connector, and every choice the plan carries.
//!
//! A plan becomes servers (each replica or worker one, on GPUs of its own), a server becomes one process a node with
//! flags of its framework, each with a comment that says which choice it carries; a script a node starts them, and
//! a router stands in front. Flags and keys are those of the versions in `data/serving/rules.json`; tests hold every
//! one of them against the parsers of these versions.
//! Limits: host names, ports and the path of the model are variables of the scripts; container images, drivers and
//! network devices are the operator's. What a framework has no flag for is told as a note, never left out in silence.

mod afd;
mod dynamo;
mod flags;
mod place;
mod script;
mod sglang;
mod trtllm;
mod vllm;

use serde::Serialize;

use crate::error::{Error, Result, near};
use crate::spec::{Cluster, Formats, Model, Plan, Quant, Rules, Serving, Workload};

use place::{Role, Server};
use script::Process;

/// What can start a plan.
pub const FRAMEWORKS: [&str; 4] = ["vllm", "sglang", "trtllm", "dynamo"];

/// A plan and all that its servers need to know.
pub struct Ask<'a> {
    pub plan: &'a Plan,
    pub model: &'a Model,
    pub cluster: &'a Cluster,
    /// Sets the longest sequence; none: the model's.
    pub workload: Option<&'a Workload>,
    pub quant: &'a Quant,
    pub serving: &'a Serving,
    /// The engine below Dynamo.
    pub engine: &'a str,
    /// Writes the commands of a plan that breaks rules as well, with the rules as notes.
    pub force: bool,
}

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

/// What a framework's writer fills in.
struct Out {
    processes: Vec<Process>,
    /// Configuration files beside the scripts.
    files: Vec<(String, String)>,
    notes: Vec<String>,
}

impl Ask<'_> {
    fn formats(&self) -> Formats {
        self.model.formats(self.quant)
    }

    /// Longest sequence that must fit, if a workload says.
    fn longest(&self) -> Option<u32> {
        self.workload.map(|w| w.peak_tokens().ceil().max(1.0) as u32)
    }

    /// Physical experts above the model's: as EPLB asks, and as many as make them even on `ep` ranks.
    fn redundant(&self, ep: u32) -> u32 {
        let Some(moe) = &self.model.moe else { return 0 };
        let slots = moe.experts + self.serving.eplb_slots;
        slots.div_ceil(ep.max(1)) * ep.max(1) - moe.experts
    }

    /// Why there are more experts than the model has.
    fn redundant_why(&self, ep: u32) -> String {
        let redundant = self.redundant(ep);
        match self.serving.eplb_slots {
            0 => format!("pads the experts to {ep} equal ranks"),
            slots if slots == redundant => "serving.eplb_slots: copies of the busiest experts".into(),
            slots => format!("serving.eplb_slots={slots}, padded to {ep} equal ranks"),
        }
    }
}

/// Writes the launch of a plan.
///
/// # Errors
/// An unknown framework; a plan that does not fit the model or the cluster; one that breaks a rule of the framework or
/// that no released server starts, with the rule and the cure, unless `force` is set.
pub fn launch(framework: &str, ask: &Ask) -> Result<Launch> {
    if !FRAMEWORKS.contains(&framework) {
        let hint = near(framework, FRAMEWORKS);
        return Err(Error::spec("framework", format!("'{framework}' is not a framework that starts plans"), hint));
    }
    let engine = if framework == "dynamo" { ask.engine } else { framework };
    let mut problems = ask.plan.check(ask.model, ask.cluster);
    problems.nest("", ask.plan.check_blocks(ask.model, &ask.formats()));
    super::engine::contradictions_of(&mut problems, ask.model, ask.serving);
    problems.into_result()?;
    let verdict = Rules::new(engine, None, ask.model, ask.cluster)?.verdict(ask.plan);
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
    let servers = place::servers(ask, &mut out.notes);
    let afd = !ask.plan.afd_units().is_empty();
    if afd {
        if framework != "vllm" {
            let text = format!("no released server of {framework} starts AFD units");
            return Err(Error::spec("framework", text, "framework='vllm' (afd-plugin) is the only one"));
        }
        afd::write(ask, &servers, &mut out);
    } else {
        match framework {
            "vllm" => vllm::write(ask, &servers, &mut out),
            "sglang" => sglang::write(ask, &servers, &mut out),
            "trtllm" => trtllm::write(ask, &servers, &mut out),
            _ => dynamo::write(ask, engine, &servers, &mut out),
        }
    }
    formats_note(ask, &mut out.notes);
    let server = match (framework, verdict.server) {
        ("dynamo", Some(under)) => format!("dynamo {} over {under}", dynamo::VERSION),
        (_, Some(server)) => server,
        (_, None) => framework.to_string(),
    };
    let (commands, mut files) = script::scripts(ask, &server, &out.processes, &out.notes);
    files.extend(out.files);
    Ok(Launch { framework: framework.into(), server, commands, files, notes: out.notes })
}

/// Formats that differ from the checkpoint's need another checkpoint: no flag turns BF16 into blocks of FP8.
fn formats_note(ask: &Ask, notes: &mut Vec<String>) {
    let own = ask.model.quant;
    let parts = [
        ("gemm", ask.quant.gemm, own.gemm),
        ("moe", ask.quant.moe, own.moe),
        ("attention", ask.quant.attention, own.attention),
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

/// The servers of a role.
fn of(servers: &[Server], role: Role) -> impl Iterator<Item = &Server> {
    servers.iter().filter(move |s| s.role == role)
}
