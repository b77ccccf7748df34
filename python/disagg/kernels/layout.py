"""What a directory of kernel measurements looks like, and which of its tables the pack takes.

Layout (that of the wheel ``aiconfigurator-core``, Apache-2.0, and of any user's own measurements)::

    <root>/<system>/<family>/<framework>/<version>/<table>_perf.parquet

A column is a *measure* if its name says so (``latency``, ``*_us``, ...); a few describe the file
and not the row (``framework``, ``version``, ``device``); every other column is a *key*.
"""

from __future__ import annotations

import re

PACK_VERSION = 1
SUFFIX = "_perf.parquet"

SYSTEMS = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300")

#: Columns that repeat the path or describe the run. The version inside a file is sometimes that of
#: an older run that was carried over, so the directory's is the one that counts.
DESCRIPTIVE = frozenset({"framework", "version", "device"})

_MEASURE = re.compile(r"^(latency|avg_ms|power|power_limit|.+_(us|ms|gbps))$")


def is_measure(column: str) -> bool:
    """Whether a column of that name holds a measured number rather than part of the key."""
    return _MEASURE.match(column) is not None


def ignored(table: str) -> frozenset[str]:
    """Key columns that do not matter.

    An attention module is fixed by architecture, dtypes, heads and lengths; ``model`` and
    ``tp_size`` only say which run of the collector asked for it.
    """
    if table.startswith("dsa_") or "mla_context" in table or "mla_generation" in table or table.endswith("_mla"):
        return frozenset({"model", "tp_size"})
    # Models of one architecture differ in width there, so the model counts.
    return frozenset({"tp_size"}) if table.startswith(("dsv4_", "msa_")) else frozenset()


_BLOCK = ("model", "kv_cache_dtype", "gemm_type", "num_heads", "batch_size")
_RUNNING = ("kernel_source", "phase", "batch_size", "seq_len", "num_k_heads", "num_v_heads")

#: Key columns without which a known table cannot be read.
REQUIRED = {
    "gemm": ("gemm_dtype", "m", "n", "k"),
    "context_attention": (
        "batch_size",
        "isl",
        "num_heads",
        "num_key_value_heads",
        "head_dim",
        "window_size",
        "attn_dtype",
        "kv_cache_dtype",
    ),
    "generation_attention": (
        "batch_size",
        "step",
        "num_heads",
        "num_key_value_heads",
        "head_dim",
        "window_size",
        "kv_cache_dtype",
    ),
    "moe": (
        "moe_dtype",
        "num_tokens",
        "hidden_size",
        "inter_size",
        "topk",
        "num_experts",
        "moe_tp_size",
        "moe_ep_size",
        "distribution",
    ),
    "dsa_context_module": ("architecture", "kv_cache_dtype", "gemm_type", "num_heads", "batch_size", "isl", "step"),
    "dsa_generation_module": ("architecture", "kv_cache_dtype", "gemm_type", "num_heads", "batch_size", "step"),
    **{
        f"{kind}_{phase}_module": (*_BLOCK, "isl", "step") if phase == "context" else (*_BLOCK, "step")
        for kind in ("dsv4_csa", "dsv4_hca", "msa")
        for phase in ("context", "generation")
    },
    "gdn": _RUNNING,
    "kda": _RUNNING,
    "nccl": ("op_name", "nccl_dtype", "num_gpus", "message_size"),
    "custom_allreduce": ("allreduce_dtype", "num_gpus", "message_size"),
}

#: Rows are sorted by their keys; the first of these that varies is sorted last, which puts
#: neighbours on the smoothest axis next to each other and compresses best.
LAST_AXIS = ("m", "num_tokens", "num_token", "message_size", "step", "isl")

_CURRENT = {"trtllm": "1.3.0rc20", "sglang": "0.5.14", "vllm": "0.24.0"}

