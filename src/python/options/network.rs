//! What the questions about communication take: a collective, an exchange of experts, a hop between pools, KV on its way.
//!
//! Limit: types and defaults only; what a value must keep is checked where it is used.

use super::shared::{FRAMEWORKS, NAMES, Taken};
use crate::python::made::Left;

pub(super) const COLLECTIVE: &[Taken] = &[
    ("ranks", "int", Left::Required, "GPUs that take part."),
    ("bytes", "float", Left::Required, "The full buffer of one rank, as nccl-tests count."),
    ("dtype", "str", Left::Text("bfloat16"), "What is summed; only ``\"bfloat16\"`` was measured."),
    ("placement", "Sequence[int] | None", Left::None, "GPU ids; None: packed from the start of a domain."),
    ("framework", NAMES, Left::None, "Whose all-reduce stands beside NCCL's; None: the first that has tables."),
    FRAMEWORKS,
];

pub(super) const TRANSFER: &[Taken] = &[
    ("bytes", "float", Left::Required, "KV of the request."),
    (
        "prefill_tp",
        "int",
        Left::Whole(1),
        "GPUs that hold it before: slices travel between min(prefill_tp, decode_tp) pairs.",
    ),
    ("decode_tp", "int", Left::Whole(1), "GPUs that hold it after."),
    ("same_domain", "bool", Left::Flag(false), "Whether both sides sit in one scale-up domain."),
    (
        "layers",
        "int | None",
        Left::None,
        "None: in bulk, after prefill. A number: layer by layer beside prefill, and what counts is what the
computation does not hide, `(layers - 1) max(0, t - compute) + t`.",
    ),
    ("compute_ms", "float", Left::Number(0.0), "Prefill time of one layer."),
];

/// Of the routing of a model.
const HIDDEN: Taken = ("hidden", "int", Left::Required, "Width of a token's vector.");
const TOPK: Taken = ("topk", "int", Left::Required, "Experts of a token.");
const EXPERTS: Taken = ("experts", "int", Left::Required, "Routed experts of a layer.");
const GROUPS: Taken = ("groups", "int", Left::Whole(0), "Group-limited routing (DeepSeek-V3: 8 and 4); 0: none.");
const TOPK_GROUPS: Taken = ("topk_groups", "int", Left::Whole(0), "Groups of a token, where there are any.");

pub(super) const EXCHANGE: &[Taken] = &[
    (
        "tokens",
        "float",
        Left::Required,
        "Tokens per source GPU (of a combine: per GPU that they come back to); uniform routing unless `load` or
`exponent` says otherwise.",
    ),
    HIDDEN,
    TOPK,
    EXPERTS,
    ("ranks", "int", Left::Required, "GPUs of the group."),
    (
        "dtype",
        "str",
        Left::Text("fp8"),
        "Payload of the dispatch: ``\"fp8\"`` (with scales), ``\"bfloat16\"`` or ``\"nvfp4\"``. Of a combine it picks the
kernel; what comes back is BF16.",
    ),
    (
        "backend",
        "str | None",
        Left::None,
        "``\"low-latency\"`` (no deduplication), ``\"normal\"`` (one copy a node), ``\"one-sided\"`` (one copy a
GPU, one rack); None: the fastest that takes so many tokens.",
    ),
    GROUPS,
    TOPK_GROUPS,
    (
        "load",
        "Sequence[float] | None",
        Left::None,
        "A histogram: one load an expert, in the order in which they lie on the ranks.",
    ),
    ("exponent", "float | None", Left::None, "Instead of it: loads i^-exponent, dealt to the ranks in turn."),
    ("framework", NAMES, Left::None, "Whose kernels; None: the first that has tables."),
    FRAMEWORKS,
];

pub(super) const HOP: &[Taken] = &[
    ("tokens", "float", Left::Required, "Tokens per attention rank (of `tp` GPUs) and micro-batch."),
    HIDDEN,
    TOPK,
    EXPERTS,
    ("senders", "int", Left::Required, "GPUs that send: of A2F attention GPUs, of F2A FFN GPUs."),
    ("receivers", "int", Left::Required, "GPUs that receive: of A2F FFN GPUs, of F2A attention GPUs."),
    ("tp", "int", Left::Whole(1), "GPUs of an attention rank, each with 1/tp of the vector."),
    ("ep", "int | None", Left::None, "Expert groups of the FFN pool; None: as many as fit."),
    ("moe_tp", "int", Left::Whole(1), "GPUs of an expert group."),
    (
        "dtype",
        "str",
        Left::Text("fp8"),
        "Payload of A2F: ``\"fp8\"`` (with scales), ``\"bfloat16\"`` or ``\"nvfp4\"``. What comes back is BF16.",
    ),
    GROUPS,
    TOPK_GROUPS,
    (
        "placement",
        "specs.Placement | None",
        Left::None,
        "GPU ids of both pools; None: packed, attention first, from the start of a domain.",
    ),
    (
        "alpha_scale",
        "float",
        Left::Number(1.0),
        "Scales the start-up, which no public measurement covers: look at 0.5 and 2.",
    ),
];
