//! Block-quantised weights are cut in whole blocks: which widths of TP and MoE-TP a format allows.
//!
//! A format that shares one scale among `block` neighbours of a row leaves a rank that gets a part of a block
//! without a scale of its own, and servers refuse to load it: `192 is not divisible by weight quantization
//! block_n = 128` (vllm#17569, vllm#48173, sglang#3345: an expert of 1,536 cut eight ways; vllm#42384 for shared experts). So what is cut,
//! intermediate / ranks, must be a multiple of [`Dtype::block`]. MXFP4 is no such format: vLLM (`gpt_oss.py`, whole
//! blocks by ceiling division) and TensorRT-LLM pad the last rank, and gpt-oss-120b (2,880 wide) is served at TP8.
//! Limits: attention projections are not looked at; heads of 64 and more make whole blocks of every published model.

use crate::error::Problems;

use super::dtype::{Dtype, Formats};
use super::limits::Check;
use super::model::Model;
use super::plan::{AfdPlan, Parallel, Plan, Slot};

impl Dtype {
    /// Neighbours along the intermediate size that must stay on one rank.
    pub(crate) fn block(self) -> u32 {
        match self {
            // DeepSeek checkpoints: `weight_block_size: [128, 128]`; `validate_fp8_block_shape` of vLLM.
            Dtype::Fp8Block => 128,
            // A scale for 16 values (ModelOpt NVFP4 `group_size: 16`).
            Dtype::Nvfp4 | Dtype::W4a16Nvfp4 => 16,
            // A scale for 32 values (Kimi-K2 `group_size: 32`).
            Dtype::Int4Wo => 32,
            // One scale a tensor or channel, none, or padded.
            Dtype::Bf16 | Dtype::Fp8 | Dtype::W4a16Mxfp4 | Dtype::W4a8Mxfp4Mxfp8 => 1,
        }
    }

    /// Whether `ranks` may share `width` weights of this format evenly, in whole blocks. One rank may always hold all.
    pub(crate) fn cuts(self, width: u32, ranks: u32) -> bool {
        ranks == 1 || u64::from(width).is_multiple_of(u64::from(ranks) * u64::from(self.block()))
    }
}

impl Plan {
    /// Cuts that break blocks of a quantised format; paths as the user writes them (`plan.decode.parallel.moe_tp`).
    /// To be read beside [`Plan::check`], which knows no formats.
    pub fn check_blocks(&self, model: &Model, formats: &Formats) -> Problems {
        let mut c = Check::under("plan");
        match self {
            Plan::Aggregated(a) => c.within("parallel", |c| worker(c, &a.parallel, model, formats)),
            Plan::Afd(a) => unit(&mut c, a, model, formats),
            Plan::Pd(p) => {
                for (name, slot) in [("prefill", &p.prefill), ("decode", &p.decode)] {
                    c.within(name, |c| match slot {
                        Slot::Workers(w) => c.within("parallel", |c| worker(c, &w.parallel, model, formats)),
                        Slot::Afd(a) => unit(c, a, model, formats),
                    });
                }
            }
        }
        c.problems
    }
}

fn worker(c: &mut Check, p: &Parallel, model: &Model, formats: &Formats) {
    if let Some(moe) = &model.moe {
        whole(c, "moe_tp", p.moe_tp, moe.intermediate, formats.moe, "of an expert");
        // Attention ranks that hold different tokens hold the shared experts whole.
        if moe.shared_intermediate > 0 && p.dp * p.cp == 1 && !model.is_dsa() {
            whole(c, "tp", p.tp, moe.shared_intermediate, formats.shared_gemm, "of the shared experts");
        }
    }
    if model.dense_layers > 0 {
        whole(c, "tp", p.tp, model.dense_intermediate, formats.dense_gemm, "of the dense FFN");
    }
}

fn unit(c: &mut Check, a: &AfdPlan, model: &Model, formats: &Formats) {
    let (width, format, what) = match &model.moe {
        Some(moe) => (moe.intermediate, formats.moe, "of an expert"),
        None => (model.dense_intermediate, formats.dense_gemm, "of the dense FFN"),
    };
    c.within("ffn", |c| whole(c, "moe_tp", a.ffn.moe_tp, width, format, what));
}

/// Widths that do not divide at all are the plan check's.
fn whole(c: &mut Check, field: &str, ranks: u32, width: u32, format: Dtype, what: &str) {
    if ranks == 0 || !width.is_multiple_of(ranks) || format.cuts(width, ranks) {
        return;
    }
    let message = format!(
        "{} columns on each rank ({width} {what} / {ranks}) are no whole blocks of {} of {}",
        width / ranks,
        format.block(),
        format.name()
    );
    let fits = (1..ranks).rev().find(|r| format.cuts(width, *r)).unwrap_or(1);
    c.wrong(field, message, format!("at most {field}={fits}"));
}
