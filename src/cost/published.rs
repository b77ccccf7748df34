//! How published planners price transfers and memory: the formulas behind the switches of
//! [`Assumptions`](crate::spec::Assumptions), each by its own name.
//!
//! `paper_*`: the public code behind arXiv 2605.28302. The rest: aiconfigurator 0.12. They stand
//! here to be compared with, not because they are right; where they err is said at each.
//!
//! Limit: formulas as published, errors included; nothing here is part of `Assumptions::physical`.

use crate::kernels::ops::ExpertShape;
use crate::kernels::roofline::{self, Attend, Block, Index, Work};
use crate::math::combinatorics::hit_probability;
use crate::spec::{Attention, Device, Dtype, Fabric, Framework, Model};
use crate::units::MIB;

/// Copies of a token to `f` FFN GPUs: the mean of one and the worst case, (1 + min(k, F)) / 2.
/// At 256 experts, top 8 and F = 8 the expected number of distinct GPUs is 5.3, and this says 4.5.
pub fn paper_copies(topk: u32, f: u32) -> f64 {
    f64::from(1 + topk.min(f).max(1)) / 2.0
}

/// Bytes of A2F through the busier end: (per attention GPU, per FFN GPU). `tokens` of one attention
/// rank of `ranks`; BF16 whatever the model's format.
pub fn paper_a2f_bytes(tokens: f64, hidden: f64, ranks: f64, a: f64, f: f64, copies: f64) -> (f64, f64) {
    let elements = tokens * hidden * ranks;
    (elements / a * copies * 2.0, elements * copies / f * 2.0)
}

/// Bytes of F2A: (per FFN GPU, per attention GPU): one vector a token, though its experts sit on
/// several GPUs.
pub fn paper_f2a_bytes(tokens: f64, hidden: f64, ranks: f64, a: f64, f: f64) -> (f64, f64) {
    let elements = tokens * hidden * ranks;
    (elements / f * 2.0, elements / a * 2.0)
}

/// Seconds of a point-to-point transfer in that code: 10 us of latency and 10 us of launch, whatever
/// the fan-out.
pub fn paper_p2p(bytes: f64, bandwidth: f64) -> f64 {
    bytes / bandwidth + 20e-6
}

/// Link of the smallest tier that holds `gpus`: by count, not by place.
pub(crate) fn tier_bandwidth(fabric: &Fabric, gpus: u32) -> f64 {
    if gpus <= fabric.domain_gpus { fabric.nvlink_bytes_per_s } else { fabric.nic_bytes_per_s }
}

/// Bytes over the one link that aiconfigurator prices between an attention worker and an FFN node:
/// the share of tokens that need at least one expert of the node. No fan-out, no incast.
pub(crate) fn one_link_bytes(tokens: f64, hidden: f64, experts: u32, topk: u32, ffn_nodes: u32) -> f64 {
    let nodes = ffn_nodes.max(1);
    let share = if nodes == 1 { 1.0 } else { hit_probability(experts, experts / nodes, topk) };
    (share * tokens * hidden).floor() * 2.0
}

/// Seconds over the link between nodes in aiconfigurator.
pub(crate) fn node_link(bytes: f64, fabric: &Fabric) -> f64 {
    let domain_is_rack = fabric.domain_gpus > fabric.node_gpus;
    bytes / if domain_is_rack { fabric.nvlink_bytes_per_s } else { fabric.nic_bytes_per_s } + 10e-6
}

/// Factor on the whole measured time of `m` ranks for `n` ranks: ring share and link speed. From 8 to
/// 16 GPUs of H200 (450 to 50 GB/s) it is 9.6, launch included.
pub fn stretch(n: u32, m: u32, bandwidth_n: f64, bandwidth_m: f64) -> f64 {
    let (n, m) = (f64::from(n), f64::from(m));
    (n - 1.0) / n * m / (m - 1.0) * bandwidth_m / bandwidth_n
}

/// Which GPUs an activation coefficient is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Whole,
    Attention,
    Ffn,
}

