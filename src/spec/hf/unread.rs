//! Fields that would change the cost model in a way that is not known, and fields that nobody read.
//!
//! Whatever looks like structure and was not read is an error that names it, never ignored: its name speaks of experts,
//! groups, heads, layers, windows, branches, states or sizes, its value switches something on, and it is not on the list
//! of fields of published configs that change nothing here.
//!
//! Limit: judges by names: a field whose name does not speak of structure passes unseen.

use super::fields::{Fields, kind, off};

/// What a field changes that nobody read although it switches something on.
const REFUSED: &[(&str, &str)] = &[
    ("sparse_attention_config", "block-sparse attention"),
    ("compress_ratios", "compressed attention"),
    ("compress_ratio", "compressed attention"),
    ("routed_expert_hidden_size", "latent mixture of experts"),
    ("block_configs", "layers that differ from each other"),
    ("global_head_dim", "two attention shapes in one model"),
    ("num_global_key_value_heads", "two attention shapes in one model"),
    ("attention_k_eq_v", "shared keys and values"),
    ("num_kv_shared_layers", "KV shared between layers"),
    ("use_cla", "KV shared between layers"),
    ("mla_use_output_gate", "gated attention output of latent attention"),
    ("enable_moe_block", "dense and expert branches in one layer"),
    ("is_encoder_decoder", "an encoder beside the decoder"),
    ("zero_expert_num", "experts that do nothing"),
    ("hc_mult", "hyper-connections"),
];

/// Fields that say something only where another one is on.
const WITH: &[(&str, &[&str])] = &[
    ("use_cla", &["cla_share_factor"]),
    ("use_mla", &["kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"]),
    ("add_cross_attention", &["cross_attention_hidden_size"]),
];

/// Which layers share an indexer, in other words than `indexer_types`.
const SHARED_INDEXER: &[&str] = &["index_topk_freq", "index_topk_pattern", "index_skip_topk_offset"];

pub(crate) fn refuse(f: &mut Fields) {
    for (field, companions) in WITH {
        if f.get(field).is_none_or(off) && f.says(field) {
            companions.iter().for_each(|c| f.seen(c));
        }
    }
    // OPT: embeddings of a width of their own, where it is one.
    if f.get("word_embed_proj_dim").is_some_and(|v| Some(v) != f.get("hidden_size")) {
        f.wrong("word_embed_proj_dim", "embeddings of another width than the layers: not supported", "");
    }
    // MiniMax-01/M1 mark lightning-attention layers with 0 in a list of ones.
    if let Some(list) = f.get("attn_type_list").and_then(|v| v.as_array())
        && list.iter().any(|v| v.as_u64() != Some(1))
    {
        f.wrong("attn_type_list", "linear attention layers: not supported", "");
    }
    match f.get("indexer_types").and_then(|v| v.as_array()) {
        Some(list) if list.iter().any(|v| !matches!(v.as_str(), Some("full" | "shared"))) => {
            SHARED_INDEXER.iter().for_each(|n| f.seen(n));
            f.wrong("indexer_types", "has a kind that is not known: not supported", "full or shared");
        }
        Some(_) => SHARED_INDEXER.iter().for_each(|n| f.seen(n)),
        None if f.get("index_topk_freq").is_some_and(|v| v.as_u64() != Some(1)) => {
            f.wrong(
                "index_topk_freq",
                "an indexer shared between layers that are not named: not supported",
                "indexer_types names them",
            );
        }
        None => {}
    }
}

/// Words of a name that speak of structure.
const STRUCTURE: &[&str] = &[
    "expert",
    "moe",
    "group",
    "layer",
    "head",
    "window",
    "sliding",
    "swa",
    "sparse",
    "sparsity",
    "compress",
    "compression",
    "compressed",
    "mamba",
    "ssm",
    "s4",
    "state",
    "conv",
    "convolution",
    "linear",
    "recurrent",
    "recurrence",
    "rnn",
    "lru",
    "residual",
    "hyper",
    "hc",
    "shared",
    "share",
    "sharing",
    "kv",
    "latent",
    "lora",
    "rank",
    "gate",
    "gated",
    "gating",
    "mlp",
    "ffn",
    "ffw",
    "ff",
    "feedforward",
    "intermediate",
    "dim",
    "block",
    "chunk",
    "chunked",
    "pattern",
    "interval",
    "period",
    "offset",
    "memory",
    "ngram",
    "index",
    "indexer",
    "branch",
    "stream",
    "parallel",
    "cross",
    "attn",
    "attention",
    "delta",
    "deltanet",
    "kda",
    "gla",
    "retention",
    "rwkv",
    "hybrid",
    "mixer",
    "topk",
    "depth",
    "width",
    "size",
    "num",
    "n",
    "stack",
    "loop",
    "hash",
    "dense",
    "router",
    "routed",
    "draft",
    "adapter",
    "engram",
];