#: family -> tables taken from each framework's current version.
_CURRENT_TABLES = {
    "gemm": ("gemm",),
    "attention": ("context_attention", "generation_attention"),
    "mla": ("context_mla", "generation_mla", "mla_context_module", "mla_generation_module"),
    "mla_bmm": ("mla_bmm",),
    "sparse_attention": ("dsa_context_module", "dsa_generation_module"),
    "moe": ("moe",),
    "comm": ("custom_allreduce", "moe_a2a"),
    "quantize": ("computescale", "scale_matrix"),
    "mhc": ("mhc_module",),
    "linear_attention": ("gdn",),
}

_COMPRESSED = tuple(f"dsv4_{kind}_{phase}_module" for kind in ("csa", "hca") for phase in ("context", "generation"))
_BLOCKS = ("msa_context_module", "msa_generation_module")

#: (family, framework, version) -> tables of families that were measured once, whatever the version.
_ONCE = {
    ("sparse_attention", "sglang", "0.5.14"): _COMPRESSED,
    ("sparse_attention", "vllm", "0.24.0"): _COMPRESSED,
    ("sparse_attention", "trtllm", "1.3.0rc23"): _COMPRESSED,
    ("kda", "sglang", "0.5.16"): ("kda",),
    ("kda", "vllm", "0.1.dev19262"): ("kda",),
    ("msa", "sglang", "0.5.16"): _BLOCKS,
    ("msa", "vllm", "0.24.0"): _BLOCKS,
    ("msa", "trtllm", "1.3.0rc23"): _BLOCKS,
}

#: (framework, version) -> families of which the tables of `_CURRENT_TABLES`, `_COMPRESSED` and `_BLOCKS` are taken
#: beside those of the current version.
_NEWER = {
    ("vllm", "0.25.0"): (
        "gemm",
        "attention",
        "mla",
        "mla_bmm",
        "sparse_attention",
        "moe",
        "mhc",
        "linear_attention",
        "msa",
    ),
    ("vllm", "0.27.1"): ("gemm", "moe", "linear_attention"),
    ("vllm", "0.31.0"): ("gemm", "moe", "kda", "mhc", "comm"),
    ("sglang", "0.5.17"): ("gemm", "moe", "linear_attention"),
    ("sglang", "0.5.20"): ("gemm", "moe", "kda", "mhc", "comm"),
}

#: (family, framework, version, table): tables that only an older version holds.
_OLDER = frozenset(
    {
        ("comm", "sglang", "0.5.6.post2", "wideep_deepep_ll"),
        ("comm", "sglang", "0.5.6.post2", "wideep_deepep_normal"),
        ("comm", "sglang", "0.5.12", "wideep_deepep_ll"),
        ("comm", "sglang", "0.5.12", "wideep_deepep_normal"),
        ("comm", "trtllm", "1.3.0rc10", "trtllm_alltoall"),
        ("comm", "trtllm", "1.3.0rc11", "moe_a2a"),
        ("mla", "sglang", "0.5.10", "wideep_context_mla"),
        ("mla", "sglang", "0.5.10", "wideep_generation_mla"),
        ("moe", "sglang", "0.5.10", "wideep_context_moe"),
        ("moe", "sglang", "0.5.10", "wideep_generation_moe"),
        ("moe", "trtllm", "1.3.0rc10", "wideep_moe"),
    }
)


#: Tables that a later wheel added to a version that answers by itself, or that would answer in place of those that laws
#: of communication were fitted to: what rests on these was held against servers without them.
_LATER = frozenset({("mla", "sglang", "0.5.14", "mla_context_module"), ("comm", "nccl", "2.30.7", "nccl")})


def in_pack(system: str, family: str, framework: str, version: str, table: str) -> bool:
    """Whether the shipped pack takes this table."""
    if system not in SYSTEMS or (family, framework, version, table) in _LATER:
        return False
    if (family, framework, version, table) in _OLDER or table in _ONCE.get((family, framework, version), ()):
        return True
    if family in _NEWER.get((framework, version), ()):
        return table in (*_CURRENT_TABLES.get(family, ()), *_COMPRESSED, *_BLOCKS, "kda")
    if family == "comm" and framework == "nccl":
        return table == "nccl"
    return _CURRENT.get(framework) == version and table in _CURRENT_TABLES.get(family, ())
