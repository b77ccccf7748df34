//! How a measured row is asked for: which operator of the library serves it, where on its surface it stands, and which of
//! its columns may be hidden.
//!
//! Limit: rows that no default lane uses, and tables that are no operator of a layer, are not asked for.

use crate::error::{Error, Result};
use crate::kernels::evidence::Evidence;
use crate::kernels::ops::{self, ExpertShape, Source};
use crate::kernels::surface::Surface;
use crate::kernels::table::{Table, TableKey};
use crate::spec::mixers::{DeltaNet, KimiDelta};
use crate::spec::model::USUAL_GROUP;
use crate::spec::{Attention, Dtype, Indexer, LayerMixer, Model, OwnMixer, Quant, catalog, servers};

/// How a table's rows are asked for.
pub(super) struct Probe {
    /// Columns that pick a group of lanes; rows of other groups do not matter.
    pub group: &'static [&'static str],
    /// Columns to hide by value.
    pub axes: &'static [&'static str],
}

const GEMM: Probe = Probe { group: &["gemm_dtype"], axes: &["m", "n", "k"] };
const CONTEXT: Probe = Probe {
    group: &["attn_dtype", "kv_cache_dtype", "head_dim", "window_size", "num_key_value_heads"],
    axes: &["batch_size", "isl", "num_heads"],
};
const DECODE: Probe = Probe {
    group: &["attn_dtype", "kv_cache_dtype", "head_dim", "window_size", "num_key_value_heads"],
    axes: &["batch_size", "step", "num_heads"],
};
const DSA_CONTEXT: Probe = Probe {
    group: &["architecture", "kv_cache_dtype", "gemm_type"],
    axes: &["batch_size", "isl", "step", "num_heads"],
};
const DSA_DECODE: Probe =
    Probe { group: &["architecture", "kv_cache_dtype", "gemm_type"], axes: &["batch_size", "step", "num_heads"] };
const BLOCK_CONTEXT: Probe =
    Probe { group: &["model", "kv_cache_dtype", "gemm_type"], axes: &["batch_size", "isl", "step", "num_heads"] };
const BLOCK_DECODE: Probe =
    Probe { group: &["model", "kv_cache_dtype", "gemm_type"], axes: &["batch_size", "step", "num_heads"] };
const RUNNING: Probe = Probe { group: &["phase"], axes: &["batch_size", "seq_len", "num_v_heads"] };
const MLA_CONTEXT: Probe =
    Probe { group: &["mla_dtype", "kv_cache_dtype", "gemm_type"], axes: &["batch_size", "isl", "num_heads"] };
const MLA_DECODE: Probe =
    Probe { group: &["mla_dtype", "kv_cache_dtype", "gemm_type"], axes: &["batch_size", "step", "num_heads"] };
const MOE: Probe = Probe {
    group: &["moe_dtype", "hidden_size", "inter_size", "topk", "num_experts", "distribution", "num_slots", "op_name"],
    axes: &["num_tokens", "moe_ep_size"],
};

pub(super) fn probe(table: &str) -> Option<&'static Probe> {
    Some(match table {
        "gemm" => &GEMM,
        "context_attention" => &CONTEXT,
        "generation_attention" => &DECODE,
        "dsa_context_module" => &DSA_CONTEXT,
        "dsa_generation_module" => &DSA_DECODE,
        "dsv4_csa_context_module" | "dsv4_hca_context_module" | "msa_context_module" => &BLOCK_CONTEXT,
        "dsv4_csa_generation_module" | "dsv4_hca_generation_module" | "msa_generation_module" => &BLOCK_DECODE,
        "kda" | "gdn" => &RUNNING,
        "mla_context_module" | "context_mla" => &MLA_CONTEXT,
        "mla_generation_module" | "generation_mla" => &MLA_DECODE,
        "moe" | "wideep_context_moe" | "wideep_generation_moe" | "wideep_moe" => &MOE,
        _ => return None,
    })
}

/// Tables that leave-one-out knows how to ask for.
pub const TABLES: [&str; 21] = [
    "gemm",
    "context_attention",
    "generation_attention",
    "dsa_context_module",
    "dsa_generation_module",
    "dsv4_csa_context_module",
    "dsv4_csa_generation_module",
    "dsv4_hca_context_module",
    "dsv4_hca_generation_module",
    "msa_context_module",
    "msa_generation_module",
    "kda",
    "gdn",
    "mla_context_module",
    "mla_generation_module",
    "context_mla",
    "generation_mla",
    "moe",
    "wideep_context_moe",
    "wideep_generation_moe",
    "wideep_moe",
];

pub(super) fn int(table: &Table, name: &str, row: usize) -> i64 {
    match table.key(name) {
        Some(TableKey::Int { values, .. }) => values[row],
        _ => 0,
    }
}

