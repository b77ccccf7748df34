//! How the server of a row took requests in, by its public recipe: the scripts of SemiAnalysisAI/InferenceX.
//!
//! | rows | setting | script |
//! |---|---|---|
//! | SGLang on Blackwell, but GLM-5 | requests looked for every 10 decode steps, 30 from 16 users on | dsr1_fp8_b200.sh, dsr1_fp4_b200.sh, qwen3.5_fp8_b200.sh: `--scheduler-recv-interval`; glm5_fp8_b200.sh has none |
//! | the same, Qwen3.5 on B300 | every 10 | qwen3.5_fp8_b300.sh |
//! | SGLang, its budgets | 32,768 tokens; 16,384 for FP4 and on B300 | the same, dsr1_fp8_h200.sh: `--chunked-prefill-size` |
//! | TensorRT-LLM | max(8,192, users + ISL + 64) tokens; 20,000 for gpt-oss | dsr1_fp4_b200_trt.sh, gptoss_fp4_b200_trt.sh |
//! | TensorRT-LLM, Llama-3.1-70B at 1,024 in and out on fewer than 8 GPUs | prompts held for 20 steps | llama70b_fp4_b200_trt.sh: `batch_wait_timeout_iters` |
//! | vLLM before 0.14 | no step ahead | vllm#27614 |
//!
//! Limits: of aggregated rows alone; a script's later changes are not told apart.

use super::data::Raw;
use crate::spec::{Framework, Serving, catalog, servers};

/// Users from which on SGLang's scripts look less often.
const MANY: f64 = 16.0;

fn blackwell(raw: &Raw) -> bool {
    catalog::system(&raw.system).is_ok_and(|(device, _)| device.is_blackwell())
}

/// Major and minor version of an image.
fn version(raw: &Raw) -> Option<[u32; 2]> {
    let mut numbers = raw.version.split('.').map(str::parse::<u32>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(major), Ok(minor)) => Some([major, minor]),
        _ => None,
    }
}

/// `serving` with what is known of the row.
pub(crate) fn serving(raw: &Raw, users: f64, gpus: u32, serving: Serving) -> Serving {
    let ahead = servers::path_rule(raw.framework, version(raw)).map(|r| r.steps_ahead as u32);
    let serving = Serving { steps_ahead: ahead, ..serving };
    if raw.disagg || !raw.inferencex {
        return serving;
    }
    let looks = match raw.framework {
        Framework::Sglang if blackwell(raw) && !raw.model.contains("GLM") => {
            if raw.system == "b300_sxm" && raw.model.contains("Qwen") || users < MANY { 10 } else { 30 }
        }
        _ => 1,
    };
    let holds = raw.framework == Framework::Trtllm
        && raw.model.contains("Llama-3.1-70B")
        && [raw.isl, raw.osl] == [1024.0; 2]
        && gpus < 8;
    Serving { polling_steps: looks, hold_steps: if holds { 20 } else { 0 }, ..serving }
}

/// Prompt tokens of a step, where the script sets them.
pub(crate) fn budget(raw: &Raw, users: f64) -> Option<f64> {
    if raw.disagg || !raw.inferencex {
        return None;
    }
    match raw.framework {
        Framework::Sglang if raw.precision == "fp4" || raw.system == "b300_sxm" => Some(16_384.0),
        Framework::Sglang => Some(32_768.0),
        Framework::Trtllm if raw.model.contains("gpt-oss") => Some(20_000.0),
        Framework::Trtllm => Some((users + raw.isl + 64.0).max(8192.0)),
        Framework::Vllm => None,
    }
}