/// Activation coefficients by TP 1, 2, 4, 8. SGLang's are larger, and 15 % are added.
fn coefficient(role: Role, tp: u32, framework: Framework) -> f64 {
    let row = match role {
        Role::Whole if framework == Framework::Sglang => [28.0 * 1.15, 17.0 * 1.15, 13.0 * 1.15, 13.0 * 1.15],
        Role::Whole => [22.0, 13.0, 10.0, 10.0],
        Role::Attention => [6.0, 4.0, 3.0, 3.0],
        Role::Ffn => [16.0, 9.0, 7.0, 7.0],
    };
    row[(tp.clamp(1, 8).ilog2()) as usize]
}

/// Heads x head size as that code has it: the hidden size for latent attention.
fn width(model: &Model) -> f64 {
    match &model.attention {
        Attention::Gqa { heads, head_dim, .. } => f64::from(heads * head_dim),
        Attention::Mla { .. } | Attention::Own(_) => f64::from(model.hidden),
    }
}

/// Activation bytes per token in flight: 2 w c, and for latent-attention models the workspace of
/// their experts, h D E k / EP / 128 x 4.
pub fn activation_per_token(model: &Model, role: Role, tp: u32, ranks: f64, ep: u32, framework: Framework) -> f64 {
    let workspace = match (&model.attention, &model.moe, role) {
        (Attention::Mla { .. }, Some(m), Role::Whole | Role::Ffn) => {
            f64::from(model.hidden) * ranks * f64::from(m.experts) * f64::from(m.topk) / f64::from(ep) / 128.0 * 4.0
        }
        _ => 0.0,
    };
    2.0 * width(model) * coefficient(role, tp, framework) + workspace
}

/// Activation bytes per token of aiconfigurator 0.12, the same wherever the token is: 2 w c and the
/// workspace of latent-attention models, h D E k / EP / 128 x 4, with SGLang's 15 % on both.
pub(crate) fn framework_activation(model: &Model, tp: u32, ranks: f64, ep: u32, framework: Framework) -> f64 {
    let (row, overhead) =
        if framework == Framework::Sglang { ([28.0, 17.0, 13.0, 13.0], 1.15) } else { ([22.0, 13.0, 10.0, 10.0], 1.0) };
    let workspace = match (&model.attention, &model.moe) {
        (Attention::Mla { .. }, Some(m)) => {
            f64::from(model.hidden) * ranks * f64::from(m.experts) * f64::from(m.topk) / f64::from(ep) / 128.0 * 4.0
        }
        _ => 0.0,
    };
    overhead * (2.0 * width(model) * row[(tp.clamp(1, 8).ilog2()) as usize] + workspace)
}

/// Least activation memory there: 70 MiB, SGLang 90 MiB and its 15 %.
pub(crate) fn framework_activation_floor(framework: Framework) -> f64 {
    if framework == Framework::Sglang { 90.0 * 1.15 * MIB } else { 70.0 * MIB }
}

/// KV of a token and layer of sparse attention there: latent values in the cache's format, rotary ones
/// in BF16, and the indexer's key with its scale (FP8 cache: 772 bytes).
pub(crate) fn framework_latent_kv(model: &Model, kv_value_bytes: f64) -> Option<f64> {
    match &model.attention {
        Attention::Mla { kv_lora, rope, indexer: Some(i), .. } => {
            Some(f64::from(*kv_lora) * kv_value_bytes + 2.0 * f64::from(*rope) + f64::from(i.head_dim) + 4.0)
        }
        _ => None,
    }
}

/// What aiconfigurator holds the utilisation of experts against: rows k T / EP spread evenly, at the nominal
/// bandwidth.
pub(crate) fn expert_work(device: &Device, dtype: Dtype, shape: &ExpertShape) -> Work {
    let (hidden, inter) = (f64::from(shape.hidden), f64::from(shape.intermediate) / f64::from(shape.moe_tp.max(1)));
    let ep = f64::from(shape.ep.max(1));
    let rows = f64::from(shape.topk) / ep;
    let bytes = dtype.weight_bytes() / device.hbm_bytes_per_s;
    Work::Linear {
        math: rows * 6.0 * hidden * inter / roofline::flops(device, dtype),
        memory0: 3.0 * hidden * inter * f64::from(shape.experts) / ep * bytes,
        memory: rows * (2.0 * hidden + 3.0 * inter) * bytes,
    }
}

