//! Processes as shell scripts: one a node, and one for the router.
//!
//! Flags stand in an array, one a line, so that each can have its comment.
//!
//! Limit: POSIX shell and bash arrays; processes are started, not watched or restarted.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::ask::Ask;
use super::flags::{Flag, Flags, word};
use super::place::ProcessPart;

/// One process on one node.
#[derive(Clone, Debug)]
pub struct Process {
    /// What it is (`prefill0: GPUs 0-3 of node 0`).
    pub title: String,
    /// None: the router's own script.
    pub node: Option<u32>,
    pub env: Vec<(String, String)>,
    /// Program and positional words, ready for the shell.
    pub program: String,
    pub flags: Flags,
}

/// What a framework's writer fills in.
pub struct Out {
    pub processes: Vec<Process>,
    /// Configuration files beside the scripts.
    pub files: Vec<(String, String)>,
    pub notes: Vec<String>,
}

impl Process {
    pub fn on(part: &ProcessPart, title: String, program: &str, flags: Flags) -> Process {
        let gpus: Vec<String> = part.local.iter().map(u32::to_string).collect();
        let title = format!("{title}: GPUs {} of node {}", gpus.join(","), part.node);
        let env = vec![("CUDA_VISIBLE_DEVICES".to_string(), gpus.join(","))];
        Process { title, node: Some(part.node), env, program: program.into(), flags }
    }

    pub fn router(title: &str, program: &str, flags: Flags) -> Process {
        Process { title: title.into(), node: None, env: Vec::new(), program: program.into(), flags }
    }

    /// The command with its comments.
    pub fn text(&self) -> String {
        let mut out = format!("# {}\nargs=(\n", self.title);
        let width = self.flags.0.iter().map(|f| shown(f).len()).filter(|n| *n <= 48).max().unwrap_or(0);
        for flag in &self.flags.0 {
            let text = shown(flag);
            let why = if flag.why.is_empty() { String::new() } else { format!("  # {}", flag.why) };
            let _ = writeln!(out, "  {}", format!("{text:<width$}{why}").trim_end());
        }
        let env: String = self.env.iter().map(|(k, v)| format!("{k}={} ", word(v))).collect();
        let _ = write!(out, ")\n{env}{} \"${{args[@]}}\"", self.program);
        out
    }
}

fn shown(flag: &Flag) -> String {
    flag.value.as_ref().map_or_else(|| flag.name.clone(), |v| format!("{} {}", flag.name, word(v)))
}

/// The host of a node, as a variable of the scripts.
pub fn host(node: u32) -> String {
    format!("$NODE{node}")
}

/// `"http://$NODE0:8100"`, for the shell to expand.
pub fn url(node: u32, port: u16) -> String {
    format!("\"http://{}:{port}\"", host(node))
}

/// Commands, and the scripts that start them.
pub fn scripts(
    ask: &Ask,
    server: &str,
    processes: &[Process],
    notes: &[String],
) -> (Vec<String>, Vec<(String, String)>) {
    let commands: Vec<String> = processes.iter().map(Process::text).collect();
    // Every host that a command names.
    let last = processes.iter().filter_map(|p| p.node).max().unwrap_or(0);
    let named = |n: &u32| {
        let host = host(*n);
        let ends = |text: &str| text.split(&host).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
        processes.iter().any(|p| p.node == Some(*n)) || commands.iter().any(|c| ends(c))
    };
    let most = last.max(ask.plan.gpus().saturating_sub(1) / ask.case.cluster.fabric.node_gpus.max(1)) + 1;
    let nodes: Vec<u32> = (0..=most).filter(named).collect();
    let mut by_script: BTreeMap<(bool, u32), Vec<&str>> = BTreeMap::new();
    for (p, text) in processes.iter().zip(&commands) {
        by_script.entry((p.node.is_none(), p.node.unwrap_or(0))).or_default().push(text);
    }
    let files = by_script
        .into_iter()
        .map(|((router, node), texts)| {
            let name = if router { "router.sh".to_string() } else { format!("node{node}.sh") };
            let mut out = format!(
                "#!/usr/bin/env bash\n# {} of {} GPUs on {server}: {}\nset -euo pipefail\ncd \"$(dirname \"$0\")\"\n",
                ask.plan.level().name(),
                ask.plan.gpus(),
                if router { "the router".into() } else { format!("node {node}") },
            );
            for note in notes {
                let _ = writeln!(out, "# note: {note}");
            }
            let _ = writeln!(out, "export MODEL=${{MODEL:-{}}}", word(&ask.case.model.name));
            for n in &nodes {
                let _ = writeln!(out, "export NODE{n}=${{NODE{n}:-127.0.0.1}}  # host of node {n}");
            }
            for text in texts {
                let _ = write!(out, "\n{text} &\n");
            }
            out.push_str("\nwait\n");
            (name, out)
        })
        .collect();
    (commands, files)
}
