//! Presets of models, systems and workloads, each a data file with its source.
//!
//! The files live in the Python package (`python/disagg/data`) and are compiled in, so that neither
//! tests nor the extension need a path at run time.
//!
//! Limit: files of the build; the first preset that has a name or an alias answers to it, and nothing is downloaded.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Problems, Result, near};

use super::distribution::Distribution;
use super::hardware::{Cluster, Device, Fabric};
use super::json;
use super::model::Model;
use super::workload::{PrefixHome, PrefixScope, Workload};

macro_rules! data {
    ($kind:literal: $($file:literal)*) => {
        &[$(($file, include_str!(concat!("../../python/disagg/data/", $kind, "/", $file, ".json")))),*]
    };
}

/// File stem and text of every model preset: all that lie there (`build.rs`), by name.
pub const MODEL_FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/model_files.rs"));

/// File stem and text of every system preset.
pub const SYSTEM_FILES: &[(&str, &str)] = data! { "systems":
    "h100_sxm" "h200_sxm" "b200_sxm" "b300_sxm" "gb200" "gb300"
};

/// File stem and text of every device known by its data sheet alone.
pub const DEVICE_FILES: &[(&str, &str)] = data! { "devices":
    "h20" "rubin" "groq_3_lpu" "ascend_910c" "ascend_950pr" "ascend_950dt" "mi355x" "rtx_pro_6000" "gb10"
};

/// File stem and text of every workload preset.
pub const WORKLOAD_FILES: &[(&str, &str)] = data! { "workloads":
    "paper-chat" "paper-coding" "paper-agentic"
    "chat-short" "chat-long-multiturn" "code-completion" "agentic-coding" "agentic-swe-small" "reasoning"
    "long-context-rag-sum" "tool-agent-shared-prefix" "api-short"
    "inferencemax-chat" "inferencemax-reasoning" "inferencemax-summarization"
};

/// What every preset file has: who it is, and the rest.
#[derive(Deserialize)]
struct Entry<T> {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(flatten)]
    body: T,
}

#[derive(Deserialize)]
struct ModelBody {
    source: String,
    config: Value,
}

#[derive(Deserialize)]
struct SystemBody {
    /// Of a device known by its data sheet: the measured system whose kernel tables stand for it, scaled.
    tables: Option<String>,
    device: Device,
    fabric: Fabric,
}

#[derive(Deserialize)]
struct WorkloadBody {
    source: String,
    prefix: Distribution,
    isl: Distribution,
    osl: Distribution,
}

#[derive(Deserialize)]
struct Nothing {}

fn entry<T: DeserializeOwned>(kind: &str, file: &str, text: &str) -> Result<Entry<T>> {
    json::parse(text, &format!("{kind}/{file}.json"))
}

/// `_` and `-` and case are one to a user.
fn fold(name: &str) -> String {
    name.trim().to_lowercase().replace('_', "-")
}

fn short(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, s)| s)
}

/// The file that `wanted` names, by full name, name without organisation, or alias.
fn find(kind: &str, files: &[(&'static str, &'static str)], wanted: &str) -> Result<(&'static str, &'static str)> {
    let key = fold(wanted);
    let mut names = Vec::new();
    for &(file, text) in files {
        let e: Entry<Nothing> = entry(kind, file, text)?;
        let known = |n: &String| fold(n) == key || fold(short(n)) == key;
        if known(&e.name) || e.aliases.iter().any(known) {
            return Ok((file, text));
        }
        names.push(e.name);
    }
    // Compare like with like: a name without organisation against such names.
    let shown: Vec<&str> = if wanted.contains('/') {
        names.iter().map(String::as_str).collect()
    } else {
        names.iter().map(|n| short(n)).collect()
    };
    let what = kind.trim_end_matches('s');
    Err(Error::spec(what, format!("unknown {what} '{wanted}'"), near(wanted, shown)))
}

fn names(kind: &str, files: &[(&str, &str)]) -> Vec<String> {
    // The files are part of the crate and parsed by a test; one that fails is left out here.
    files.iter().filter_map(|(file, text)| entry::<Nothing>(kind, file, text).ok().map(|e| e.name)).collect()
}

/// The repository that an address of a hub names: `https://huggingface.co/org/name/blob/main/config.json` is `org/name`.
fn repository(name: &str) -> &str {
    let name = name.trim().trim_end_matches('/');
    let plain = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name);
    const HUBS: [&str; 6] = [
        "huggingface.co/",
        "www.huggingface.co/",
        "hf.co/",
        "hf-mirror.com/",
        "modelscope.cn/models/",
        "www.modelscope.cn/models/",
    ];
    let Some(path) = HUBS.iter().find_map(|hub| plain.strip_prefix(hub)) else {
        return name.strip_prefix("hf://").unwrap_or(name);
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    // Organisation and name; what follows is a page of theirs.
    let end = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

/// A model preset by name, with or without its organisation, in any case, or by its address on a hub.
pub fn model(name: &str) -> Result<Model> {
    let (file, text) = find("models", MODEL_FILES, repository(name))?;
    let e: Entry<ModelBody> = entry("models", file, text)?;
    Model::from_hf(&e.body.config, &e.name, &e.body.source)
}

/// Names of all model presets.
pub fn models() -> Vec<String> {
    names("models", MODEL_FILES)
}

/// A system preset: the name under which kernel tables are found, its device and its fabric. Measured systems first, then
/// devices known by their data sheets.
fn preset(name: &str) -> Result<(String, Device, Fabric)> {
    let every: Vec<(&'static str, &'static str)> = [SYSTEM_FILES, DEVICE_FILES].concat();
    let (file, text) = find("systems", &every, name)?;
    let Entry { name, body: SystemBody { tables, device, fabric }, .. } = entry("systems", file, text)?;
    Ok((tables.unwrap_or(name), device, fabric))
}

/// The device and the fabric of a system, or of a device known by its data sheet.
pub fn system(name: &str) -> Result<(Device, Fabric)> {
    preset(name).map(|(_, device, fabric)| (device, fabric))
}

/// The name under which the kernel tables know a system (`b200` gives `b200_sxm`), or the one that stands for it.
pub fn system_name(name: &str) -> Result<String> {
    preset(name).map(|(system, ..)| system)
}

/// Names of all measured systems.
pub fn systems() -> Vec<String> {
    names("systems", SYSTEM_FILES)
}

/// Names of devices known by their data sheets.
pub fn devices() -> Vec<String> {
    names("systems", DEVICE_FILES)
}

/// A cluster of a preset system with its default fabric.
pub fn cluster(name: &str, gpus: u32) -> Result<Cluster> {
    let (system, device, fabric) = preset(name)?;
    let cluster = Cluster { system, gpus, device, fabric };
    let mut problems = Problems::new();
    problems.nest("cluster", cluster.check());
    json::checked(cluster, problems)
}

/// A workload preset by name.
pub fn workload(name: &str) -> Result<Workload> {
    let (file, text) = find("workloads", WORKLOAD_FILES, name)?;
    let e: Entry<WorkloadBody> = entry("workloads", file, text)?;
    let b = e.body;
    Ok(Workload {
        name: e.name,
        source: b.source,
        prefix: b.prefix,
        isl: b.isl,
        osl: b.osl,
        correlation: 0.0,
        lengths: Vec::new(),
        prefix_scope: PrefixScope::default(),
        prefix_home: PrefixHome::default(),
        strict_context: false,
    })
}

/// Names of all workload presets.
pub fn workloads() -> Vec<String> {
    names("workloads", WORKLOAD_FILES)
}
