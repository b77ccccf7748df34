"""Hypothesis strategies for specs and frames, for the tests."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from disagg import _core, specs
from disagg.frame import Frame

__all__ = ["frames", "plans", "specs_of"]

_DTYPES = ("bfloat16", "fp8", "fp8_block", "nvfp4")


def _counts(most: int = 4096) -> Any:
    return st.integers(1, most)


def _maybe(strategy: Any) -> Any:
    return st.none() | strategy


def _floats(low: float, high: float) -> Any:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


# Least and largest value of the fields that are numbers, where it is not a count.
_RANGES = {
    "bf16_flops": (1.0, 1e18),
    "fp8_flops": (0.0, 1e18),
    "fp4_flops": (0.0, 1e18),
    "hbm_bytes_per_s": (1.0, 1e15),
    "hbm_bytes": (1.0, 1e14),
    "launch_s": (0.0, 1e-3),
    "log_tpot_error": (0.0, 10.0),
    "log_ttft_error": (0.0, 10.0),
    "power_w": (0.0, 1e5),
    "usd_per_hour": (0.0, 1e5),
    "ttft_ms": (1e-3, 1e6),
    "tpot_ms": (1e-3, 1e6),
    "percentile": (50.0, 99.9),
}
_COUNTS = {"sm": (70, 200), **dict.fromkeys(("tp", "dp", "pp", "cp", "ep", "moe_tp"), (1, 64))}


def _declared(kind: str) -> Any:
    """Give a strategy for a class whose constructor takes its fields, from their declarations."""
    arguments = next(taken for name, _, taken in _core._fields() if name == kind)
    return st.builds(getattr(specs, kind), **{name: _value(name, takes) for name, takes, _, _ in arguments})


def _value(name: str, takes: str) -> Any:
    """Give a strategy for a field of a type as the core calls it."""
    if takes.endswith(" | None"):
        return _maybe(_value(name, takes.removesuffix(" | None")))
    if takes.startswith("specs."):
        return st.one_of(*(_declared(kind.removeprefix("specs.")) for kind in takes.split(" | ")))
    if takes.startswith("Literal["):
        return st.sampled_from(json.loads(takes.removeprefix("Literal")))
    plain = {
        "int": lambda: st.integers(*_COUNTS.get(name, (1, 4096))),
        "float": lambda: _floats(*_RANGES[name]),
        "bool": st.booleans,
        "str": lambda: st.text(min_size=1, max_size=8),
        "Sequence[int]": lambda: st.lists(st.integers(0, 999), max_size=4),
    }
    return plain[takes]()


def _distribution() -> Any:
    rising = st.lists(_floats(1.0, 1e6), min_size=2, max_size=6).map(sorted)
    return st.one_of(
        st.builds(specs.Distribution.fixed, _floats(1.0, 1e6)),
        st.tuples(_floats(1.0, 1e6), _floats(1.0, 1e6)).map(lambda p: specs.Distribution.uniform(*sorted(p))),
        st.builds(specs.Distribution.geometric, mean=_floats(1.0, 1e6)),
        st.tuples(_floats(1.0, 1e6), _floats(1.1, 2.0)).map(
            lambda p: specs.Distribution.lognormal(mean=p[0], p90=p[0] * p[1])
        ),
        rising.map(specs.Distribution.quantiles),
    )


def _workload() -> Any:
    length = st.one_of(_counts(100_000), _floats(1.0, 1e5), _distribution())
    scope, home = st.sampled_from(["request", "shared"]), st.sampled_from(["both", "prefill", "decode"])
    sample = st.tuples(_floats(0.0, 1e5), _floats(1.0, 1e5), _floats(1.0, 1e5))
    common = {"prefix_scope": scope, "prefix_home": home, "strict_context": st.booleans()}
    return st.one_of(
        st.builds(specs.Workload, isl=length, osl=length, prefix=_maybe(length), **common),
        st.builds(specs.Workload, lengths=st.lists(sample, min_size=1, max_size=4), **common),
    )


def _cluster() -> Any:
    return st.builds(
        specs.Cluster,
        st.sampled_from(specs.systems()),
        gpus=_counts(),
        nic_gb_per_s=_maybe(_floats(1.0, 1000.0)),
        oversubscription=_floats(1.0, 8.0),
        device=_maybe(_declared("Device")),
    )


def _model() -> Any:
    changes = st.fixed_dictionaries({}, optional={"max_context": _counts(), "mtp_layers": _counts(4)})
    source = st.sampled_from(specs.models()["name"].tolist())
    return st.tuples(source, changes).map(lambda p: specs.Model(p[0]).replace(**p[1]))


def _serving() -> Any:
    def of(mtp: int) -> Any:
        return st.builds(
            specs.Serving,
            mtp=st.just(mtp),
            acceptance=_floats(0.0, float(mtp)) if mtp else st.none(),
            eplb_slots=_counts(),
            two_batch_overlap=_maybe(st.booleans()),
            fused_dispatch=st.booleans(),
            launch=st.sampled_from([None, "graph", "measured"]),
            framework_reserve_gib=_maybe(_floats(0.0, 100.0)),
            memory_fraction=_maybe(_floats(0.01, 1.0)),
        )

    return st.integers(0, 4).flatmap(of)


def specs_of() -> dict[str, Any]:
    """Give a strategy for every class of spec, by its name."""
    dtype = _maybe(st.sampled_from(_DTYPES))
    declared = ("Parallel", "Workers", "Aggregated", "PD", "AFD", "Pool", "Placement", "Device", "SLO")
    return {
        **{kind: _declared(kind) for kind in declared},
        "Cluster": _cluster(),
        "Distribution": _distribution(),
        "Workload": _workload(),
        "Model": _model(),
        "Quant": st.builds(
            specs.Quant, gemm=dtype, moe=dtype, comm=dtype, kv=_maybe(st.sampled_from(["bfloat16", "fp8"]))
        ),
        "Serving": _serving(),
        "Assumptions": st.builds(
            specs.Assumptions,
            st.just("physical"),
            kv_transfer=st.sampled_from(["bulk", "layer-wise"]),
            attention_barrier=st.booleans(),
            kv_contention=st.booleans(),
            afd_alpha_scale=_floats(0.0, 100.0),
            dispatch_alpha_scale=_floats(0.0, 100.0),
        ),
    }


def plans() -> Any:
    """Give a strategy for plans of any level (well formed; whether one fits a model is another question)."""
    return st.one_of(*(_declared(kind) for kind in ("Aggregated", "PD", "AFD")))


def frames() -> Any:
    """Give a strategy for frames with columns of every kind, empty ones included."""
    kinds = st.sampled_from(["float", "int", "bool", "text"])

    def column(kind: str, rows: int) -> Any:
        element = {
            "float": st.floats(),
            "int": st.integers(-(2**62), 2**62),
            "bool": st.booleans(),
            "text": st.none() | st.text(max_size=5),
        }[kind]
        return st.lists(element, min_size=rows, max_size=rows)

    def build(shape: tuple[int, list[str]]) -> Any:
        rows, columns = shape
        return st.fixed_dictionaries({f"c{i}": column(k, rows) for i, k in enumerate(columns)}).map(Frame)

    return st.tuples(st.integers(0, 6), st.lists(kinds, max_size=5)).flatmap(build)
