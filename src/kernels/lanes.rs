//! Lanes: which kernel's row answers where several measured the same shape.
//!
//! These defaults choose between rows that were asked for alike; what they leave ambiguous stays
//! so, and the caller says it. A `kernel_source` that was named is never second-guessed.
//!
//! Limit: one default a framework and architecture; what a server would pick by shape or by tuning is not followed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::table::{Table, TableKey};
use crate::spec::catalog;
use crate::spec::servers::{self, KernelPart};

/// Architecture of a system's device; 0: not in the catalogue.
fn architecture(system: &str) -> u32 {
    static OF: LazyLock<BTreeMap<String, u32>> = LazyLock::new(|| {
        let of = |name: String| catalog::system(&name).ok().map(|(device, _)| (name, device.sm));
        catalog::systems().into_iter().filter_map(of).collect()
    });
    OF.get(system).copied().unwrap_or(0)
}

/// Kernel source that a framework runs by itself where several were measured; none: no default.
///
/// Attention, that of wide EP too: as `kernels` of `serving/defaults.json`. The NVLink all-to-all takes its one-sided
/// kernel first. Custom all-reduce counts as it runs in serving, inside a CUDA graph.
fn preferred(table: &Table, sm: u32, label: &str) -> bool {
    match (table.framework.as_str(), table.name.as_str()) {
        (framework, "context_attention" | "generation_attention" | "wideep_context_mla" | "wideep_generation_mla") => {
            servers::kernel_rule(framework, sm, KernelPart::Attention).is_some_and(|r| label == r.lane)
        }
        (_, "custom_allreduce") => label.ends_with("_graph"),
        ("trtllm", "trtllm_alltoall") => label == "NVLinkOneSided",
        _ => false,
    }
}

/// Whether a kernel computes experts without a gate: wrong for a SwiGLU model, so only on request.
pub(crate) fn is_nongated(source: &str) -> bool {
    source.ends_with("_nongated")
}

/// Of `rows`, those of the operator the table is named for, where it holds variants too
/// (`..._skip_indexer`, `..._eplb`).
pub(crate) fn own_operator(table: &Table, rows: &mut Vec<u32>) {
    if let Some(TableKey::Text { codes, labels, .. }) = table.key("op_name")
        && let Some(own) = labels.iter().position(|l| *l == table.name)
    {
        keep_if_any(rows, |r| usize::from(codes[r]) == own);
    }
}

/// Of `rows`, which agree in what was asked for, those of the default lane.
///
/// Rows of other sources go where the default has rows; where it has none, all stay. Non-gated
/// expert kernels always go. The result may be empty, or still hold several sources.
pub(crate) fn default_sources(table: &Table, rows: &mut Vec<u32>) {
    let Some(TableKey::Text { codes, labels, .. }) = table.key("kernel_source") else { return };
    let label = |r: usize| labels[usize::from(codes[r])].as_str();
    rows.retain(|&r| !is_nongated(label(r as usize)));
    let sm = architecture(&table.system);
    keep_if_any(rows, |r| preferred(table, sm, label(r)));
    if let ("moe", Some(few)) = (table.name.as_str(), servers::few_tokens_kernel(&table.framework, sm)) {
        split_few_tokens(table, rows, label, few);
    }
}

/// Key columns along which times may be interpolated.
pub(crate) fn is_axis(column: &str) -> bool {
    matches!(
        column,
        "m" | "n"
            | "k"
            | "num_tokens"
            | "num_token"
            | "batch_size"
            | "isl"
            | "step"
            | "message_size"
            | "num_heads"
            | "num_key_value_heads"
            | "moe_ep_size"
    )
}

/// Key columns that a measurement of one kind and shape sweeps, or that only say how it was run.
pub(crate) fn is_swept(column: &str) -> bool {
    let sizes = ["m", "num_tokens", "num_token", "batch_size", "isl", "step", "seq_len", "message_size"];
    sizes.contains(&column) || is_dependent(column) || ["kernel_source", "distribution"].contains(&column)
}

/// Key columns that follow from the token count of their row.
pub(crate) fn is_dependent(column: &str) -> bool {
    matches!(column, "dp_num_tokens" | "rank0_num_tokens")
}

/// Drops rows of the kernel for few tokens above its range and the other kernel's within it, where both exist.
fn split_few_tokens<'a>(
    table: &Table,
    rows: &mut Vec<u32>,
    label: impl Fn(usize) -> &'a str,
    (lane, most): (&str, f64),
) {
    let Some(tokens) = table.key("num_tokens") else { return };
    let low = |r: usize| label(r).contains(lane);
    let mut within = rows.clone();
    within.retain(|&r| tokens.code(r as usize) as f64 <= most);
    let mut beyond = rows.clone();
    beyond.retain(|&r| tokens.code(r as usize) as f64 > most);
    keep_if_any(&mut within, low);
    keep_if_any(&mut beyond, |r| !low(r));
    within.append(&mut beyond);
    within.sort_unstable();
    *rows = within;
}

fn keep_if_any(rows: &mut Vec<u32>, keep: impl Fn(usize) -> bool) {
    if rows.iter().any(|&r| keep(r as usize)) {
        rows.retain(|&r| keep(r as usize));
    }
}
