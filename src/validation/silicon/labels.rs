//! What a row of the silicon sample really ran, by rules, each with a name that its status shows.
//!
//! | rule | what the label says | what it is taken for |
//! |---|---|---|
//! | `tp-times-ep` | moe_tp = moe_ep = n, tp (or dp) = n*n: "tp8_ep8" read as 64 | n GPUs, ep n |
//! | `ep-times-dp` | tp = dp = n, ep = n*n: attention DP over the n GPUs of the node | dp n, ep n |
//! | `dp-from-experts` | no dp, and k times as many expert GPUs as tp | attention DP k |
//! | `dp-from-batch` | experts, no dp, concurrency = tp x batch: the batch is a rank's | attention DP tp |
//! | `zero-size` | a size of 0 | 1 |
//! | `replicas-from-batch` | concurrency = r x batch x dp | r replicas |
//! | `concurrency-from-batch` | no concurrency | batch x dp |
//! | `fp8-is-block`, `mxfp4`, `fp4-checkpoint` | a precision | the format of the checkpoint that was served |
//! | `recipe` | no worker counts | the one public recipe that fits the row (`recipes`) |
//! | `mtp-by-image` | an image that only recipes with drafts used | MTP, 3 drafts a step, 1 with attention DP |
//! | `experts-by-version` | FP8 on Blackwell by TensorRT-LLM before 1.2 | DeepGEMM, the backend of its recipes then |
//! | `per-tensor` | a checkpoint of ModelOpt in FP8 | one scale a tensor |
//! | `fraction-by-hand` | a model that the server's default memory fraction does not hold | a fraction of 0.95 |
//!
//! What no recipe is known to set is what servers do by default (`serving::defaults`).
//!
//! Not computable: `flattened-disagg` (prefill and decode GPUs added up as one tp), `no-worker-counts`,
//! `inconsistent-layout`; of rows with recipes `several-recipes`, `mtp-unknown`, `draft-depth-unknown`. MTP is labelled
//! nowhere: beside what recipes say, the changelog of SemiAnalysisAI/InferenceX (perf-changelog.yaml, #632 and #642) names
//! the image 1.2.0rc6.post3 of TensorRT-LLM for its configurations with drafts alone.
//!
//! Limit: rules by label alone; a row that fits none stays as labelled.

use super::data::{Raw, Sizes};
use super::recipes::{self, Found, Recipe};
use crate::error::Result;
use crate::spec::{Attention, Dtype, Framework, Model, Parallel, Quant, Serving, catalog};

/// Where a row runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Deployment {
    Aggregated { parallel: Parallel, replicas: u32 },
    Pd { prefill: (Parallel, u32), decode: (Parallel, u32) },
}

/// A row as it is understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Clean {
    pub deployment: Deployment,
    pub concurrency: f64,
    /// Draft tokens a step.
    pub mtp: u32,
    /// Sequences that a decode rank takes at most, where its recipe says so.
    pub max_batch: Option<f64>,
    /// Redundant expert slots.
    pub eplb_slots: u32,
    /// Kernel of the experts, where it is not the framework's newest.
    pub expert_kernel: Option<&'static str>,
    pub rules: Vec<&'static str>,
}

impl Clean {
    fn new(deployment: Deployment, concurrency: f64, rules: Vec<&'static str>) -> Clean {
        Clean { deployment, concurrency, mtp: 0, max_batch: None, eplb_slots: 0, expert_kernel: None, rules }
    }

    /// What serves it, on top of `serving`.
    pub(crate) fn serving(&self, serving: &Serving) -> Serving {
        Serving {
            mtp: self.mtp,
            eplb_slots: self.eplb_slots,
            expert_kernel: self.expert_kernel.map(str::to_string),
            ..serving.clone()
        }
    }
}

fn is_blackwell(raw: &Raw) -> bool {
    catalog::system(&raw.system).is_ok_and(|(device, _)| device.is_blackwell())
}

