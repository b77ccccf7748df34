//! The published end-to-end figures of this section, each with where it comes from, how its layout
//! maps onto one worker, and what had to be assumed because the source does not say.
//!
//! Predictions are the engine's own; where the source names `two_batch_overlap` the step overlaps two
//! halves, and its operator time stands in the note. Load distribution: `balanced` where the
//! source balanced the experts by force or ran EPLB with redundant experts (on SGLang's 96 H100 the
//! forced balance is 18 % above live EPLB in prefill); `None`, the model's own, where neither ran.
//!
//! How these descriptions came about: a first pass priced every figure without overlap, at the
//! model's own load distribution and with uncoordinated ranks, and 5 of 21 were within 25 %. Balance
//! and `lockstep` were then taken from the sources, with the errors in sight; kernels were mended in
//! between: 14. Since then steps overlap where their source says so, which moved figures that were low
//! past their targets. The count the tests pin is no blind test.
//!
//! Limit: figures found by reading, without error bars of their own.

use crate::spec::{Dtype, ExpertLoad, Framework, Parallel, Quant};

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Task {
    /// Prompt tokens per second: `sequences` prompts of `new` tokens per attention rank and step.
    Prefill { sequences: f64, new: f64 },
    /// Output tokens per second: `batch` sequences per attention rank at `context`.
    Decode { batch: f64, context: f64 },
    /// Milliseconds between tokens at that batch.
    Tpot { batch: f64, context: f64 },
    /// Closed loop of `concurrency` requests on one aggregated worker.
    Closed { concurrency: f64, isl: f64, osl: f64, chunk: f64, metric: Metric },
}

/// Which number of a closed loop is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    TokensPerGpu,
    TpotMs,
    TtftMs,
}

/// One published figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub source: &'static str,
    pub system: &'static str,
    pub model: &'static str,
    pub framework: Framework,
    pub quant: Quant,
    /// Per direction; none: the preset's.
    pub nvlink_bytes_per_s: Option<f64>,
    pub imbalance: Option<ExpertLoad>,
    pub two_batch_overlap: bool,
    /// Draft tokens, and how many of them are accepted on average.
    pub mtp: (u32, f64),
    pub parallel: Parallel,
    pub task: Task,
    /// Whether fixed lengths and one start keep the attention ranks in phase.
    pub lockstep: bool,
    /// GPUs that `target` is stated for (8: a node).
    pub per_gpus: f64,
    pub target: f64,
    /// Whether the source states the whole layout; false: part of it is assumed (see `note`).
    pub stated: bool,
    pub note: &'static str,
}

const AS_CHECKPOINT: Quant = Quant { gemm: None, moe: None, attention: None, kv: None, comm: None };
const BF16_KV: Quant = Quant { kv: Some(Dtype::Bf16), ..AS_CHECKPOINT };
/// FP8 KV and attention arithmetic, experts and their payload NVFP4, the rest as the checkpoint.
const FP8_ATTENTION_NVFP4_MOE: Quant =
    Quant { moe: Some(Dtype::Nvfp4), attention: Some(Dtype::Fp8), kv: Some(Dtype::Fp8), ..AS_CHECKPOINT };

/// Attention-DP and EP over `n` GPUs.
const fn wide(n: u32) -> Parallel {
    Parallel { tp: 1, dp: n, pp: 1, cp: 1, ep: None, moe_tp: 1 }
}

const DEEPSEEK_PROFILE: &str = "github.com/deepseek-ai/profile-data, github.com/alibaba/InferSim";
const LMSYS_H100: &str = "lmsys.org/blog/2025-05-05-large-scale-ep";
const LMSYS_K2: &str = "lmsys.org/blog/2025-07-20-k2-large-scale-ep";
const LMSYS_GB200_1: &str = "lmsys.org/blog/2025-06-16-gb200-part-1";
const LMSYS_GB200_2: &str = "lmsys.org/blog/2025-09-25-gb200-part-2";
const VLLM_WIDE_EP: &str = "blog.vllm.ai/2025/12/17/large-scale-serving.html";
const VLLM_GB300: &str = "blog.vllm.ai/2026/02/13/gb300-deepseek.html";
const TRTLLM_BLOG15: &str = "TensorRT-LLM docs/source/blogs/tech_blog/blog15";

/// EPLB with redundant experts, as the nearest load distribution that has rows.
const EPLB: Option<ExpertLoad> = Some(ExpertLoad::Balanced);

