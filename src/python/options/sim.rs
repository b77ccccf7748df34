//! What the questions that replay requests take: a trace simulated, a table of requests read, a device fitted to a log.
//!
//! Limit: types and defaults only; what a value must keep is checked where it is used.

use super::shared::{ASSUMPTIONS, FRAMEWORK, FRAMEWORKS, QUANT, SERVING, SHOWN, Taken};
use crate::python::made::Left;

const SCHEDULER: Taken = (
    "scheduler",
    "str",
    Left::Text("chunked-prefill"),
    "``\"chunked-prefill\"``, ``\"prefill-first\"``, ``\"sglang\"`` or ``\"static\"``.",
);

/// Beside `REPLAY`.
pub(super) const SIMULATE: &[Taken] = &[
    ("stop_s", "float | None", Left::None, "Stop here; what is in the system then is ``\"unfinished\"``."),
    (
        "seed",
        "int | Sequence[int]",
        Left::Whole(0),
        "Of the router's draws; the same seed gives the same bits. With a list of traces: one, or one each.",
    ),
];

pub(super) const REPLAY: &[Taken] = &[
    FRAMEWORK,
    FRAMEWORKS,
    QUANT,
    SERVING,
    ASSUMPTIONS,
    ("timing", "specs.Fixed | None", Left::None, "Fixed step times in place of the engine's, for oracles."),
    SCHEDULER,
    (
        "router",
        "str",
        Left::Text("least-loaded"),
        "``\"least-loaded\"``, ``\"round-robin\"``, ``\"prefix-aware\"``, ``\"power-of-two\"`` or ``\"session-sticky\"``.",
    ),
    ("prefix_cache", "bool", Left::Flag(true), "Whether named prompt blocks are reused."),
    (
        "kv_blocks",
        "int | None",
        Left::None,
        "KV blocks of 16 tokens per attention rank; None: what the memory holds.",
    ),
    (
        "preemption",
        "str",
        Left::Text("recompute"),
        "What becomes of a sequence whose KV has to go: ``\"recompute\"`` or ``\"swap\"`` (to the host and back).",
    ),
    (
        "kv_admission",
        "str",
        Left::Text("prompt"),
        "When a prompt takes its KV blocks: ``\"prompt\"`` (all when it is let in) or ``\"chunk\"`` (piece by piece as it is
computed, as vLLM allocates: more are let in, and who came last gives way where blocks run out; what comes to
decode by wire, or is computed again there, takes its place whole).",
    ),
    (
        "cache_ttl_s",
        "float | None",
        Left::None,
        "Idle cached blocks are forgotten after so many seconds; None: only when room is needed (LRU).",
    ),
    (
        "shared_tier",
        "Mapping[str, float] | None",
        Left::None,
        "A cache behind all instances: ``{\"tokens\": 50_000_000, \"gb_per_s\": 25}``.",
    ),
    SHOWN,
];

pub(super) const CALIBRATE: &[Taken] = &[
    ("model", "specs.Model", Left::Required, ""),
    (
        "cluster",
        "specs.Cluster",
        Left::Required,
        "Its device is where the fit starts; memory capacity, power and price are kept.",
    ),
    (
        "plan",
        "specs.Aggregated | specs.PD | specs.AFD",
        Left::Required,
        "What the server ran: ``plan.batch`` is the most sequences at a time (vLLM ``max_num_seqs``),
``plan.chunk_tokens`` the token budget (``max_num_batched_tokens``).",
    ),
    (
        "first",
        "int | None",
        Left::None,
        "Fit the latencies of so many requests, by arrival, and keep those of the others out; None: all.",
    ),
    FRAMEWORK,
    FRAMEWORKS,
    QUANT,
    SERVING,
    ASSUMPTIONS,
    SCHEDULER,
    (
        "kv_blocks",
        "int | None",
        Left::None,
        "KV blocks of 16 tokens per attention rank that the server reported: memory is not fitted; None: what it holds.",
    ),
    SHOWN,
];

pub(super) const COLUMNS: &[Taken] = &[
    (
        "arrival",
        "str | None",
        Left::None,
        "Column of arrivals: dates with or without UTC offsets, epochs, or numbers from 0. None, here and below: the
column that public traces and servers call so.",
    ),
    ("isl", "str | None", Left::None, "Column of whole prompts (cached tokens included), in tokens."),
    ("osl", "str | None", Left::None, "Column of answers, in tokens."),
    ("prefix", "str | None", Left::None, "Column of cached tokens at the front of the prompt."),
    ("session", "str | None", Left::None, "Column of conversations, numbers or text."),
    (
        "unit",
        "Literal[\"s\", \"ms\", \"us\", \"ns\"] | None",
        Left::None,
        "Unit of arrivals that are numbers; None: by the column's name, else an epoch by its size, else seconds.",
    ),
    (
        "block_tokens",
        "int | None",
        Left::None,
        "Tokens of a named prompt block (``hash_ids``); None: by the numbers of names.",
    ),
    ("on_error", "Literal[\"raise\", \"skip\"]", Left::Text("raise"), ""),
];