/// Model and formats of a row: catalogue name, the user's formats on top, and the rules applied.
pub fn model(raw: &Raw) -> Option<(&'static str, Quant, Vec<&'static str>)> {
    use Dtype::{Bf16, Fp8, Fp8Block, Nvfp4, W4a8Mxfp4Mxfp8};
    let own = Quant::default();
    let gemm = |g: Dtype| Quant { gemm: Some(g), kv: Some(Fp8), ..own };
    let fp4 = raw.precision == "fp4";
    // Labels name a precision, checkpoints a format.
    let block = if raw.gemm == "fp8" { vec!["fp8-is-block"] } else { vec![] };
    // The sample's recipes of SGLang ask for FP8 KV on Blackwell; elsewhere its server keeps its default.
    let asks_fp8 = raw.framework == Framework::Sglang && is_blackwell(raw);
    let deepseek = if asks_fp8 { Quant { kv: Some(Fp8), ..own } } else { own };
    let mla = if fp4 { vec!["fp4-checkpoint"] } else { block.clone() };
    Some(match raw.model.as_str() {
        "deepseek-ai/DeepSeek-R1" | "deepseek-ai/DeepSeek-V3" if fp4 => ("nvidia/DeepSeek-V3.1-NVFP4", own, mla),
        "deepseek-ai/DeepSeek-R1" => ("deepseek-ai/DeepSeek-R1", deepseek, mla),
        "deepseek-ai/DeepSeek-V3" => ("deepseek-ai/DeepSeek-V3", deepseek, mla),
        "nvidia/DeepSeek-R1-NVFP4" | "nvidia/DeepSeek-V3.1-NVFP4" => ("nvidia/DeepSeek-V3.1-NVFP4", own, vec![]),
        "moonshotai/Kimi-K2.5" if fp4 => ("nvidia/Kimi-K2.5-NVFP4", own, mla),
        "moonshotai/Kimi-K2.5" => ("moonshotai/Kimi-K2.5", own, vec![]),
        "MiniMaxAI/MiniMax-M2.5" if fp4 => ("nvidia/MiniMax-M2.5-NVFP4", own, mla),
        "MiniMaxAI/MiniMax-M2.5" => ("MiniMaxAI/MiniMax-M2.5", own, block),
        "Qwen/Qwen3-235B-A22B-FP8" => ("Qwen/Qwen3-235B-A22B-FP8", own, block),
        "Qwen/Qwen3.5-397B-A17B" if fp4 => ("nvidia/Qwen3.5-397B-A17B-NVFP4", own, mla),
        // Its FP8 checkpoint has blocks of 128 x 128.
        "Qwen/Qwen3.5-397B-A17B" if raw.precision == "fp8" => {
            let blocks = Quant { gemm: Some(Fp8Block), moe: Some(Fp8Block), ..own };
            ("Qwen/Qwen3.5-397B-A17B", blocks, block)
        }
        "Qwen/Qwen3.5-397B-A17B" => ("Qwen/Qwen3.5-397B-A17B", own, vec![]),
        "zhipuai/GLM-5" if fp4 => ("nvidia/GLM-5-NVFP4", own, mla),
        // Every recipe of it for SGLang asks for FP8 KV (SemiAnalysisAI/InferenceX#2272).
        "zhipuai/GLM-5" => ("zai-org/GLM-5-FP8", Quant { kv: Some(Fp8), ..own }, block),
        "openai/gpt-oss-120b" => {
            // The sample's recipes of vLLM set VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1 on Blackwell.
            let asks = raw.framework == Framework::Vllm && is_blackwell(raw);
            ("openai/gpt-oss-120b", Quant { moe: asks.then_some(W4a8Mxfp4Mxfp8), ..own }, vec!["mxfp4"])
        }
        "Qwen/Qwen3-32B" if fp4 => ("Qwen/Qwen3-32B", gemm(Nvfp4), vec![]),
        "Qwen/Qwen3-32B" if raw.precision == "fp8" => ("Qwen/Qwen3-32B-FP8", own, block),
        "Qwen/Qwen3-32B" => ("Qwen/Qwen3-32B", own, vec![]),
        "nvidia/Qwen3-32B-NVFP4" => ("Qwen/Qwen3-32B", gemm(Nvfp4), vec![]),
        "meta-llama/Llama-3.1-70B" if fp4 => ("meta-llama/Meta-Llama-3.1-70B", gemm(Nvfp4), vec![]),
        "meta-llama/Llama-3.1-70B" => ("meta-llama/Meta-Llama-3.1-70B", gemm(Fp8), vec![]),
        "meta-llama/Llama-3.1-8B-Instruct" | "nvidia/Llama-3.1-8B-Instruct-FP8" => {
            // ModelOpt writes one scale a tensor, whatever the label says.
            let modelopt = raw.model.starts_with("nvidia/");
            let format = match (raw.precision.as_str(), raw.gemm.as_str()) {
                ("fp8", "fp8_block") if !modelopt => Fp8Block,
                ("fp8", _) => Fp8,
                _ => Bf16,
            };
            (LLAMA_8B, Quant { gemm: Some(format), ..own }, if modelopt { vec!["per-tensor"] } else { vec![] })
        }
        _ => return None,
    })
}

