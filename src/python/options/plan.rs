//! What a plan, or the estimate of one, is asked beside its price: a step of its engine, a server that starts it.
//!
//! Limit: types and defaults only; what a value must keep is checked where it is used.

use super::shared::{QUANT, SERVING, Taken};
use crate::python::made::Left;

pub(super) const STEP: &[Taken] = &[
    ("batch", "float | None", Left::None, "Sequences per attention rank; None: 1."),
    (
        "context",
        "float | None",
        Left::None,
        "Tokens in the KV cache of a decoding sequence; None: the workload's stationary mean.",
    ),
    ("new", "float | None", Left::None, "New tokens of a prefilling sequence; None: the workload's mean."),
    ("past", "float | None", Left::None, "Cached tokens of a prefilling sequence; None: the workload's mean."),
];

pub(super) const RUNNABLE: &[Taken] = &[
    ("framework", "str", Left::Required, "``\"vllm\"``, ``\"sglang\"`` or ``\"trtllm\"``."),
    ("version", "str | None", Left::None, "Of the framework; None: the one whose kernels price."),
    (
        "rules",
        "Mapping[str, Any] | None",
        Left::None,
        "A table of rules of your own; None: the shipped one (``dg.rules.table()``).",
    ),
];

pub(super) const LAUNCH: &[Taken] = &[
    ("model", "specs.Model | None", Left::None, ""),
    ("cluster", "specs.Cluster | None", Left::None, ""),
    ("workload", "specs.Workload | None", Left::None, "Sets the longest sequence; None: the model's."),
    QUANT,
    SERVING,
    ("engine", "str | None", Left::None, "What runs below Dynamo; None: ``\"vllm\"``."),
    ("force", "bool", Left::Flag(false), ""),
];
