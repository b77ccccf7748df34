//! How the engine serves: speculation, balance, overlap, launch mode.
//!
//! Limit: one way of serving for the whole deployment, but for what a slot of a plan says itself.

use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Problems;

use super::expert_load::ExpertLoad;
use super::json::json_methods;
use super::limits::Check;
use super::record::{choices, record};

choices! {
    /// Whether kernel times keep the launch floors they were measured with.
    Launch {
        /// CUDA graphs: an eager-mode floor in a lane is replaced by roofline + slope and tagged.
        Graph = "graph",
        /// As measured.
        Measured = "measured",
    }
}

/// How uneven the experts' load is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Imbalance {
    /// A distribution that expert rows were measured under.
    Name(ExpertLoad),
    /// Exponent of a power law between experts; 0: even between its ends.
    Exponent(f64),
    /// Load of every expert, in any unit.
    Histogram(Vec<f64>),
}

impl<'de> Deserialize<'de> for Imbalance {
    /// By its form; a wrong name is told with the known ones.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Imbalance, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Name(String),
            Exponent(f64),
            Histogram(Vec<f64>),
        }
        match Given::deserialize(from)? {
            Given::Name(name) => ExpertLoad::deserialize(StrDeserializer::new(&name)).map(Imbalance::Name),
            Given::Exponent(a) => Ok(Imbalance::Exponent(a)),
            Given::Histogram(loads) => Ok(Imbalance::Histogram(loads)),
        }
    }
}

record! {
    /// How the engine serves: speculation, balance, overlap, launch mode.
    pub struct Serving as serving {
        /// Draft tokens per step.
        pub mtp: u32 = 0,
        /// Mean accepted draft tokens per step, 0 to `mtp`. None: as `draft_acceptance` has it.
        pub acceptance: Option<f64> = None,
        /// Probability that each draft is accepted where those before it were, first draft first; the last one stands for
        /// all further ones. None: 0.7 for each (`speculation` of ``serving/defaults.json``).
        pub draft_acceptance: Option<Vec<f64>> = None,
        /// How uneven the experts' load is: a measured distribution (``"power_law_1.01"``, ``"balanced"`` ...), the
        /// exponent of a power law, or the load of every expert; None: the model's.
        pub imbalance: Option<Imbalance> = None,
        /// Redundant expert slots, filled with copies of the busiest experts; their weights are charged.
        pub eplb_slots: u32 = 0,
        /// Whether two half batches overlap compute and communication. True: wherever that is faster; False: nowhere;
        /// None: in a plan that says so, and in a search where the framework has it. The micro-batches of AFD do so anyway.
        pub two_batch_overlap: Option<bool> = None,
        /// Whether dispatch, expert GEMMs and combine are one kernel, as DeepGEMM's MegaMoE; for AFD units.
        pub fused_dispatch: bool = false,
        /// Whether the attention pool of an AFD unit runs its micro-batches on streams of their own, so that in decode the
        /// small kernels of one hide behind the attention kernel of another; their weights still take HBM.
        pub attention_streams: bool = false,
        /// ``"graph"`` or ``"measured"`` launch floors; None: graph for decode, measured for prefill.
        pub launch: Option<Launch> = None,
        /// More memory to keep free on every GPU, GiB. None: nothing in the physical profile, whose servers leave a
        /// part of the device alone anyway (`memory_fraction`); 3.5 in the published profiles, which keep that instead.
        pub framework_reserve_gib: Option<f64> = None,
        /// Share of a device's capacity that the server may fill, above 0 and at most 1, as its framework counts it:
        /// vLLM's ``gpu_memory_utilization``, SGLang's ``mem_fraction_static``, TensorRT-LLM's
        /// ``free_gpu_memory_fraction``. None: the framework's own, of the version whose kernels are used; that
        /// fraction given by hand means the same. Any other may be of any version: the one whose start takes most memory
        /// is assumed, so that vLLM at 0.93 (older versions keep graphs and a larger sampler outside) may have less room
        /// than at its default of 0.92. Physical profile only.
        pub memory_fraction: Option<f64> = None,
        /// Part of the name of the expert kernel whose rows are read (TensorRT-LLM's ``moe_config.backend``, SGLang's
        /// ``--moe-runner-backend``), such as ``"deepgemm"``; None: the one that servers of the framework are set up with
        /// for the layout. Physical profile only.
        pub expert_kernel: Option<String> = None,
        /// Versions of frameworks whose kernel tables are read first, such as ``"vllm@0.31.0"``, several with commas
        /// between; ``framework="vllm@0.31"`` of a question sets it. None: the tables of the current version, or of the
        /// newest that measured the model where that has not.
        pub kernel_versions: Option<String> = None,
        /// Prompts join every n-th step at most, where ranks of attention data parallelism wait for one another (vLLM's
        /// ``--prefill-schedule-interval``, the ADP balance of TensorRT-LLM, SGLang's prefill delayer); None: the
        /// framework's own.
        pub prefill_interval: Option<u32> = None,
        /// Steps that are scheduled before the one that takes in a request that has just come: 1 with vLLM's asynchronous
        /// scheduling and the overlap schedulers of SGLang and TensorRT-LLM, 0 without; None: the framework's own.
        pub steps_ahead: Option<u32> = None,
        /// New requests are looked for every n-th decode step (SGLang's ``--scheduler-recv-interval``).
        pub polling_steps: u32 = 1,
        /// Steps that new requests are held back until more have come (TensorRT-LLM's ``batch_wait_timeout_iters``).
        pub hold_steps: u32 = 0,
    }
}

