//! What a config that reads well may still have wrong: bytes against those of the files beside it, and a name that
//! speaks of a number format that the config does not.
//!
//! `model.safetensors.index.json` says how many bytes the checkpoint has. Ours are those of the language model in the
//! checkpoint's formats, with the layers of MTP where the index names them. Limits: a vision tower is counted by its width
//! and depth, as a plain transformer.

use serde_json::{Map, Value};

use crate::spec::dtype::{Dtype, Quant};
use crate::spec::model::Model;

/// Share by which bytes may differ: biases, scales and small layers are left out of ours.
const APART: f64 = 0.03;

/// Words of a name that speak of a format.
const FORMATS: &[&str] = &["nvfp4", "mxfp4", "fp4", "fp8", "awq", "gptq", "int4", "int8", "w4a16", "w8a8", "w4a8"];

impl Model {
    /// Everything that may be wrong with a model read from `config`; `index`: the checkpoint's own list of files.
    pub fn remarks(&self, config: &Value, index: Option<&Value>) -> Vec<String> {
        let mut all = Vec::new();
        let lower = self.name.to_lowercase();
        let plain = self.quant.gemm == Some(Dtype::Bf16) && self.quant.moe == Some(Dtype::Bf16);
        let whole = self.weight_bytes(&Quant::default());
        if let Some(word) = FORMATS.iter().find(|w| lower.contains(*w)).filter(|_| plain) {
            all.push(format!(
                "the name {} speaks of {word} and the config has no quantization_config: its weights are taken as BF16, \
                 {:.1} GB; hf_quant_config.json beside it would say",
                self.name,
                whole / 1e9
            ));
        }
        let Some(theirs) = index.and_then(|i| i.get("metadata")?.get("total_size")?.as_f64()) else { return all };
        let names = index.and_then(|i| i.get("weight_map")).and_then(Value::as_object);
        let ours = whole + self.mtp_bytes(names) + vision_bytes(config);
        if (ours - theirs).abs() > APART * theirs {
            all.push(format!(
                "model.safetensors.index.json has {:.2} GB of weights, {} as it is read {:.2} GB ({:+.1} %)",
                theirs / 1e9,
                self.name,
                ours / 1e9,
                100.0 * (ours / theirs - 1.0)
            ));
        }
        all
    }

    /// Bytes of the layers of MTP that the index names; without names, none.
    fn mtp_bytes(&self, names: Option<&Map<String, Value>>) -> f64 {
        let (Some(names), true) = (names, self.mtp_layers > 0) else { return 0.0 };
        let behind = |n: &String| {
            let number = n.split_once("layers.").and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok());
            n.contains("mtp") || number.is_some_and(|l| l >= self.layers)
        };
        if !names.keys().any(behind) {
            return 0.0;
        }
        // DeepSeek's modules have an embedding and a head of their own beside the layer.
        let own = |word: &str| names.keys().any(|n| behind(n) && n.contains(word));
        let tables = f64::from(u32::from(own("embed_tokens")) + u32::from(own("shared_head.head")));
        f64::from(self.mtp_layers) * (self.mtp_layer_weight_bytes(&Quant::default()) + tables * self.embedding_bytes())
    }
}

/// A vision tower in BF16.
fn vision_bytes(config: &Value) -> f64 {
    let Some(v) = config.get("vision_config") else { return 0.0 };
    let number = |names: &[&str]| names.iter().find_map(|n| v.get(*n)?.as_f64());
    let width = number(&["hidden_size", "embed_dim", "vt_hidden_size"]).unwrap_or(0.0);
    let depth = number(&["num_hidden_layers", "depth", "vt_num_hidden_layers"]).unwrap_or(0.0);
    let inner = number(&["intermediate_size", "vt_intermediate_size"]).unwrap_or(4.0 * width);
    depth * (4.0 * width * width + 2.0 * width * inner) * Dtype::Bf16.weight_bytes()
}