/// What aiconfigurator holds the utilisation of a sparse-attention block in decode against, `heads` heads of a
/// rank, at the nominal bandwidth: projections in the GEMM format with both absorbed halves of kv_b (whose weights
/// it leaves out), logits of the indexer in FP8 and its keys of 132 bytes, top-k attention in BF16 over latents in
/// the cache's format. `None` for other attention.
pub(crate) fn sparse_decode_work(device: &Device, model: &Model, gemm: Dtype, kv: Dtype, heads: f64) -> Option<Work> {
    let Attention::Mla { q_lora, kv_lora, nope, rope, v, indexer: Some(i), .. } = &model.attention else {
        return None;
    };
    let [h, q_lora, kv_lora] = [model.hidden, *q_lora, *kv_lora].map(f64::from);
    let [nope, rope, v] = [*nope, *rope, *v].map(f64::from);
    let (ni, di) = (f64::from(i.heads), f64::from(i.head_dim));
    let weights =
        h * (q_lora + kv_lora + rope + di) + q_lora * (heads * (nope + rope) + ni * di) + h * ni + heads * v * h;
    let second = 1.0 / device.hbm_bytes_per_s;
    Some(Work::BlockDecode(Block {
        weights: weights * gemm.weight_bytes() * second,
        token_math: 2.0 * (weights + heads * kv_lora * (nope + v)) / roofline::flops(device, gemm),
        token_memory: 0.0,
        index: Some(Index { pair: 2.0 * ni * di / device.fp8_flops, kv: (di + 4.0) * second }),
        attend: Attend {
            pair: 2.0 * heads * (2.0 * kv_lora + rope) / device.bf16_flops,
            io: 0.0,
            kv: (kv_lora + rope) * if kv == Dtype::Bf16 { 2.0 } else { 1.0 } * second,
            window: f64::from(i.topk),
            sparse: true,
        },
    }))
}

/// Share of a decode layer's time that aiconfigurator counts in wide EP of trtllm, whose kernels it lets begin
/// before the ones before them end (programmatic dependent launch). Not measured: its factor.
pub const WIDE_EP_DECODE: f64 = 0.9;

/// Whether an all-gather to the experts carries quantised values there: trtllm on SM 100 exactly.
pub(crate) fn quantised_gather(framework: Framework, sm: u32) -> bool {
    framework == Framework::Trtllm && sm == 100
}

/// Seconds that a prefill layer of grouped-query attention costs there beside its kernel and GEMMs, at
/// any length: 1.1 x 4 launches of 3 us, three times that with query and key norms (Qwen3).
pub(crate) fn attention_launches(model: &Model) -> f64 {
    let norms = model.architecture.starts_with("Qwen3");
    1.1 * 4.0 * 3e-6 * if norms { 3.0 } else { 1.0 }
}

/// Bytes that an attention GPU of an AFD unit moves there to add up the results of the EP ranks.
pub(crate) fn combine_bytes(tokens: f64, hidden: f64, ep: u32, tp: u32) -> f64 {
    if ep <= 1 { 0.0 } else { f64::from(ep + 1) * tokens / f64::from(tp) * hidden * 2.0 }
}

/// Memory that published planners keep for the framework, GiB per GPU.
pub const RESERVE_GIB: f64 = 3.5;

/// Factor on the framework's reserve: SGLang's is a fifth larger.
pub(crate) fn reserve_factor(framework: Framework) -> f64 {
    if framework == Framework::Sglang { 1.2 } else { 1.0 }
}

/// Tokens that a non-AFD worker of that code is charged with in chunked prefill, whatever it carries.
pub const WORKER_TOKENS: f64 = 8192.0;

/// KV of a token and layer of sparse attention without its indexer: 576 values.
pub(crate) fn bare_latent_kv(kv_value_bytes: f64) -> f64 {
    576.0 * kv_value_bytes
}
