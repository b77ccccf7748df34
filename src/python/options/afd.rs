//! What the closed forms of attention-FFN disaggregation take: a schedule of stages, the ratio of the two pools.
//!
//! Limit: types and defaults only; what a value must keep is checked where it is used.

use super::shared::Taken;
use crate::python::made::Left;

pub(super) const SCHEDULE: &[Taken] = &[
    ("layers", "int", Left::Required, "Layers of the model."),
    ("microbatches", "int", Left::Required, "Micro-batches in flight of each attention group, 1 to 64."),
    (
        "attention_groups",
        "int",
        Left::Whole(1),
        "Equal groups of attention GPUs that take turns on one FFN pool, 1 to 64. Hops of different groups share the
pool's ports for all of their time, the slowest it can be; an estimate knows what share of a hop is the ports'.",
    ),
    (
        "duplex",
        "Literal[\"full\", \"half\"]",
        Left::Text("full"),
        "Whether the two directions of the network are separate resources.",
    ),
    (
        "overlapped",
        "bool",
        Left::Flag(true),
        "Each micro-batch starts its next token as soon as its own last layer is done (the period of the steady
state); False: one step on an empty pipeline.",
    ),
];

pub(super) const PROVISION: &[Taken] = &[
    ("alpha_a", "float", Left::Required, "Attention: time per resident KV token."),
    ("beta_a", "float", Left::Required, "Attention: fixed time."),
    ("alpha_f", "float", Left::Required, "FFN: time per sequence."),
    ("beta_f", "float", Left::Required, "FFN: fixed time."),
    ("alpha_c", "float", Left::Required, "Exchange: time per sequence of one instance."),
    ("beta_c", "float", Left::Required, "Exchange: fixed time."),
    ("batch", "float", Left::Required, "Sequences per attention instance."),
    ("mu_p", "float", Left::Required, "Mean prompt in tokens."),
    ("mu_d", "float", Left::Required, "Mean answer in tokens; answers are geometric."),
    (
        "requests",
        "float | None",
        Left::None,
        "Requests per instance of a finite horizon, over which contexts start short; None: the long run.",
    ),
    ("barrier", "bool", Left::Flag(false), "Whether the instances wait for the slowest of them each layer."),
];
