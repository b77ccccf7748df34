"""Hypothesis strategies for specs and frames, for the tests of disagg and of what is built on it."""

from __future__ import annotations

from typing import Any

from disagg import specs
from disagg._optional import require
from disagg.frame import Frame

__all__ = ["frames", "plans", "specs_of"]

_DTYPES = ("bfloat16", "fp8", "fp8_block", "nvfp4")


def _st() -> Any:
    return require("hypothesis.strategies", extra="test")


def _counts(most: int = 4096) -> Any:
    return _st().integers(1, most)


def _maybe(strategy: Any) -> Any:
    return _st().none() | strategy


def _floats(low: float, high: float) -> Any:
    return _st().floats(low, high, allow_nan=False, allow_subnormal=False)


def _parallel() -> Any:
    n = _counts(64)
    return _st().builds(specs.Parallel, tp=n, dp=n, pp=n, cp=n, ep=_maybe(n), moe_tp=n)


def _workers() -> Any:
    n = _maybe(_counts())
    return _st().builds(specs.Workers, count=_counts(), parallel=_parallel(), batch=n, chunk_tokens=n)


def _device() -> Any:
    return _st().builds(
        specs.Device,
        name=_st().text(min_size=1, max_size=8),
        bf16_flops=_floats(1.0, 1e18),
        fp8_flops=_floats(0.0, 1e18),
        fp4_flops=_floats(0.0, 1e18),
        hbm_bytes_per_s=_floats(1.0, 1e15),
        hbm_bytes=_floats(1.0, 1e14),
        launch_s=_floats(0.0, 1e-3),
        power_w=_floats(0.0, 1e5),
        usd_per_hour=_floats(0.0, 1e5),
        sm=_st().integers(70, 200),
        source=_st().text(max_size=8),
    )


def _pool() -> Any:
    n = _counts(64)
    return _st().builds(specs.Pool, gpus=_counts(), tp=n, ep=_maybe(n), moe_tp=n, device=_maybe(_device()))


def _placement() -> Any:
    ids = _st().lists(_st().integers(0, 999), max_size=4)
    return _st().builds(specs.Placement, attention=ids, ffn=ids, prefill=ids, decode=ids)


def _afd() -> Any:
    st = _st()
    n, side = _maybe(_counts()), st.sampled_from(["attention", "ffn"])
    return st.builds(
        specs.AFD,
        attention=_pool(),
        ffn=_pool(),
        microbatches=n,
        batch=n,
        chunk_tokens=n,
        pipeline=st.sampled_from(["overlapped", "alone"]),
        duplex=st.sampled_from(["full", "half"]),
        router=side,
        shared_expert=side,
        dense=side,
        prereduce=st.booleans(),
        placement=_maybe(_placement()),
        units=_counts(),
    )


def _aggregated() -> Any:
    n = _maybe(_counts())
    return _st().builds(specs.Aggregated, parallel=_parallel(), batch=n, chunk_tokens=n, replicas=_counts())


def _pd() -> Any:
    slot = _st().one_of(_workers(), _afd())
    return _st().builds(specs.PD, prefill=slot, decode=slot)


def _distribution() -> Any:
    st = _st()
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
    st = _st()
    length = st.one_of(_counts(100_000), _floats(1.0, 1e5), _distribution())
    scope, home = st.sampled_from(["request", "shared"]), st.sampled_from(["both", "prefill", "decode"])
    sample = st.tuples(_floats(0.0, 1e5), _floats(1.0, 1e5), _floats(1.0, 1e5))
    common = {"prefix_scope": scope, "prefix_home": home, "strict_context": st.booleans()}
    return st.one_of(
        st.builds(specs.Workload, isl=length, osl=length, prefix=_maybe(length), **common),
        st.builds(specs.Workload, lengths=st.lists(sample, min_size=1, max_size=4), **common),
    )


def _cluster() -> Any:
    return _st().builds(
        specs.Cluster,
        _st().sampled_from(specs.systems()),
        gpus=_counts(),
        nic_gb_per_s=_maybe(_floats(1.0, 1000.0)),
        oversubscription=_floats(1.0, 8.0),
        device=_maybe(_device()),
    )


def _model() -> Any:
    changes = _st().fixed_dictionaries({}, optional={"max_context": _counts(), "mtp_layers": _counts(4)})
    source = _st().sampled_from(specs.models()["name"].tolist())
    return _st().tuples(source, changes).map(lambda p: specs.Model(p[0]).replace(**p[1]))


def _serving() -> Any:
    return (
        _st()
        .integers(0, 4)
        .flatmap(
            lambda mtp: _st().builds(
                specs.Serving,
                mtp=_st().just(mtp),
                acceptance=_floats(0.0, float(mtp)) if mtp else _st().none(),
                eplb_slots=_counts(),
                two_batch_overlap=_maybe(_st().booleans()),
                fused_dispatch=_st().booleans(),
                launch=_st().sampled_from([None, "graph", "measured"]),
                framework_reserve_gib=_maybe(_floats(0.0, 100.0)),
                memory_fraction=_maybe(_floats(0.01, 1.0)),
            )
        )
    )


def specs_of() -> dict[str, Any]:
    """Give a strategy for every class of spec, by its name."""
    st = _st()
    dtype = _maybe(st.sampled_from(_DTYPES))
    limit = _maybe(_floats(1e-3, 1e6))
    return {
        "Parallel": _parallel(),
        "Workers": _workers(),
        "Aggregated": _aggregated(),
        "PD": _pd(),
        "AFD": _afd(),
        "Pool": _pool(),
        "Placement": _placement(),
        "Device": _device(),
        "Cluster": _cluster(),
        "Distribution": _distribution(),
        "Workload": _workload(),
        "Model": _model(),
        "SLO": st.builds(specs.SLO, ttft_ms=limit, tpot_ms=limit, percentile=_maybe(_floats(50.0, 99.9))),
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
    return _st().one_of(_aggregated(), _pd(), _afd())


def frames() -> Any:
    """Give a strategy for frames with columns of every kind, empty ones included."""
    st = _st()
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