json_methods!(Serving => "serving");

impl Serving {
    /// The frameworks and versions of `kernel_versions`.
    pub fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.kernel_versions.as_deref().unwrap_or_default().split(',').map(str::trim);
        all.filter(|e| !e.is_empty()).map(|e| e.split_once('@').unwrap_or((e, "")))
    }

    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        c.count("mtp", self.mtp, 0, 16);
        let most = f64::from(self.mtp);
        match self.acceptance {
            Some(a) if !(a >= 0.0 && a <= most) => {
                let hint =
                    if self.mtp == 0 { "set mtp as well" } else { "it counts tokens per step, all drafts together" };
                c.wrong("acceptance", format!("must be from 0 to mtp = {}, is {a}", self.mtp), hint);
            }
            _ => {}
        }
        if let Some(by_draft) = &self.draft_acceptance {
            if self.mtp == 0 {
                c.wrong("draft_acceptance", "is set where nothing drafts", "set mtp as well");
            } else if self.acceptance.is_some() {
                c.wrong(
                    "draft_acceptance",
                    "is set beside acceptance, which counts all drafts together",
                    "give one of them",
                );
            } else if by_draft.is_empty() || by_draft.len() > self.mtp as usize {
                let text = format!("has {} values for mtp = {}", by_draft.len(), self.mtp);
                c.wrong("draft_acceptance", text, "one for each draft, or fewer: the last stands for the rest");
            } else if let Some(p) = by_draft.iter().find(|p| !(0.0..=1.0).contains(*p)) {
                c.wrong("draft_acceptance", format!("{p} is no probability"), "from 0 to 1");
            }
        }
        if self.expert_kernel.as_deref().is_some_and(|k| k.trim().is_empty()) {
            c.wrong("expert_kernel", "is empty", "a part of a kernel's name, or None");
        }
        if let Some(entry) = self.versions().find(|(f, v)| f.is_empty() || v.is_empty()) {
            let text = format!("'{}@{}' names no version of a framework", entry.0, entry.1);
            c.wrong("kernel_versions", text, "such as \"vllm@0.31.0\"");
        }
        match &self.imbalance {
            Some(Imbalance::Exponent(a)) => {
                c.range("imbalance", *a, 0.0, 10.0);
            }
            Some(Imbalance::Histogram(loads)) => {
                if let Some(i) = loads.iter().position(|l| !(l.is_finite() && *l >= 0.0)) {
                    c.wrong("imbalance", format!("load {i} is {}", loads[i]), "loads are finite numbers >= 0");
                } else if loads.iter().sum::<f64>() <= 0.0 {
                    c.wrong("imbalance", "no expert has any load", "");
                }
            }
            _ => {}
        }
        c.count("eplb_slots", self.eplb_slots, 0, 65_536);
        c.range("framework_reserve_gib", self.framework_reserve_gib.unwrap_or(0.0), 0.0, 1e4);
        if let Some(f) = self.memory_fraction
            && !(f > 0.0 && f <= 1.0)
        {
            let hint = if f > 1.0 && f <= 100.0 { format!("did you mean {}?", f / 100.0) } else { String::new() };
            c.wrong("memory_fraction", format!("must be above 0 and at most 1, is {f}"), hint);
        }
        c.count_if("prefill_interval", self.prefill_interval, 1, 1000);
        c.count_if("steps_ahead", self.steps_ahead, 0, 8);
        c.count("polling_steps", self.polling_steps, 1, 1000);
        c.count("hold_steps", self.hold_steps, 0, 1000);
        c.problems
    }
}
