//! The closed set of things a rule may ask of a plan, each with its parameters.
//!
//! Notation of a worker: attention is cut by `tp`, copied `dp` times and its prompts are cut by `cp`; experts are cut
//! among `ep` ranks and each of them by `moe_tp`; tp * dp * cp = ep * moe_tp GPUs make one of `pp` stages.
//!
//! Limit: a closed set: what no condition can say no rule can ask.

use serde::{Deserialize, Serialize};

use super::shape::Shape;
use crate::spec::plan::Side;
use crate::spec::{AfdPlan, Attention, Model};

/// How a model attends, as far as servers care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionKind {
    /// Grouped-query attention in all layers.
    Gqa,
    /// Layers that keep different things in turn: all tokens, a window, a running state (a hybrid KV cache).
    Hybrid,
    Mla,
    /// MLA with a lightning indexer.
    Dsa,
}

impl ConditionKind {
    pub(crate) fn of(model: &Model) -> ConditionKind {
        match &model.attention {
            Attention::Gqa { window: Some(_), .. } => ConditionKind::Hybrid,
            Attention::Gqa { .. } if !model.mixers.is_empty() => ConditionKind::Hybrid,
            Attention::Gqa { .. } => ConditionKind::Gqa,
            Attention::Mla { indexer: Some(_), .. } => ConditionKind::Dsa,
            Attention::Mla { .. } => ConditionKind::Mla,
            Attention::Own(_) => ConditionKind::Hybrid,
        }
    }
}

/// How attention TP of the two sides of P/D may compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    Equal,
    /// The prefill side's may not exceed the decode side's.
    PrefillAtMostDecode,
    /// One is a multiple of the other.
    Multiple,
}

/// How many pipeline stages a side of P/D may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stages {
    One,
    /// One, or as many as the prefill side.
    OneOrAsPrefill,
}

/// What a plan must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// Experts are cut among ranks (ep) or each of them (moe_tp), not both.
    ExpertsOneWay {},
    /// Attention is cut (tp) or copied (dp), not both.
    AttentionTpOrDp {},
    /// cp above 1 only with such attention, at most `most`, and `alone`: with tp = dp = 1.
    ContextParallel { attention: Vec<ConditionKind>, most: u32, alone: bool },
    /// A group of TP or MoE-TP stays inside one scale-up domain.
    TensorParallelInDomain {},
    /// P/D: attention TP of both sides, for models with such attention.
    PdTensorParallel { attention: Vec<ConditionKind>, prefill: Compare },
    /// P/D: the prefill side has one stage.
    PdPrefillStages {},
    /// P/D: stages of the decode side.
    PdDecodeStages { most: Stages },
    /// AFD: what the only server that starts units takes.
    AfdServer(AfdServer),
    /// AFD: no released server starts units.
    NoAfdServer {},
}

/// An AFD server and the units that it starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfdServer {
    /// What starts them (`vLLM 0.30.0 with afd-plugin`).
    pub server: String,
    /// HF architectures that it knows.
    pub architectures: Vec<String>,
    /// Those whose router must stand on the FFN side.
    pub router_on_ffn: Vec<String>,
    /// Micro-batches at most.
    pub microbatches: u32,
}

impl Condition {
    /// Whether a worker keeps it; conditions on other things are kept by all.
    pub(crate) fn worker(&self, s: &Shape, kind: ConditionKind, domain: u32) -> bool {
        match self {
            Condition::ExpertsOneWay {} => s.ep == 1 || s.moe_tp == 1,
            Condition::AttentionTpOrDp {} => s.tp == 1 || s.dp == 1,
            Condition::ContextParallel { attention, most, alone } => {
                let known = s.cp <= *most && attention.contains(&kind);
                s.cp == 1 || (known && (!alone || (s.tp == 1 && s.dp == 1)))
            }
            Condition::TensorParallelInDomain {} => s.tp <= domain && s.moe_tp <= domain,
            _ => true,
        }
    }