/// Not in the catalogue, but the same architecture as its 70B sibling.
const LLAMA_8B: &str = "meta-llama/Llama-3.1-8B-Instruct";

/// The model behind a name of [`model`].
pub fn resolve(name: &str) -> Result<Model> {
    if name != LLAMA_8B {
        return catalog::model(name);
    }
    let mut m = catalog::model("meta-llama/Meta-Llama-3.1-70B")?;
    m.name = LLAMA_8B.into();
    m.source = "config.json of huggingface.co/meta-llama/Llama-3.1-8B-Instruct".into();
    (m.layers, m.dense_layers, m.hidden, m.dense_intermediate) = (32, 32, 4096, 14336);
    m.attention = Attention::gqa(32, 8, 128, None);
    Ok(m)
}

/// Sizes of one worker; `dense`: a model without experts, whose expert sizes mean nothing.
pub fn layout(s: &Sizes, dense: bool, rules: &mut Vec<&'static str>) -> std::result::Result<Parallel, &'static str> {
    let all = [s.tp, s.pp, s.dp, s.moe_tp, s.moe_ep];
    if !dense && all.contains(&Some(0)) || dense && [s.tp, s.pp, s.dp].contains(&Some(0)) {
        rules.push("zero-size");
    }
    let [tp, pp, dp, moe_tp, ep] = all.map(|v| v.unwrap_or(1).max(1));
    let plain = Parallel { tp, dp, pp, cp: 1, ep: Some(ep), moe_tp };
    if dense {
        return if dp == 1 { Ok(Parallel { ep: None, moe_tp: 1, ..plain }) } else { Err("inconsistent-layout") };
    }
    if s.dp.is_some() && moe_tp == ep && ep > 1 && tp * dp == ep * ep && (tp == 1 || dp == 1) {
        rules.push("tp-times-ep");
        let (tp, dp) = if tp > 1 { (ep, 1) } else { (1, ep) };
        return Ok(Parallel { tp, dp, moe_tp: 1, ..plain });
    }
    if tp == dp && tp > 1 && moe_tp == 1 && ep == tp * tp {
        rules.push("ep-times-dp");
        return Ok(Parallel { tp: 1, dp, ep: Some(dp), ..plain });
    }
    if s.dp.is_none() && moe_tp * ep > tp && (moe_tp * ep).is_multiple_of(tp) {
        rules.push("dp-from-experts");
        return Ok(Parallel { dp: moe_tp * ep / tp, ..plain });
    }
    if moe_tp * ep == tp * dp { Ok(plain) } else { Err("inconsistent-layout") }
}

/// GPUs of one scale-up node; a tp beyond it is a sum over workers.
const WIDEST_TP: u32 = 16;

/// Image of TensorRT-LLM that recipes with drafts used, and no other.
const DRAFTS: &str = "1.2.0rc6.post3";

/// Version as numbers: 1.2.0rc6.post2 is [1, 2].
fn version(text: &str) -> Option<[u32; 2]> {
    let mut parts = text.split('.').map(|p| p.parse::<u32>().ok());
    Some([parts.next()??, parts.next()??])
}

/// A row as its one recipe has it.
fn by_recipe(raw: &Raw, recipe: &Recipe, experts: u32) -> std::result::Result<Clean, &'static str> {
    let deployment = Deployment::Pd { prefill: recipe.prefill, decode: recipe.decode };
    let concurrency = raw.concurrency.ok_or("no-concurrency")?;
    let mtp = recipe.mtp.ok_or("draft-depth-unknown")?;
    let own = Clean::new(deployment, concurrency, vec!["recipe"]);
    Ok(Clean { mtp, max_batch: recipe.max_batch, eplb_slots: recipe.slots.saturating_sub(experts), ..own })
}