pub(super) fn text<'a>(table: &'a Table, name: &str, row: usize) -> &'a str {
    match table.key(name) {
        Some(TableKey::Text { codes, labels, .. }) => &labels[codes[row] as usize],
        _ => "",
    }
}

fn dtype(label: &str) -> Option<Dtype> {
    match label {
        "fp8_e4m3" => Some(Dtype::Fp8),
        _ => Dtype::named(label),
    }
}

/// A model of the architecture that a module table names.
fn model(architecture: &str, sparse: bool) -> Model {
    let glm = architecture.starts_with("Glm");
    let (hidden, heads, q_lora, nope, v, index) =
        if glm { (6144, 64, 2048, 192, 256, 32) } else { (7168, 128, 1536, 128, 128, 64) };
    Model {
        name: architecture.to_string(),
        source: "dimensions of the measured modules".to_string(),
        architecture: architecture.to_string(),
        layers: 1,
        hidden,
        vocab: 1,
        max_context: u32::MAX,
        attention: Attention::Mla {
            heads,
            q_lora,
            kv_lora: 512,
            nope,
            rope: 64,
            v,
            indexer: sparse.then_some(Indexer { heads: index, head_dim: 128, topk: 2048, shared: false, pool: 0 }),
            gate: false,
        },
        streams: 1,
        residual_block: 0,
        dense_layers: 0,
        dense_intermediate: 0,
        moe: None,
        expert_layers: Vec::new(),
        gated: true,
        mixers: Vec::new(),
        layer_mixers: Vec::new(),
        tied_embeddings: false,
        mtp_layers: 0,
        quant: Quant::default(),
        bf16_parts: Vec::new(),
        part_formats: Vec::new(),
        int4_group: USUAL_GROUP,
    }
}

/// The time that the operator of a row takes, all its kernels. `whole`: the surface made from every row, and where the row is.
pub(super) fn seconds(table: &Table, row: usize, whole: &(Surface, [f64; 3])) -> Option<f64> {
    let parts = matches!(table.name.as_str(), "kda" | "gdn");
    let reading = parts.then(|| whole.0.at(&whole.1)).filter(|r| r.evidence == Evidence::Measured);
    if parts { reading.map(|r| r.seconds) } else { table.seconds(row, "latency") }
}

/// What an operator gives for a row; `None` where it has nothing to say of it.
///
/// # Errors
/// If a table that it reads is damaged: the row is not another operator's then.
fn of<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(x) => Ok(Some(x)),
        Err(e @ (Error::Data { .. } | Error::Cancelled)) => Err(e),
        Err(_) => Ok(None),
    }
}

/// The value, or a row that is not asked for.
macro_rules! had {
    ($found:expr) => {
        match $found {
            Some(x) => x,
            None => return Ok(None),
        }
    };
}