const BASE: Figure = Figure {
    name: "",
    source: "",
    system: "h100_sxm",
    model: "deepseek-ai/DeepSeek-V3",
    framework: Framework::Sglang,
    quant: BF16_KV,
    nvlink_bytes_per_s: None,
    imbalance: None,
    two_batch_overlap: false,
    mtp: (0, 0.0),
    parallel: wide(32),
    task: Task::Decode { batch: 1.0, context: 1.0 },
    lockstep: false,
    per_gpus: 1.0,
    target: 0.0,
    stated: true,
    note: "",
};

/// H800: an H100 with NVLink cut to 200 GB/s a direction (160 in use), the same NIC.
const H800: Figure = Figure {
    source: DEEPSEEK_PROFILE,
    nvlink_bytes_per_s: Some(200e9),
    imbalance: Some(ExpertLoad::Balanced),
    two_batch_overlap: true,
    ..BASE
};
const SGLANG_H100: Figure =
    Figure { source: LMSYS_H100, per_gpus: 8.0, imbalance: EPLB, two_batch_overlap: true, ..BASE };
const H100_PREFILL: Figure = Figure {
    note: "16,384 tokens a GPU and step (chunked-prefill-size 524,288 over 32 ranks); live traffic with EPLB",
    ..SGLANG_H100
};
/// Its page names EPLB and redundant experts, no overlap of batches.
const KIMI: Figure = Figure {
    source: LMSYS_K2,
    system: "h200_sxm",
    model: "moonshotai/Kimi-K2-Instruct",
    per_gpus: 8.0,
    imbalance: EPLB,
    ..BASE
};
const GB200: Figure = Figure { source: LMSYS_GB200_2, system: "gb200", imbalance: EPLB, parallel: wide(48), ..BASE };
const V32_NODE: Figure = Figure {
    source: TRTLLM_BLOG15,
    system: "b200_sxm",
    model: "nvidia/DeepSeek-V3.2-NVFP4",
    framework: Framework::Trtllm,
    quant: AS_CHECKPOINT,
    mtp: (1, 0.85),
    parallel: wide(8),
    lockstep: true,
    note: "the log prints 8.416 requests/s of 120.3 s each: 1,013 in flight, 127 a rank, not the 256 of its command line; \
           acceptance 0.85 assumed (DeepSeek-V3 report: 85-90 % of the second token); max_num_tokens 8,576; \
           equal lengths from one start: the ranks prefill in phase, and TTFT is mostly the wait of the first wave",
    ..BASE
};
const V32_LOOP: (f64, f64, f64, f64) = (1013.0, 8192.0, 1024.0, 8576.0);

const fn v32(metric: Metric) -> Task {
    Task::Closed { concurrency: V32_LOOP.0, isl: V32_LOOP.1, osl: V32_LOOP.2, chunk: V32_LOOP.3, metric }
}