    /// Whether a prefill and a decode side keep it.
    pub(crate) fn pair(&self, prefill: &Shape, decode: &Shape, kind: ConditionKind) -> bool {
        match self {
            Condition::PdTensorParallel { attention, prefill: how } if attention.contains(&kind) => {
                let (p, d) = (prefill.tp, decode.tp);
                match how {
                    Compare::Equal => p == d,
                    Compare::PrefillAtMostDecode => p <= d,
                    Compare::Multiple => p.is_multiple_of(d) || d.is_multiple_of(p),
                }
            }
            Condition::PdPrefillStages {} => prefill.pp == 1,
            Condition::PdDecodeStages { most } => {
                decode.pp == 1 || (*most == Stages::OneOrAsPrefill && decode.pp == prefill.pp)
            }
            _ => true,
        }
    }

    /// Whether an AFD server may stand behind a unit.
    pub(crate) fn is_of_servers(&self) -> bool {
        matches!(self, Condition::AfdServer(_) | Condition::NoAfdServer {})
    }

    /// What is wrong with a worker that does not keep it.
    pub(super) fn of_worker(&self, s: &Shape) -> (&'static str, String) {
        match self {
            Condition::ExpertsOneWay {} => {
                ("moe_tp", format!("experts are cut both ways: ep={} and moe_tp={}", s.ep, s.moe_tp))
            }
            Condition::AttentionTpOrDp {} => {
                ("tp", format!("attention is cut and copied: tp={} and dp={}", s.tp, s.dp))
            }
            Condition::ContextParallel { .. } => {
                ("cp", format!("prompts are cut by cp={} with tp={} and dp={}", s.cp, s.tp, s.dp))
            }
            _ if s.tp > s.moe_tp => ("tp", format!("the group of tp={} leaves its scale-up domain", s.tp)),
            _ => ("moe_tp", format!("the group of moe_tp={} leaves its scale-up domain", s.moe_tp)),
        }
    }

    /// What is wrong with two sides of P/D that do not keep it.
    pub(super) fn of_pair(&self, prefill: &Shape, decode: &Shape) -> (&'static str, String) {
        match self {
            Condition::PdPrefillStages {} => {
                ("prefill", format!("KV cache of {} pipeline stages has no way out", prefill.pp))
            }
            Condition::PdDecodeStages { .. } => {
                let text = format!("KV cache from {} pipeline stages has no way into {}", prefill.pp, decode.pp);
                ("decode", text)
            }
            _ => {
                ("prefill", format!("KV cache of tp={} has no way into a decode side of tp={}", prefill.tp, decode.tp))
            }
        }
    }
}

impl AfdServer {
    /// What it does not take of a unit: the field, why, and what it takes.
    pub(super) fn refuses(&self, a: &AfdPlan, model: &Model) -> Option<(&'static str, String, String)> {
        let architecture = &model.architecture;
        if !self.architectures.contains(architecture) {
            let text = format!("{} does not know {architecture}", self.server);
            return Some(("", text, format!("it knows {}", self.architectures.join(", "))));
        }
        if a.attention.gpus < a.ffn.gpus {
            let text = format!("{} attention ranks for {} FFN ranks", a.attention.gpus, a.ffn.gpus);
            return Some(("attention.gpus", text, "at least as many attention GPUs as FFN GPUs".into()));
        }
        if let Some(m) = a.microbatches
            && m > self.microbatches
        {
            let text = format!("{m} micro-batches, at most {}", self.microbatches);
            return Some(("microbatches", text, format!("microbatches={}", self.microbatches)));
        }
        if a.attention_groups > 1 {
            let text = format!("{} attention groups on one FFN pool", a.attention_groups);
            return Some(("attention_groups", text, "attention_groups=1".into()));
        }
        if a.pp > 1 {
            return Some(("pp", format!("{} pipeline stages", a.pp), "pp=1".into()));
        }
        if a.router == Side::Attention && self.router_on_ffn.contains(architecture) {
            let text = format!("the router of {architecture} stands on the attention side");
            return Some(("router", text, "router='ffn'".into()));
        }
        None
    }
}