/// What a row ran, or why that cannot be told. `experts` of a layer; 0: a dense model.
pub fn clean(raw: &Raw, experts: u32) -> std::result::Result<Clean, &'static str> {
    let recipe = if raw.disagg { recipes::of(&raw.id) } else { None };
    let unlabelled = raw.disagg && (raw.prefill_workers.is_none() || raw.decode_workers.is_none());
    match recipe {
        Some(Found::One(recipe)) => return by_recipe(raw, recipe, experts),
        Some(Found::Unclear(why)) if unlabelled => return Err(why),
        _ => {}
    }
    let mut clean = by_label(raw, experts == 0)?;
    let Deployment::Aggregated { parallel, .. } = &clean.deployment else { return Ok(clean) };
    if raw.framework == Framework::Trtllm && raw.model.contains("DeepSeek") && raw.version == DRAFTS {
        clean.mtp = if parallel.dp > 1 { 1 } else { 3 };
        clean.rules.push("mtp-by-image");
    }
    // Rows of late 2025 name no version; the configurations then ran 1.1.0rc2.post2 or older.
    let old = version(&raw.version).map_or(raw.measured.as_str() < "2026", |v| v < [1, 2]);
    if raw.framework == Framework::Trtllm && is_blackwell(raw) && raw.precision == "fp8" && old && experts > 0 {
        clean.expert_kernel = Some("deepgemm");
        clean.rules.push("experts-by-version");
    }
    Ok(clean)
}

/// What its label says, set right by the rules above.
fn by_label(raw: &Raw, dense: bool) -> std::result::Result<Clean, &'static str> {
    let mut rules = Vec::new();
    if raw.disagg {
        let (Some(np), Some(nd)) = (raw.prefill_workers, raw.decode_workers) else {
            return Err("no-worker-counts");
        };
        let prefill = layout(&raw.prefill, dense, &mut rules)?;
        let decode = layout(&raw.decode, dense, &mut rules)?;
        if prefill.tp > WIDEST_TP || decode.tp > WIDEST_TP {
            return Err("inconsistent-layout");
        }
        let concurrency = raw.concurrency.ok_or("no-concurrency")?;
        rules.dedup();
        let deployment = Deployment::Pd { prefill: (prefill, np), decode: (decode, nd) };
        return Ok(Clean::new(deployment, concurrency, rules));
    }
    let s = &raw.sizes;
    if !dense && s.tp == s.moe_tp && s.moe_ep == Some(1) && s.tp.is_some_and(|tp| tp > 8) {
        return Err("flattened-disagg");
    }
    let mut parallel = layout(s, dense, &mut rules)?;
    let labelled_dp = f64::from(s.dp.unwrap_or(1).max(1));
    let (concurrency, replicas) = match (raw.concurrency, raw.batch) {
        (Some(c), Some(b)) => {
            let ratio = c / (b * labelled_dp);
            if !dense && s.dp.is_none() && parallel.tp > 1 && parallel.dp == 1 && ratio == f64::from(parallel.tp) {
                rules.push("dp-from-batch");
                (parallel.dp, parallel.tp) = (parallel.tp, 1);
            }
            let replicas = if ratio >= 2.0 && ratio.fract() == 0.0 && parallel.dp == 1 { ratio as u32 } else { 1 };
            (c, replicas)
        }
        (Some(c), None) => (c, 1),
        (None, Some(b)) => {
            rules.push("concurrency-from-batch");
            (b * labelled_dp, 1)
        }
        (None, None) => return Err("no-concurrency"),
    };
    if replicas > 1 {
        rules.push("replicas-from-batch");
    }
    Ok(Clean::new(Deployment::Aggregated { parallel, replicas }, concurrency, rules))
}