/// Every figure, in the order of the evidence list.
pub const FIGURES: &[Figure] = &[
    Figure {
        name: "deepseek-h800-prefill",
        task: Task::Prefill { sequences: 4.0, new: 4096.0 },
        target: 7839.0,
        note: "EP32, 16K tokens a GPU, experts balanced by force, two micro-batches overlapped",
        ..H800
    },
    Figure {
        name: "deepseek-h800-decode",
        parallel: wide(128),
        task: Task::Decode { batch: 128.0, context: 4096.0 },
        target: 2324.0,
        note: "EP128, experts balanced by force, two micro-batches overlapped",
        ..H800
    },
    Figure {
        name: "sglang-h100-prefill-1k",
        task: Task::Prefill { sequences: 16.0, new: 1024.0 },
        target: 57674.0,
        ..H100_PREFILL
    },
    Figure {
        name: "sglang-h100-prefill-2k",
        task: Task::Prefill { sequences: 8.0, new: 2048.0 },
        target: 54543.0,
        ..H100_PREFILL
    },
    Figure {
        name: "sglang-h100-prefill-4k",
        task: Task::Prefill { sequences: 4.0, new: 4096.0 },
        target: 50302.0,
        ..H100_PREFILL
    },
    Figure {
        name: "sglang-h100-prefill-4k-balanced",
        task: Task::Prefill { sequences: 4.0, new: 4096.0 },
        target: 59337.0,
        note: "the same with experts balanced by force",
        ..SGLANG_H100
    },
    Figure {
        name: "sglang-h100-decode",
        parallel: wide(72),
        task: Task::Decode { batch: 256.0, context: 2000.0 },
        target: 22282.0,
        note: "EP72, 32 redundant experts (288 slots, 4 a GPU)",
        ..SGLANG_H100
    },
    Figure {
        name: "kimi-k2-h200-prefill",
        task: Task::Prefill { sequences: 8.0, new: 2000.0 },
        target: 56000.0,
        stated: false,
        note: "4 nodes, 224k tokens/s; one instance of EP32 and 16,000 tokens a GPU and step assumed",
        ..KIMI
    },
    Figure {
        name: "kimi-k2-h200-decode",
        parallel: wide(96),
        task: Task::Decode { batch: 480.0, context: 2050.0 },
        target: 24000.0,
        note: "12 nodes, batch 480 a GPU, 2,000 in and 100 out (context 2,050), 96 redundant experts",
        ..KIMI
    },
    Figure {
        name: "gb200-decode-7583",
        source: LMSYS_GB200_1,
        task: Task::Decode { batch: 768.0, context: 2050.0 },
        target: 7583.0,
        stated: false,
        note: "48 GPUs, 2,000 tokens in; FP8 experts, BF16 attention; batch 768 a GPU assumed",
        ..GB200
    },
    Figure {
        name: "gb200-prefill-26156",
        quant: FP8_ATTENTION_NVFP4_MOE,
        parallel: wide(4),
        task: Task::Prefill { sequences: 8.0, new: 2000.0 },
        target: 26156.0,
        stated: false,
        note: "4 GPUs an instance; FP8 attention, NVFP4 experts; 16,000 tokens a GPU and step assumed",
        ..GB200
    },
    Figure {
        name: "gb200-decode-13386",
        quant: FP8_ATTENTION_NVFP4_MOE,
        task: Task::Decode { batch: 1408.0, context: 2050.0 },
        target: 13386.0,
        note: "48 GPUs, batch 1,408 a GPU; FP8 attention, NVFP4 experts",
        ..GB200
    },
    Figure {
        name: "gb200-prefill-18471",
        parallel: wide(8),
        task: Task::Prefill { sequences: 8.0, new: 2000.0 },
        target: 18471.0,
        stated: false,
        note: "BF16 attention, FP8 experts, which four GPUs cannot hold: 8 GPUs and 16,000 tokens a GPU assumed",
        ..GB200
    },
    Figure {
        name: "gb200-decode-9087",
        task: Task::Decode { batch: 768.0, context: 2050.0 },
        target: 9087.0,
        stated: false,
        note: "48 GPUs, BF16 attention, FP8 experts; batch 768 a GPU assumed (BF16 KV of 1,408 does not fit)",
        ..GB200
    },
    Figure {
        name: "vllm-h200-wide-ep",
        source: VLLM_WIDE_EP,
        system: "h200_sxm",
        framework: Framework::Vllm,
        task: Task::Decode { batch: 256.0, context: 2048.0 },
        target: 2200.0,
        stated: false,
        two_batch_overlap: true,
        note: "dual-batch overlap; the source gives neither layout nor lengths: EP32, batch 256 a GPU, context 2,048 assumed",
        ..BASE
    },
    Figure { name: "v32-b200-8k1k-throughput", task: v32(Metric::TokensPerGpu), target: 1077.3, ..V32_NODE },
    Figure { name: "v32-b200-8k1k-tpot", task: v32(Metric::TpotMs), target: 98.5, ..V32_NODE },
    Figure { name: "v32-b200-8k1k-ttft", task: v32(Metric::TtftMs), target: 19_537.8, ..V32_NODE },
    Figure {
        name: "v32-b200-min-tpot",
        mtp: (3, 1.3),
        parallel: Parallel { tp: 4, dp: 1, pp: 1, cp: 1, ep: Some(1), moe_tp: 4 },
        task: Task::Tpot { batch: 1.0, context: 8192.0 + 512.0 },
        target: 3.23,
        note: "TP4, batch 1, MTP3; 1.3 accepted drafts a step assumed (blog 2: MTP3 is 2.16x faster at batch 1 on R1)",
        ..V32_NODE
    },
    Figure {
        name: "v32-gb300-prefill",
        source: VLLM_GB300,
        system: "gb300",
        framework: Framework::Vllm,
        mtp: (0, 0.0),
        parallel: Parallel { tp: 2, dp: 1, pp: 1, cp: 1, ep: Some(1), moe_tp: 2 },
        task: Task::Prefill { sequences: 4.0, new: 2048.0 },
        target: 7360.0,
        stated: false,
        note: "TP2, prefill only; 2,048-token prompts and a budget of 8,192 tokens assumed",
        ..V32_NODE
    },
    Figure {
        name: "r1-gb300-prefill",
        source: VLLM_GB300,
        system: "gb300",
        model: "nvidia/DeepSeek-V3.1-NVFP4",
        framework: Framework::Vllm,
        mtp: (0, 0.0),
        parallel: wide(2),
        task: Task::Prefill { sequences: 4.0, new: 2048.0 },
        target: 22476.0,
        stated: false,
        note: "DeepSeek-R1 NVFP4, two GPUs, EP2, prompts of 2K; DP2 and a budget of 8,192 tokens a rank assumed",
        ..V32_NODE
    },
];