/// The surface that serves a row, and where on it the row is; `None` for rows of other operators.
///
/// # Errors
/// If a table that the surface needs cannot be read.
pub(super) fn ask(source: &Source, table: &Table, row: usize) -> Result<Option<(Surface, [f64; 3])>> {
    let i = |name: &str| int(table, name, row);
    let u = |name: &str| u32::try_from(i(name)).unwrap_or(0);
    let t = |name: &str| text(table, name, row);
    let f = |name: &str| i(name) as f64;
    let kv = || dtype(t("kv_cache_dtype"));
    let surface = match table.name.as_str() {
        "gemm" => (had!(of(ops::gemm(source, had!(dtype(t("gemm_dtype"))), u("n"), u("k")))?), [f("m"), 0.0, 0.0]),
        "context_attention" => {
            let s = ops::context_attention(
                source,
                u("num_heads"),
                u("num_key_value_heads"),
                u("head_dim"),
                u("window_size"),
                had!(dtype(t("attn_dtype"))),
                had!(kv()),
            );
            (had!(of(s)?), [f("batch_size"), f("isl"), 0.0])
        }
        "generation_attention" => {
            let s = ops::generation_attention(
                source,
                u("num_heads"),
                u("num_key_value_heads"),
                u("head_dim"),
                u("window_size"),
                had!(kv()),
            );
            (had!(of(s)?), [f("batch_size"), f("step") + 1.0, 0.0])
        }
        "dsa_context_module" | "dsa_generation_module" => {
            if t("op_name").contains("skip_indexer") {
                return Ok(None);
            }
            let m = model(t("architecture"), true);
            if table.name == "dsa_context_module" {
                (
                    had!(of(ops::mla_context(source, &m, u("num_heads"), had!(dtype(t("gemm_type"))), had!(kv())))?),
                    [f("batch_size"), f("isl"), f("step")],
                )
            } else {
                (
                    had!(of(ops::mla_generation(source, &m, u("num_heads"), had!(dtype(t("gemm_type"))), had!(kv())))?),
                    [f("batch_size"), f("step"), 0.0],
                )
            }
        }
        name if name.starts_with("dsv4_") || name.starts_with("msa_") => {
            let m = had!(of(catalog::model(t("model")))?);
            let (decode, picks, heads) = (name.contains("generation"), name.contains("_csa_"), u("num_heads"));
            let formats = [had!(dtype(t("gemm_type"))), had!(kv())];
            let made = m.mixers.iter().find_map(|mixer| match mixer {
                LayerMixer::Own(OwnMixer::Compressed(c)) if c.ratio > 0 && (c.topk > 0) == picks => {
                    Some(ops::compressed_block(source, m.hidden, c, heads, formats, decode))
                }
                LayerMixer::Own(OwnMixer::BlockSparse(b)) => {
                    Some(ops::block_sparse_block(source, m.hidden, b, heads, formats, decode))
                }
                _ => None,
            });
            let s = had!(of(had!(made))?);
            (s, if decode { [f("batch_size"), f("step"), 0.0] } else { [f("batch_size"), f("isl"), f("step")] })
        }
        "kda" | "gdn" => {
            let (keys, values) = (u("num_k_heads"), u("num_v_heads"));
            let conv = u("d_conv");
            let mixer = match table.name.as_str() {
                "kda" => {
                    let head_dim = u("head_v_dim");
                    OwnMixer::KimiDelta(KimiDelta { heads: values, head_dim, conv, full_gate: false })
                }
                _ => OwnMixer::GatedDelta(DeltaNet {
                    key_heads: keys,
                    value_heads: values,
                    key_dim: u("head_k_dim"),
                    value_dim: u("head_v_dim"),
                    conv,
                }),
            };
            let decode = match t("phase") {
                "generation" => true,
                "context" => false,
                _ => return Ok(None),
            };
            (had!(of(ops::running(source, &had!(mixer.running()), 1, decode))?), [f("batch_size"), f("seq_len"), 0.0])
        }
        "mla_context_module" | "mla_generation_module" => {
            if t("mla_dtype") != "bfloat16" {
                return Ok(None);
            }
            let m = model("DeepseekV3ForCausalLM", false);
            if table.name == "mla_context_module" {
                (
                    had!(of(ops::mla_context(source, &m, u("num_heads"), had!(dtype(t("gemm_type"))), had!(kv())))?),
                    [f("batch_size"), f("isl"), 0.0],
                )
            } else {
                (
                    had!(of(ops::mla_generation(source, &m, u("num_heads"), had!(dtype(t("gemm_type"))), had!(kv())))?),
                    [f("batch_size"), f("step"), 0.0],
                )
            }
        }
        "context_mla" | "generation_mla" => {
            let m = model("DeepseekV3ForCausalLM", false);
            let decode = table.name == "generation_mla";
            let s = had!(had!(of(ops::mla_kernel(source, &m, u("num_heads"), had!(kv()), decode))?));
            (s, if decode { [f("batch_size"), f("step") + 1.0, 0.0] } else { [f("batch_size"), f("isl"), 0.0] })
        }
        _ => {
            let shape = ExpertShape {
                hidden: u("hidden_size"),
                intermediate: u("inter_size"),
                topk: u("topk"),
                experts: u("num_experts"),
                moe_tp: u("moe_tp_size"),
                ep: u("moe_ep_size"),
                gated: true,
            };
            let format = had!(dtype(t("moe_dtype")));
            let distribution = t("distribution");
            let s = match table.name.as_str() {
                "moe" => {
                    let beyond = servers::few_tokens_kernel(&source.framework, source.device.sm)
                        .is_some_and(|(lane, most)| t("kernel_source").contains(lane) && f("num_tokens") > most);
                    if t("kernel_source").contains("nongated") || beyond {
                        return Ok(None);
                    }
                    had!(of(ops::moe(source, shape, format, distribution))?)
                }
                name => {
                    had!(had!(of(ops::grouped_moe(source, shape, format, distribution, name != "wideep_context_moe"))?))
                }
            };
            (s, [f("num_tokens"), 0.0, 0.0])
        }
    };
    let label = t("kernel_source");
    Ok((label.is_empty() || surface.0.source().contains(label)).then_some(surface))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A damaged table that a row's operator reads is an error; an operator that has nothing for the row is none.
    #[test]
    fn damage_is_no_row_of_another_operator() {
        assert!(
            matches!(of::<()>(Err(Error::data("x.pack", "cut"))), Err(Error::Data { path, .. }) if path == "x.pack")
        );
        assert!(matches!(of::<()>(Err(Error::Cancelled)), Err(Error::Cancelled)));
        assert!(matches!(of::<()>(Err(Error::spec("m", "is 0", ""))), Ok(None)));
        assert!(matches!(of(Ok(3)), Ok(Some(3))));
    }
}