/// Endings and beginnings of fields that set numbers, not structure.
const ENDINGS: &[&str] = &[
    "_token_id",
    "_token_ids",
    "_token_index",
    "_dropout",
    "_dropout_prob",
    "_drop",
    "_pdrop",
    "_eps",
    "_epsilon",
    "_theta",
    "_base",
    "_scaling",
    "_coef",
    "_coeff",
    "_loss",
    "_bias",
    "_dtype",
    "_init",
    "_std",
    "_range",
    "_multiplier",
    "_scale",
    "_softcapping",
    "_softcap",
    "_cap",
    "_act",
    "_activation",
    "_activation_func",
    "_class",
    "_path",
    "_version",
    "_norm",
    "_layernorm",
    "_scaling_factor",
    "_jitter_noise",
    "_noise",
    "_implementation",
    "_kernels",
    "_in_fp32",
    "_fp32",
    "_alpha",
    "_beta",
    "_decay",
    "_min",
    "_max",
    "_limit",
    "_floor",
    "_func",
    "_fn",
    "_method",
    "_strategy",
    "_renormalize",
];
const BEGINNINGS: &[&str] = &[
    "_",
    "rope_",
    "rotary_",
    "mrope_",
    "vision_",
    "image_",
    "video_",
    "audio_",
    "vit_",
    "img_",
    "mm_",
    "anyres_",
    "bos_",
    "eos_",
    "eod_",
    "pad_",
    "sep_",
    "cls_",
    "tokenizer_",
    "torch_",
    "initializer_",
    "mtp_",
    "mup_",
    "fuse_",
    "fused_",
    "use_flash",
    "flash_",
    "classifier_",
    "summary_",
    "norm_",
    "layernorm_",
];

/// Fields of published configs that change nothing that is priced.
const HARMLESS: &[&str] = &[
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "chunk_size_feed_forward",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "num_labels",
    "num_logits_to_keep",
    "pruned_heads",
    "n_ctx",
    "n_positions",
    "query_pre_attn_scalar",
    "attn_temperature_tuning",
    "topk_method",
    "norm_topk_prob",
    "ep_size",
    "num_key_value_groups",
    "parallel_attn",
    "use_parallel_residual",
    "num_ln_in_parallel_attn",
    "dim_model_base",
    "scale_depth",
    "moe_shared_expert_overlap",
    "rescale_prenorm_residual",
    "use_mixed_mlp_moe",
    "moe_drop_tokens",
    "moe_random_routing_dropped_token",
    "use_moe",
    "is_moe",
    "num_media_embeds",
    "sequence_parallel",
    "tensor_parallel_degree",
    "tensor_parallel_output",
    "use_grouped_topk",
    "use_expert_bias",
    "reorder_and_upcast_attn",
    "scale_attn_by_inverse_layer_idx",
    "attn_scale",
    "attention_softmax_in_fp32",
    "index_share_for_mtp_iteration",
    "indexer_rope_interleave",
    "moe_router_enable_expert_bias",
    "attention_probs_dropout_prob",
    "experts_implementation",
    "num_mtp_modules",
    "mtp_num_layers",
    "add_classification_head",
    "moe_capacity",
    "moe_gate",
    "moe_use_aux_free",
    "moe_group",
    "add_qkv_bias",
    "use_qkv_bias",
    "multi_query_attention",
    "multi_query",
    "new_decoder_architecture",
    "interleaved_qkv",
    "attention_types",
    "post_layer_norm",
    "apply_residual_connection_post_layernorm",
    "apply_query_key_layer_scaling",
    "bias_dropout_fusion",
    "original_rope",
    "kv_channels",
    "use_attention_sinks",
    "attention_sink",
    "use_moe_router_bias",
    "score_function",
    "moe_apply_router_weight_on_input",
    "expert_selection_fn",
    "route_norm",
    "route_scale",
    "head_first",
    "use_key_bias",
    "max_window_layers",
    "no_rope_layers",
    "no_rope_layer_interval",
    "yarn_only_types",
    "dense_attention",
    "pre_allocate_kv_cache",
    "offset_alibi",
    "need_fp32_gate",
    "using_split_qkv_in_self_attention",
    "order_of_interleaved_layers",
    "use_embedding_sharing",
    "use_parallel_block",
    "use_parallel_embedding",
    "use_gated_activation",
    "output_gate_type",
    "attention_out_bias",
    "num_expert_groups",
    "num_limited_groups",
    "use_grouped_mm",
    "moe_layer_use_mlp",
    "moe_dense_moe",
    "moe_multimodal_dispatch_use_allgather",
    "num_image_tokens",
    "attention_method",
    "mla_scale_q_lora",
    "mla_scale_kv_lora",
    "zero_expert_type",
];

/// A name in its words, plural taken off; norms are one word.
fn speaks_of_structure(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if HARMLESS.contains(&lower.as_str())
        || ENDINGS.iter().any(|e| lower.ends_with(e))
        || BEGINNINGS.iter().any(|b| lower.starts_with(b))
    {
        return false;
    }
    let joined = lower.replace("layer_norm", "layernorm").replace("group_norm", "groupnorm");
    let singular = |word: &str| word.strip_suffix('s').map(str::to_string).unwrap_or_else(|| word.to_string());
    joined.split('_').any(|word| STRUCTURE.contains(&word) || STRUCTURE.contains(&singular(word).as_str()))
}

/// Names what was not read and changes a model in a way that is known, and with `all` what looks like structure.
pub(crate) fn structure(f: &mut Fields, all: bool) {
    let known = |name: &str| REFUSED.iter().find(|(field, _)| *field == name).map(|(_, what)| what);
    let found: Vec<(String, String)> = f
        .unread()
        .into_iter()
        .filter(|(_, value)| !off(value))
        .filter_map(|(name, value)| match known(name) {
            Some(what) => Some((name.to_string(), format!("{what}: not supported"))),
            None if all && speaks_of_structure(name) => {
                let message = format!("looks like structure and was not read (is {}): not supported", kind(value));
                Some((name.to_string(), message))
            }
            None => None,
        })
        .collect();
    for (name, message) in found {
        f.wrong(&name, message, "");
    }
}
