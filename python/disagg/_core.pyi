# Written by tests/stub.py from what the core says of itself; a change of the binding is followed by
# `python tests/stub.py --write`.
from collections.abc import Callable, Mapping, Sequence
from inspect import Signature
from os import PathLike
from typing import Any, Literal, Required, Self, TypeAlias, TypedDict, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from disagg import specs

__all__ = [
    "AFD",
    "PD",
    "SLO",
    "Aggregated",
    "Assumptions",
    "Case",
    "Cluster",
    "DesignSpace",
    "Device",
    "Distribution",
    "Engine",
    "Exploration",
    "Fabric",
    "Model",
    "Parallel",
    "Placement",
    "Pool",
    "Priced",
    "Quant",
    "Regimes",
    "Search",
    "Serving",
    "Spec",
    "Study",
    "Trace",
    "Workers",
    "Workload",
    "_fields",
    "_frame",
    "_options",
    "_spin",
    "_told",
    "afd_provision",
    "afd_schedule",
    "calibrate",
    "check_plan",
    "compare",
    "design_metrics",
    "distribution_facts",
    "explain",
    "frontier",
    "goodput_curve",
    "judge",
    "kernels_at",
    "kernels_damaged",
    "kernels_frame",
    "kernels_frameworks",
    "kernels_identity",
    "kernels_import",
    "kernels_known",
    "kernels_lookup",
    "kernels_origin",
    "kernels_report",
    "kernels_suspects",
    "kernels_systems",
    "kernels_table",
    "kernels_tables",
    "kernels_versions",
    "launch",
    "mean_interval",
    "model_facts",
    "near",
    "network_flows",
    "network_phase",
    "num_threads",
    "perfetto",
    "plan_facts",
    "plan_verdict",
    "plan_words",
    "preset_device",
    "preset_devices",
    "preset_fabric",
    "preset_models",
    "preset_systems",
    "preset_workload",
    "preset_workloads",
    "rules_table",
    "sensitivity",
    "set_num_threads",
    "simulate",
    "switches",
    "validation_report",
    "validation_run",
    "validation_sections",
    "verdict",
    "versions",
    "workload_facts",
]

_Report: TypeAlias = Callable[[int, int], object] | None
_Payload: TypeAlias = tuple[dict[str, Any], dict[str, str]]
_Floats: TypeAlias = npt.NDArray[np.float64]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Bools: TypeAlias = npt.NDArray[np.bool_]
_Format: TypeAlias = Literal[
    "bfloat16",
    "fp8",
    "fp8_block",
    "nvfp4",
    "int4_wo",
    "w4a16_mxfp4",
    "w4a8_mxfp4_mxfp8",
    "w4a16_nvfp4",
]

class _Estimate(TypedDict, total=False):
    framework: str | Sequence[str] | None
    frameworks: str | Sequence[str] | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    assumptions: specs.Assumptions | None
    load: float | None

class _Explore(TypedDict, total=False):
    levels: str | Sequence[str]
    frameworks: str | Sequence[str] | None
    framework: str | Sequence[str] | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    assumptions: specs.Assumptions | None
    objective: str
    arrivals: str
    runnable: bool
    confidence: float | None
    confirm: bool
    executor: Any
    progress: bool | Callable[[int, int], object] | None

class _Regimes(TypedDict, total=False):
    slo: Required[specs.SLO | Sequence[specs.SLO]]
    isl: float | specs.Distribution | Sequence[float | specs.Distribution]
    osl: float | specs.Distribution | Sequence[float | specs.Distribution]
    prefix: float | specs.Distribution | Sequence[float | specs.Distribution]
    workloads: specs.Workload | Sequence[specs.Workload] | None
    levels: str | Sequence[str]
    frameworks: str | Sequence[str] | None
    framework: str | Sequence[str] | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    assumptions: specs.Assumptions | None
    tolerance: float
    batches_per_octave: int
    arrivals: str
    runnable: bool
    executor: Any
    partial: bool
    progress: bool | Callable[[int, int], object] | None

class _Sweep(TypedDict, total=False):
    metrics: Sequence[str]
    runnable: bool
    executor: Any
    checkpoint: str | PathLike[str] | None
    partial: bool
    progress: bool | Callable[[int, int], object] | None

class _Optimize(TypedDict, total=False):
    objective: Required[str]
    constraints: Sequence[str]
    runnable: bool
    method: Literal["exact", "optuna"]
    simulate: Any
    seed: int
    trials: int
    partial: bool
    progress: bool | Callable[[int, int], object] | None

class _Sensitivity(TypedDict, total=False):
    parameters: Sequence[str] | None
    step: float

class _Audit(TypedDict, total=False):
    method: str
    order: Sequence[str]
    orders: int | None
    seed: int
    batches_per_octave: int | None
    progress: bool | Callable[[int, int], object] | None

class _Step(TypedDict, total=False):
    batch: float | None
    context: float | None
    new: float | None
    past: float | None

class _Runnable(TypedDict, total=False):
    framework: Required[str]
    version: str | None
    rules: Mapping[str, Any] | None

class _Launch(TypedDict, total=False):
    model: specs.Model | None
    cluster: specs.Cluster | None
    workload: specs.Workload | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    engine: str | None
    force: bool

class _Simulate(TypedDict, total=False):
    stop_s: float | None
    seed: int | Sequence[int]
    framework: str | Sequence[str] | None
    frameworks: str | Sequence[str] | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    assumptions: specs.Assumptions | None
    timing: specs.Fixed | None
    scheduler: str
    router: str
    prefix_cache: bool
    kv_blocks: int | None
    preemption: str
    kv_admission: str
    cache_ttl_s: float | None
    shared_tier: Mapping[str, float] | None
    progress: bool | Callable[[int, int], object] | None

class _Replay(TypedDict, total=False):
    framework: str | Sequence[str] | None
    frameworks: str | Sequence[str] | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    assumptions: specs.Assumptions | None
    timing: specs.Fixed | None
    scheduler: str
    router: str
    prefix_cache: bool
    kv_blocks: int | None
    preemption: str
    kv_admission: str
    cache_ttl_s: float | None
    shared_tier: Mapping[str, float] | None
    progress: bool | Callable[[int, int], object] | None

class _Calibrate(TypedDict, total=False):
    model: Required[specs.Model]
    cluster: Required[specs.Cluster]
    plan: Required[specs.Aggregated | specs.PD | specs.AFD]
    first: int | None
    framework: str | Sequence[str] | None
    frameworks: str | Sequence[str] | None
    quant: specs.Quant | None
    serving: specs.Serving | None
    assumptions: specs.Assumptions | None
    scheduler: str
    kv_blocks: int | None
    progress: bool | Callable[[int, int], object] | None

class _Columns(TypedDict, total=False):
    arrival: str | None
    isl: str | None
    osl: str | None
    prefix: str | None
    session: str | None
    unit: Literal["s", "ms", "us", "ns"] | None
    block_tokens: int | None
    on_error: Literal["raise", "skip"]

class _Collective(TypedDict, total=False):
    ranks: Required[int]
    bytes: Required[float]
    dtype: str
    placement: Sequence[int] | None
    framework: str | Sequence[str] | None
    frameworks: str | Sequence[str] | None

class _Exchange(TypedDict, total=False):
    tokens: Required[float]
    hidden: Required[int]
    topk: Required[int]
    experts: Required[int]
    ranks: Required[int]
    dtype: str
    backend: str | None
    groups: int
    topk_groups: int
    load: Sequence[float] | None
    exponent: float | None
    framework: str | Sequence[str] | None
    frameworks: str | Sequence[str] | None

class _Hop(TypedDict, total=False):
    tokens: Required[float]
    hidden: Required[int]
    topk: Required[int]
    experts: Required[int]
    senders: Required[int]
    receivers: Required[int]
    tp: int
    ep: int | None
    moe_tp: int
    dtype: str
    groups: int
    topk_groups: int
    placement: specs.Placement | None
    alpha_scale: float

class _Transfer(TypedDict, total=False):
    bytes: Required[float]
    prefill_tp: int
    decode_tp: int
    same_domain: bool
    layers: int | None
    compute_ms: float

class _Schedule(TypedDict, total=False):
    layers: Required[int]
    microbatches: Required[int]
    attention_groups: int
    duplex: Literal["full", "half"]
    overlapped: bool

class _Provision(TypedDict, total=False):
    alpha_a: Required[float]
    beta_a: Required[float]
    alpha_f: Required[float]
    beta_f: Required[float]
    alpha_c: Required[float]
    beta_c: Required[float]
    batch: Required[float]
    mu_p: Required[float]
    mu_d: Required[float]
    requests: float | None
    barrier: bool

@final
class Case:
    def __new__(
        cls,
        model: Spec,
        cluster: Spec,
        workload: Spec,
        frameworks: str | Sequence[str] | None = None,
        quant: Spec | None = None,
        serving: Spec | None = None,
        assumptions: Spec | None = None,
    ) -> Case: ...

@final
class DesignSpace:
    def __new__(cls, text: str) -> DesignSpace: ...
    def index_of(self, choices: Sequence[int]) -> int | None: ...
    @staticmethod
    def of(question: dict[str, Any], axes: dict[str, Any], constraints: Sequence[str]) -> DesignSpace: ...
    def price(self, points: _Ints, metrics: Sequence[str], runnable: bool, progress: _Report = None) -> _Payload: ...
    def question(self, point: int) -> str: ...
    def sample(self, n: int, method: str, seed: int) -> _Ints: ...
    @property
    def size(self) -> int: ...
    def to_json(self) -> str: ...
    def values(self, points: _Ints) -> _Payload: ...

@final
class Engine:
    def __new__(cls, case: Case, plan: Spec, load: float | None = None) -> Engine: ...
    def estimate(self) -> Priced: ...
    def step(self, kind: str, batch: float, context: float, new: float, past: float) -> tuple[Any, ...]: ...

@final
class Exploration:
    def __new__(
        cls,
        case: Case,
        slo: Spec,
        levels: Sequence[str],
        objective: str = "tokens_per_s",
        arrivals: str = "closed",
        confirm: bool = True,
        runnable: bool = True,
        confidence: float | None = None,
    ) -> Exploration: ...
    def explore(self, progress: _Report = None) -> Study: ...
    @property
    def frameworks(self) -> list[str]: ...
    def join(self, parts: Sequence[bytes]) -> Study: ...
    def search(self, unit: int, progress: _Report = None) -> bytes: ...
    def units(self) -> list[str]: ...

@final
class Priced:
    def asked(self) -> dict[str, Any]: ...
    def frames(self) -> dict[str, _Payload]: ...
    def scalars(self) -> dict[str, Any]: ...

@final
class Regimes:
    def __new__(
        cls,
        case: Case,
        clusters: Sequence[Spec],
        workloads: Sequence[Spec],
        slos: Sequence[Spec],
        levels: Sequence[str],
        tolerance: float = 0.01,
        batches_per_octave: int = 2,
        arrivals: str = "closed",
        runnable: bool = True,
    ) -> Regimes: ...
    def frameworks(self) -> list[list[str]]: ...
    def search(self, partial: bool = False, progress: _Report = None) -> _Payload: ...
    def warnings(self) -> list[str]: ...

@final
class Search:
    def __new__(
        cls,
        space: DesignSpace,
        points: _Ints | None,
        objective: str,
        constraints: Sequence[str],
        runnable: bool,
        served: tuple[Trace, Spec | None, tuple[float, float, float, float] | None, str, int] | None = None,
    ) -> Search: ...
    def best(self) -> tuple[int, list[int]]: ...
    def certificate(self) -> _Payload: ...
    @property
    def complete(self) -> bool: ...
    @property
    def objective(self) -> tuple[str, bool]: ...
    def points(self) -> _Payload: ...
    def run(self, progress: _Report = None) -> None: ...
    def take(self, points: _Ints) -> _Payload: ...

@disjoint_base
class Spec:
    def _args(self) -> dict[str, Any]: ...
    def _call(self) -> tuple[str, list[tuple[str, str]]]: ...
    @property
    def _kind(self) -> str: ...
    def _repr_html_(self) -> str: ...
    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self: ...
    @classmethod
    def from_json(cls, text: str) -> Self: ...
    def replace(self, **changes: Any) -> Self: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...
    def __copy__(self) -> Spec: ...
    def __deepcopy__(self, _memo: Any) -> Spec: ...
    def __delattr__(self, name: str, /) -> None: ...
    def __eq__(self, other: object, /) -> Any: ...
    def __ge__(self, other: object, /) -> Any: ...
    def __gt__(self, other: object, /) -> Any: ...
    def __hash__(self) -> int: ...
    @classmethod
    def __init_subclass__(cls) -> None: ...
    def __le__(self, other: object, /) -> Any: ...
    def __lt__(self, other: object, /) -> Any: ...
    def __ne__(self, other: object, /) -> Any: ...
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]: ...
    def __replace__(self, **changes: Any) -> Self: ...
    def __repr__(self) -> str: ...
    def __setattr__(self, name: str, _value: Any, /) -> None: ...

@final
class Study:
    def audit(
        self,
        to: Spec,
        method: str,
        order: Sequence[str],
        orders: int | None,
        seed: int,
        batches_per_octave: int | None = None,
        progress: _Report = None,
    ) -> _Payload: ...
    def best(self, level: str) -> Priced: ...
    def flips(self) -> _Payload: ...
    def frameworks(self) -> _Payload: ...
    def lifted(self, progress: _Report = None) -> _Payload: ...
    def points(self) -> _Payload: ...
    def table(self) -> _Payload: ...
    @property
    def warnings(self) -> list[str]: ...
    def __len__(self) -> int: ...

@final
class Trace:
    @staticmethod
    def closed(workload: Spec, users: int, n: int, think_s: float, seed: int) -> Trace: ...
    def columns(self) -> _Payload: ...
    @staticmethod
    def from_json(text: str) -> Trace: ...
    def lengths(self, most: int) -> list[tuple[float, float, float]]: ...
    @property
    def notes(self) -> list[str]: ...
    @staticmethod
    def open(workload: Spec, rate: float, cv: float, n: int, seed: int) -> Trace: ...
    def prefix_hit(self, tokens: int | None = None) -> float: ...
    @staticmethod
    def read(format: str, path: str | PathLike[str], on_error: str, option: float, n: int, seed: int) -> Trace: ...
    def scale(self, rate: float) -> Trace: ...
    @staticmethod
    def servegen(path: str | PathLike[str], start_s: float, end_s: float | None, seed: int, on_error: str) -> Trace: ...
    def stats(self) -> str: ...
    @staticmethod
    def table(
        path: str | PathLike[str],
        columns: Sequence[tuple[str, Any]] | None,
        named: Sequence[str | None],
        unit: str | None,
        block_tokens: int | None,
        on_error: str,
    ) -> Trace: ...
    def to_json(self) -> str: ...
    def window(self, start_s: float, end_s: float) -> Trace: ...
    def with_priority(self, priority: Sequence[int]) -> Trace: ...
    def __len__(self) -> int: ...

class Model(Spec):
    """A language model.

    Parameters
    ----------
    source
        A preset's name (with or without its organisation), its address on a hub, the path of a Hugging Face
        ``config.json`` (or of the directory that holds it), or a dict: the content of such a file, or what
        `to_dict` gave.
    trust_fields
        Read a config whose ``model_type`` and ``architectures`` are not known by the fields that are known.
        Fields that look like structure and were not read are refused all the same.

    Raises
    ------
    SpecError
        If there is no such preset (near names are listed), the config is of no class that is known, or it does not
        describe a model that can be priced; every problem is named.
    DataError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If ``model.safetensors.index.json`` beside the config has other bytes than the model as it is read (more than
        3 % apart), or if the name speaks of a number format and the config of none.

    Examples
    --------
    >>> import disagg as dg
    >>> model = dg.Model("deepseek-ai/DeepSeek-V3.2")
    >>> model.layers, model.experts
    (61, 256)
    """

    __signature__: Signature
    def __new__(
        cls,
        source: str | PathLike[str] | dict[str, Any],
        *,
        trust_fields: bool = False,
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def vocab(self) -> int: ...
    @property
    def max_context(self) -> int: ...
    @property
    def attention(self) -> dict[str, Any]: ...
    @property
    def dense_layers(self) -> int: ...
    @property
    def dense_intermediate(self) -> int: ...
    @property
    def tied_embeddings(self) -> bool: ...
    @property
    def mtp_layers(self) -> int: ...
    @property
    def quant(self) -> specs.Quant: ...
    @property
    def source(self) -> str: ...
    @property
    def moe(self) -> dict[str, Any] | None: ...
    @property
    def expert_layers(self) -> list[bool]: ...
    @property
    def gated(self) -> bool: ...
    @property
    def mixers(self) -> list[dict[str, Any]]: ...
    @property
    def layer_mixers(self) -> list[list[int]]: ...
    @property
    def streams(self) -> int: ...
    @property
    def residual_block(self) -> int: ...
    @property
    def bf16_parts(self) -> list[str]: ...
    @property
    def part_formats(self) -> list[dict[str, Any]]: ...
    @property
    def int4_group(self) -> int: ...

class Cluster(Spec):
    """GPUs of one kind and their fabric.

    Parameters
    ----------
    system
        A system preset: its kernel tables, device and fabric are used.
    gpus
        The GPU budget.
    nic_gb_per_s
        Scale-out bandwidth per GPU and direction, GB/s (50 is 400 Gb/s); None: the preset's.
    oversubscription
        1: non-blocking; 2: half the bandwidth above the leaf.
    device, fabric
        What-if hardware in place of the preset's. A device keeps the kernel tables of `system`, its times scaled by the
        ratio of the two rooflines (evidence ``scaled``), whatever it is called; only one that goes by another
        preset's name reads that preset's tables. Estimates and studies say so in their ``warnings``. Choose the
        system whose utilisations are most alike. A fabric may be a dict of the fields that differ, with
        bandwidths as ``nvlink_gb_per_s`` and ``nic_gb_per_s`` (GB/s per GPU and direction) if you like.

    Raises
    ------
    SpecError
        If the system is unknown or a figure does not fit.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Cluster("b200_sxm", gpus=128)
    Cluster('b200_sxm', gpus=128, nic_gb_per_s=50.0, oversubscription=1.0)
    >>> pods = dg.Cluster("b200_sxm", gpus=128, fabric={"domain_gpus": 32, "nic_gb_per_s": 100})
    >>> pods.fabric.domain_gpus, pods.fabric.node_gpus, pods.nic_gb_per_s
    (32, 8, 100.0)
    """

    __signature__: Signature
    def __new__(
        cls,
        system: str,
        *,
        gpus: int,
        nic_gb_per_s: float | None = None,
        oversubscription: float = 1.0,
        device: specs.Device | None = None,
        fabric: specs.Fabric | Mapping[str, Any] | None = None,
    ) -> Self: ...
    @property
    def system(self) -> str: ...
    @property
    def gpus(self) -> int: ...
    @property
    def device(self) -> specs.Device: ...
    @property
    def fabric(self) -> specs.Fabric: ...

class Device(Spec):
    """One GPU: peaks, capacities and costs. Per GPU, SI units.

    Parameters
    ----------
    name
        What it is.
    bf16_flops
        Dense BF16 peak, FLOP/s.
    fp8_flops
        Dense FP8 peak, FLOP/s; 0: no such units.
    hbm_bytes_per_s
        Memory bandwidth, bytes/s.
    hbm_bytes
        Memory capacity, bytes.
    sm
        Compute capability (90 Hopper, 100 and 103 Blackwell); picks default kernel sources.
    fp4_flops
        Dense FP4 peak, FLOP/s; 0: no such units.
    launch_s
        Least time of one kernel launch under a CUDA graph, seconds.
    power_w
        Board power, watts.
    usd_per_hour
        Price of one GPU-hour, US dollars.
    log_tpot_error
        Fitted to the log of an aggregated server: how far its mean TPOT is off, one standard deviation of ln(measured /
        predicted); 0: not fitted. Intervals of TPOT and rate take it in place of other people's servers.
    log_ttft_error
        The same of its mean TTFT.
    source
        Where the figures come from.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Device.preset("b200_sxm").replace(hbm_bytes=288e9).hbm_bytes
    288000000000.0
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        name: str,
        bf16_flops: float,
        fp8_flops: float,
        hbm_bytes_per_s: float,
        hbm_bytes: float,
        sm: int,
        fp4_flops: float = 0.0,
        launch_s: float = 2e-06,
        power_w: float = 1000.0,
        usd_per_hour: float = 0.0,
        log_tpot_error: float = 0.0,
        log_ttft_error: float = 0.0,
        source: str = "user",
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def bf16_flops(self) -> float: ...
    @property
    def fp8_flops(self) -> float: ...
    @property
    def hbm_bytes_per_s(self) -> float: ...
    @property
    def hbm_bytes(self) -> float: ...
    @property
    def sm(self) -> int: ...
    @property
    def fp4_flops(self) -> float: ...
    @property
    def launch_s(self) -> float: ...
    @property
    def power_w(self) -> float: ...
    @property
    def usd_per_hour(self) -> float: ...
    @property
    def log_tpot_error(self) -> float: ...
    @property
    def log_ttft_error(self) -> float: ...
    @property
    def source(self) -> str: ...

class Fabric(Spec):
    """How GPUs are joined. Bandwidths per GPU and direction, bytes/s.

    Parameters
    ----------
    domain_gpus
        GPUs in one scale-up (NVLink) domain: 8 on HGX, 72 in an NVL72 rack.
    node_gpus
        GPUs in one host (8 on HGX, 4 in an NVL72 tray).
    nvlink_bytes_per_s
        Scale-up bandwidth, bytes/s.
    nic_bytes_per_s
        Scale-out bandwidth, bytes/s.
    oversubscription
        1: non-blocking; 2: half the bandwidth above the leaf.
    source
        Where the figures come from.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Fabric.preset("gb200").domain_gpus
    72
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        domain_gpus: int,
        node_gpus: int,
        nvlink_bytes_per_s: float,
        nic_bytes_per_s: float,
        oversubscription: float = 1.0,
        source: str = "user",
    ) -> Self: ...
    @property
    def domain_gpus(self) -> int: ...
    @property
    def node_gpus(self) -> int: ...
    @property
    def nvlink_bytes_per_s(self) -> float: ...
    @property
    def nic_bytes_per_s(self) -> float: ...
    @property
    def oversubscription(self) -> float: ...
    @property
    def source(self) -> str: ...

class Workload(Spec):
    """What is asked of the system. `isl` counts NEW tokens, `prefix` cached ones.

    Parameters
    ----------
    isl, osl
        New prompt tokens and output tokens: a number or a `Distribution`.
    prefix
        Cached tokens before the prompt.
    correlation
        Pearson correlation of `isl` and `osl`, both of which keep their distribution: a share of the requests has
        the two rise together (or one rise as the other falls), the rest is independent.
    lengths
        Joint samples ``(prefix, isl, osl)`` in place of the three.
    prefix_scope
        ``"request"``: private KV per sequence (an agent's session); ``"shared"``: one copy per
        attention rank (a system prompt).
    prefix_home
        Which side of a `PD` plan keeps the prefix: ``"both"``, ``"prefill"`` or ``"decode"``.
    strict_context
        Whether a sequence longer than the model's context is an error rather than a warning.
    name, source
        What it is called and where the lengths come from.

    Raises
    ------
    SpecError
        If a length does not fit, or no joint lengths have this correlation; every problem is named.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Workload(isl=512, osl=256, prefix=4096).theta
    4735.5
    >>> varied = {"isl": dg.Distribution.uniform(100, 900), "osl": dg.Distribution.geometric(mean=200)}
    >>> round(dg.Workload(**varied, correlation=0.5).theta - dg.Workload(**varied).theta)
    115
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        isl: float | specs.Distribution | None = None,
        osl: float | specs.Distribution | None = None,
        prefix: float | specs.Distribution | None = None,
        correlation: float = 0.0,
        lengths: Sequence[tuple[float, float, float]] | None = None,
        prefix_scope: Literal["request", "shared"] = "request",
        prefix_home: Literal["both", "prefill", "decode"] = "both",
        strict_context: bool = False,
        name: str = "custom",
        source: str = "user",
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def prefix(self) -> specs.Distribution: ...
    @property
    def isl(self) -> specs.Distribution: ...
    @property
    def osl(self) -> specs.Distribution: ...
    @property
    def source(self) -> str: ...
    @property
    def correlation(self) -> float: ...
    @property
    def lengths(self) -> list[tuple[float, float, float]] | None: ...
    @property
    def prefix_scope(self) -> str: ...
    @property
    def prefix_home(self) -> str: ...
    @property
    def strict_context(self) -> bool: ...

class Distribution(Spec):
    """A distribution of token counts. Built by its named constructors.

    Parameters
    ----------
    kind
        ``"fixed"``, ``"uniform"``, ``"lognormal"``, ``"quantiles"`` or ``"geometric"``.
    **values
        The values of that kind.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Distribution.uniform(100, 300).mean
    200.0
    """

    __signature__: Signature
    def __new__(
        cls,
        kind: str,
        **values: Any,
    ) -> Self: ...
    @property
    def kind(self) -> str: ...

class SLO(Spec):
    """Per-user latency limits; None means no limit.

    Parameters
    ----------
    ttft_ms
        Time to first token, milliseconds.
    tpot_ms
        Time per output token after the first, milliseconds.
    percentile
        Which percentile of requests must keep them (50 to 99.9): in the simulator and with ``arrivals="poisson"``; a
        closed loop has means alone and refuses it. None: the mean.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.SLO(ttft_ms=50, tpot_ms=15)
    SLO(ttft_ms=50.0, tpot_ms=15.0)
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        ttft_ms: float | None = None,
        tpot_ms: float | None = None,
        percentile: float | None = None,
    ) -> Self: ...
    @property
    def ttft_ms(self) -> float | None: ...
    @property
    def tpot_ms(self) -> float | None: ...
    @property
    def percentile(self) -> float | None: ...

class Quant(Spec):
    """Number formats; None means as the checkpoint says.

    Parameters
    ----------
    gemm
        Format of dense weights.
    moe
        Format of expert weights.
    attention
        Format of the attention arithmetic.
    kv
        Format of the KV cache.
    comm
        Payload of dispatch and A2F (combine and F2A go back in BF16).

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Quant(moe="nvfp4", kv="fp8")
    Quant(moe='nvfp4', kv='fp8')
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        gemm: _Format | None = None,
        moe: _Format | None = None,
        attention: _Format | None = None,
        kv: _Format | None = None,
        comm: _Format | None = None,
    ) -> Self: ...
    @property
    def gemm(self) -> str | None: ...
    @property
    def moe(self) -> str | None: ...
    @property
    def attention(self) -> str | None: ...
    @property
    def kv(self) -> str | None: ...
    @property
    def comm(self) -> str | None: ...

class Serving(Spec):
    """How the engine serves: speculation, balance, overlap, launch mode.

    Parameters
    ----------
    mtp
        Draft tokens per step.
    acceptance
        Mean accepted draft tokens per step, 0 to `mtp`. None: as `draft_acceptance` has it.
    draft_acceptance
        Probability that each draft is accepted where those before it were, first draft first; the last one stands for
        all further ones. None: 0.7 for each (`speculation` of ``serving/defaults.json``).
    imbalance
        How uneven the experts' load is: a measured distribution (``"power_law_1.01"``, ``"balanced"`` ...), the
        exponent of a power law, or the load of every expert; None: the model's.
    eplb_slots
        Redundant expert slots, filled with copies of the busiest experts; their weights are charged.
    two_batch_overlap
        Whether two half batches overlap compute and communication. True: wherever that is faster; False: nowhere;
        None: in a plan that says so, and in a search where the framework has it. The micro-batches of AFD do so anyway.
    fused_dispatch
        Whether dispatch, expert GEMMs and combine are one kernel, as DeepGEMM's MegaMoE; for AFD units.
    attention_streams
        Whether the attention pool of an AFD unit runs its micro-batches on streams of their own, so that in decode the
        small kernels of one hide behind the attention kernel of another; their weights still take HBM.
    launch
        ``"graph"`` or ``"measured"`` launch floors; None: graph for decode, measured for prefill.
    framework_reserve_gib
        More memory to keep free on every GPU, GiB. None: nothing in the physical profile, whose servers leave a
        part of the device alone anyway (`memory_fraction`); 3.5 in the published profiles, which keep that instead.
    memory_fraction
        Share of a device's capacity that the server may fill, above 0 and at most 1, as its framework counts it:
        vLLM's ``gpu_memory_utilization``, SGLang's ``mem_fraction_static``, TensorRT-LLM's
        ``free_gpu_memory_fraction``. None: the framework's own, of the version whose kernels are used; that
        fraction given by hand means the same. Any other may be of any version: the one whose start takes most memory
        is assumed, so that vLLM at 0.93 (older versions keep graphs and a larger sampler outside) may have less room
        than at its default of 0.92. Physical profile only.
    expert_kernel
        Part of the name of the expert kernel whose rows are read (TensorRT-LLM's ``moe_config.backend``, SGLang's
        ``--moe-runner-backend``), such as ``"deepgemm"``; None: the one that servers of the framework are set up with
        for the layout. Physical profile only.
    kernel_versions
        Versions of frameworks whose kernel tables are read first, such as ``"vllm@0.31.0"``, several with commas
        between; ``framework="vllm@0.31"`` of a question sets it. None: the tables of the current version, or of the
        newest that measured the model where that has not.
    prefill_interval
        Prompts join every n-th step at most, where ranks of attention data parallelism wait for one another (vLLM's
        ``--prefill-schedule-interval``, the ADP balance of TensorRT-LLM, SGLang's prefill delayer); None: the
        framework's own.
    steps_ahead
        Steps that are scheduled before the one that takes in a request that has just come: 1 with vLLM's asynchronous
        scheduling and the overlap schedulers of SGLang and TensorRT-LLM, 0 without; None: the framework's own.
    polling_steps
        New requests are looked for every n-th decode step (SGLang's ``--scheduler-recv-interval``).
    hold_steps
        Steps that new requests are held back until more have come (TensorRT-LLM's ``batch_wait_timeout_iters``).

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Serving(mtp=1, acceptance=0.8).acceptance
    0.8
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        mtp: int = 0,
        acceptance: float | None = None,
        draft_acceptance: Sequence[float] | None = None,
        imbalance: str | float | Sequence[float] | None = None,
        eplb_slots: int = 0,
        two_batch_overlap: bool | None = None,
        fused_dispatch: bool = False,
        attention_streams: bool = False,
        launch: Literal["graph", "measured"] | None = None,
        framework_reserve_gib: float | None = None,
        memory_fraction: float | None = None,
        expert_kernel: str | None = None,
        kernel_versions: str | None = None,
        prefill_interval: int | None = None,
        steps_ahead: int | None = None,
        polling_steps: int = 1,
        hold_steps: int = 0,
    ) -> Self: ...
    @property
    def mtp(self) -> int: ...
    @property
    def acceptance(self) -> float | None: ...
    @property
    def draft_acceptance(self) -> list[float] | None: ...
    @property
    def imbalance(self) -> str | float | list[float] | None: ...
    @property
    def eplb_slots(self) -> int: ...
    @property
    def two_batch_overlap(self) -> bool | None: ...
    @property
    def fused_dispatch(self) -> bool: ...
    @property
    def attention_streams(self) -> bool: ...
    @property
    def launch(self) -> str | None: ...
    @property
    def framework_reserve_gib(self) -> float | None: ...
    @property
    def memory_fraction(self) -> float | None: ...
    @property
    def expert_kernel(self) -> str | None: ...
    @property
    def kernel_versions(self) -> str | None: ...
    @property
    def prefill_interval(self) -> int | None: ...
    @property
    def steps_ahead(self) -> int | None: ...
    @property
    def polling_steps(self) -> int: ...
    @property
    def hold_steps(self) -> int: ...

class Parallel(Spec):
    """How one worker is split over GPUs.

    Parameters
    ----------
    tp
        Tensor-parallel width of attention and dense layers.
    dp
        Data-parallel attention ranks.
    pp
        Pipeline stages.
    cp
        Context-parallel ranks (prefill only).
    ep
        Expert-parallel width; None: ``tp * dp * cp / moe_tp``.
    moe_tp
        Tensor-parallel width of the experts.

    Notes
    -----
    ``tp * dp * cp == ep * moe_tp``; a worker takes ``tp * dp * cp * pp`` GPUs.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Parallel(tp=1, dp=8)
    Parallel(tp=1, dp=8, pp=1, cp=1, moe_tp=1)
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        tp: int = 1,
        dp: int = 1,
        pp: int = 1,
        cp: int = 1,
        ep: int | None = None,
        moe_tp: int = 1,
    ) -> Self: ...
    @property
    def tp(self) -> int: ...
    @property
    def dp(self) -> int: ...
    @property
    def pp(self) -> int: ...
    @property
    def cp(self) -> int: ...
    @property
    def ep(self) -> int | None: ...
    @property
    def moe_tp(self) -> int: ...

class Workers(Spec):
    """Equal workers that fill the prefill or the decode slot of a `PD` plan.

    Parameters
    ----------
    count
        Number of workers.
    parallel
        How each is split.
    batch
        Decode: sequences per attention rank. Prefill: sequences per step and attention rank. None: chosen.
    chunk_tokens
        Token budget of a prefill step; None: chosen.
    two_batch_overlap
        Whether two half batches may overlap compute and communication; None: as `Serving` says.
    device
        Hardware of these workers; None: the cluster's.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Workers(count=2, parallel=dg.Parallel(dp=8)).count
    2
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        count: int,
        parallel: specs.Parallel,
        batch: int | None = None,
        chunk_tokens: int | None = None,
        two_batch_overlap: bool | None = None,
        device: specs.Device | None = None,
    ) -> Self: ...
    @property
    def count(self) -> int: ...
    @property
    def parallel(self) -> specs.Parallel: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def chunk_tokens(self) -> int | None: ...
    @property
    def two_batch_overlap(self) -> bool | None: ...
    @property
    def device(self) -> specs.Device | None: ...

class Aggregated(Spec):
    """Chunked prefill and decode on the same GPUs.

    Parameters
    ----------
    parallel
        How each replica is split.
    batch
        Sequences per attention rank; None: chosen.
    chunk_tokens
        Token budget of a step per attention rank; None: chosen.
    replicas
        Equal copies.
    two_batch_overlap
        Whether two half batches may overlap compute and communication; None: as `Serving` says.
    prefill_interval
        Prompt tokens join every n-th step at most; None: as `Serving` says.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Aggregated(parallel=dg.Parallel(dp=8), replicas=4).replicas
    4
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        parallel: specs.Parallel,
        batch: int | None = None,
        chunk_tokens: int | None = None,
        replicas: int = 1,
        two_batch_overlap: bool | None = None,
        prefill_interval: int | None = None,
    ) -> Self: ...
    @property
    def parallel(self) -> specs.Parallel: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def chunk_tokens(self) -> int | None: ...
    @property
    def replicas(self) -> int: ...
    @property
    def two_batch_overlap(self) -> bool | None: ...
    @property
    def prefill_interval(self) -> int | None: ...

class PD(Spec):
    """Prefill and decode on different GPUs.

    Parameters
    ----------
    prefill
        What fills the prefill slot: `Workers` or `AFD`.
    decode
        What fills the decode slot: `Workers` or `AFD`.

    Examples
    --------
    >>> import disagg as dg
    >>> plan = dg.PD(
    ...     prefill=dg.Workers(count=2, parallel=dg.Parallel(dp=8)),
    ...     decode=dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=96)),
    ... )
    >>> plan.decode.attention.gpus
    16
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        prefill: specs.Workers | specs.AFD,
        decode: specs.Workers | specs.AFD,
    ) -> Self: ...
    @property
    def prefill(self) -> specs.Workers | specs.AFD: ...
    @property
    def decode(self) -> specs.Workers | specs.AFD: ...

class AFD(Spec):
    """Attention and experts on different GPUs (attention-FFN disaggregation).

    Alone it serves prefill and decode (level ``aggregated+afd``); in a slot of `PD` the slot decides.

    Parameters
    ----------
    attention
        The attention pool.
    ffn
        The FFN pool.
    microbatches
        Micro-batches in flight; None: chosen.
    batch
        Sequences per attention rank, all micro-batches together; None: chosen.
    chunk_tokens
        Token budget of a prefill step per attention rank; None: chosen.
    pipeline
        ``"overlapped"``: a micro-batch starts its next token as soon as its own last layer is done;
        ``"alone"``: every step starts on an empty pipeline.
    duplex
        ``"full"``: both directions of the fabric at once; ``"half"``: they share one resource.
    router
        Side that holds the router.
    shared_expert
        Side that holds the shared expert.
    dense
        Side that holds the FFNs of dense layers; those of a model without experts always stand on the FFN pool.
    prereduce
        Whether the FFN side adds up the experts' outputs before sending them back.
    placement
        GPU ids; None: best found. Groups, then pipeline stages, then units follow one another.
    attention_groups
        Equal groups of each attention pool's GPUs (whole attention ranks) that step on their own, each with
        ``microbatches`` of its own, and take turns on one FFN pool. The pool is kept busy by other groups while one
        computes attention, with no finer cut of a rank's batch. FFN GPUs serve, and read their weights for,
        ``attention_groups * microbatches`` micro-batches a layer.
    pp
        Pipeline stages of a unit: each has both pools (a unit has ``pp`` times their GPUs) and ``layers / pp`` layers,
        uneven splits rounded up; dense layers in the first, LM head in the last. Decode keeps a batch a stage in
        flight: `batch` is of one of them.
    units
        Equal AFD units side by side.
    prefill_interval
        Of a unit that serves prefill and decode: prompt tokens join every n-th step at most; None: as `Serving` says.

    Notes
    -----
    One layer of a step, steps overlapped, full duplex, equal micro-batches (M of them, G groups; A, X, F, Y the
    times of attention, A2F, FFN and F2A): ``max(M A, M X, M Y, G M F, G M ports, A + X + F + Y)``. A group's hops run
    on its own ports; the FFN pool's ports are shared, for as long as the bytes keep them.

    Examples
    --------
    >>> import disagg as dg
    >>> plan = dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=112), microbatches=3)
    >>> plan.ffn.gpus, plan.pipeline
    (112, 'overlapped')
    >>> dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=16), microbatches=1, attention_groups=2).attention_groups
    2
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        attention: specs.Pool,
        ffn: specs.Pool,
        microbatches: int | None = None,
        batch: int | None = None,
        chunk_tokens: int | None = None,
        pipeline: Literal["overlapped", "alone"] = "overlapped",
        duplex: Literal["full", "half"] = "full",
        router: Literal["attention", "ffn"] = "attention",
        shared_expert: Literal["attention", "ffn"] = "ffn",
        dense: Literal["attention", "ffn"] = "attention",
        prereduce: bool = False,
        placement: specs.Placement | None = None,
        attention_groups: int = 1,
        pp: int = 1,
        units: int = 1,
        prefill_interval: int | None = None,
    ) -> Self: ...
    @property
    def attention(self) -> specs.Pool: ...
    @property
    def ffn(self) -> specs.Pool: ...
    @property
    def microbatches(self) -> int | None: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def chunk_tokens(self) -> int | None: ...
    @property
    def pipeline(self) -> str: ...
    @property
    def duplex(self) -> str: ...
    @property
    def router(self) -> str: ...
    @property
    def shared_expert(self) -> str: ...
    @property
    def dense(self) -> str: ...
    @property
    def prereduce(self) -> bool: ...
    @property
    def placement(self) -> specs.Placement | None: ...
    @property
    def attention_groups(self) -> int: ...
    @property
    def pp(self) -> int: ...
    @property
    def units(self) -> int: ...
    @property
    def prefill_interval(self) -> int | None: ...

class Pool(Spec):
    """One pool of an AFD unit.

    Parameters
    ----------
    gpus
        GPUs of the pool; odd sizes are welcome.
    tp
        Attention pool: tensor-parallel width of a rank.
    ep
        FFN pool: expert-parallel width; None: as wide as the pool allows.
    moe_tp
        FFN pool: tensor-parallel width of the experts.
    device
        Hardware of this pool; None: the cluster's.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Pool(gpus=112)
    Pool(gpus=112, tp=1, moe_tp=1)
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        gpus: int,
        tp: int = 1,
        ep: int | None = None,
        moe_tp: int = 1,
        device: specs.Device | None = None,
    ) -> Self: ...
    @property
    def gpus(self) -> int: ...
    @property
    def tp(self) -> int: ...
    @property
    def ep(self) -> int | None: ...
    @property
    def moe_tp(self) -> int: ...
    @property
    def device(self) -> specs.Device | None: ...

class Placement(Spec):
    """GPU ids of each pool; empty lists are chosen.

    Parameters
    ----------
    attention
        Ids of the attention pool of an AFD unit.
    ffn
        Ids of the FFN pool of an AFD unit.
    prefill
        Ids of the prefill side of a `PD` plan.
    decode
        Ids of the decode side of a `PD` plan.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Placement(attention=[0, 1], ffn=[2, 3]).ffn
    [2, 3]
    """

    __signature__: Signature
    def __new__(
        cls,
        *,
        attention: Sequence[int] = (),
        ffn: Sequence[int] = (),
        prefill: Sequence[int] = (),
        decode: Sequence[int] = (),
    ) -> Self: ...
    @property
    def attention(self) -> list[int]: ...
    @property
    def ffn(self) -> list[int]: ...
    @property
    def prefill(self) -> list[int]: ...
    @property
    def decode(self) -> list[int]: ...

class Assumptions(Spec):
    """Modelling choices that published tools make differently, each a named switch.

    Start from a profile and replace single switches.

    Parameters
    ----------
    profile
        ``"physical"``, ``"paper"`` or ``"aiconfigurator-0.12"``.
    **switches
        Switches that differ from it; `switches` lists them all.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Assumptions.physical().replace(kv_transfer="bulk")
    Assumptions.physical().replace(kv_transfer='bulk')
    """

    __signature__: Signature
    def __new__(
        cls,
        profile: str = "physical",
        **switches: Any,
    ) -> Self: ...
    @property
    def profile(self) -> str: ...
    @property
    def launch_floors(self) -> str: ...
    @property
    def dense_layers(self) -> str: ...
    @property
    def exchange(self) -> str: ...
    @property
    def collectives(self) -> str: ...
    @property
    def gather_format(self) -> str: ...
    @property
    def lanes(self) -> str: ...
    @property
    def beyond_tables(self) -> str: ...
    @property
    def all_reduce_rows(self) -> str: ...
    @property
    def attention_elementwise(self) -> str: ...
    @property
    def shared_expert_split(self) -> str: ...
    @property
    def mixed_attention(self) -> str: ...
    @property
    def wide_attention(self) -> str: ...
    @property
    def group_routing(self) -> str: ...
    @property
    def far_exchange(self) -> str: ...
    @property
    def wide_ep_decode(self) -> str: ...
    @property
    def missing_formats(self) -> str: ...
    @property
    def listed_norms(self) -> str: ...
    @property
    def prefill_sync(self) -> str: ...
    @property
    def mixed_steps(self) -> str: ...
    @property
    def first_token_from(self) -> str: ...
    @property
    def kv_transfer(self) -> str: ...
    @property
    def kv_reserve(self) -> str: ...
    @property
    def copies(self) -> str: ...
    @property
    def afd_wire(self) -> str: ...
    @property
    def afd_reductions(self) -> bool: ...
    @property
    def ffn_pool(self) -> str: ...
    @property
    def pipeline_formula(self) -> str: ...
    @property
    def microbatch_split(self) -> str: ...
    @property
    def prefill_split(self) -> str: ...
    @property
    def sparse_attention_memory(self) -> str: ...
    @property
    def activations(self) -> str: ...
    @property
    def out_of_memory(self) -> str: ...
    @property
    def ttft_queue(self) -> str: ...
    @property
    def request_path(self) -> str: ...
    @property
    def worker_corrections(self) -> str: ...
    @property
    def shared_expert_overlap(self) -> bool: ...
    @property
    def attention_barrier(self) -> bool: ...
    @property
    def kv_contention(self) -> bool: ...
    @property
    def afd_alpha_scale(self) -> float: ...
    @property
    def dispatch_alpha_scale(self) -> float: ...

def _fields() -> list[tuple[str, list[tuple[str, str]], list[tuple[str, str, str | None, str]]]]: ...
def _frame(x: _Floats) -> _Payload: ...
def _options() -> list[tuple[str, list[tuple[str, str, bool, Any | None, str]]]]: ...
def _spin(seconds: float, progress: Any | None = None, panic: bool = False, deaf: bool = False) -> int: ...
def _told() -> dict[str, str]: ...
def afd_provision(
    alpha_a: float,
    beta_a: float,
    alpha_f: float,
    beta_f: float,
    alpha_c: float,
    beta_c: float,
    batch: float,
    mu_p: float,
    mu_d: float,
    requests: float | None = None,
    barrier: bool = False,
) -> tuple[float, float, str]: ...
def afd_schedule(
    stage_ms: Sequence[float],
    shape: Sequence[int],
    layers: int,
    microbatches: int,
    attention_groups: int,
    half_duplex: bool,
    overlapped: bool,
) -> float: ...
def calibrate(
    case: Case,
    plan: Spec,
    options: str,
    arrival_s: _Floats,
    isl: _Ints,
    osl: _Ints,
    ttft_ms: _Floats,
    tpot_ms: _Floats,
    progress: _Report = None,
) -> specs.Device: ...
def check_plan(plan: Spec, model: Spec, cluster: Spec, quant: Spec | None = None) -> None: ...
def compare(this: Any, other: Any) -> list[dict[str, Any]]: ...
def design_metrics() -> list[str]: ...
def distribution_facts(distribution: Spec, q: float) -> tuple[float, float]: ...
def explain(facts: Any, plan: str) -> str: ...
def frontier(costs: Sequence[_Floats], epsilon: float) -> tuple[_Ints, _Bools]: ...
def goodput_curve(
    engine: Engine,
    trace: Trace,
    slo: Spec,
    rates: Sequence[float],
    fixed: tuple[float, float, float, float] | None,
    options: str,
    seed: int,
    progress: _Report = None,
) -> _Payload: ...
def judge(
    ttft_ms: _Floats,
    tpot_ms: _Floats,
    e2e_ms: _Floats,
    finished: _Bools,
    window_s: float,
    lacks: float,
    slo: Spec,
) -> tuple[float, float, float, float, bool]: ...
def kernels_at(path: str | PathLike[str]) -> None: ...
def kernels_damaged(progress: Any | None = None) -> list[tuple[str, str]]: ...
def kernels_frame(table: str, columns: dict[str, Any], compressed: Any) -> tuple[bytes, int, dict[str, Any]]: ...
def kernels_frameworks(system: str) -> list[str]: ...
def kernels_identity() -> str: ...
def kernels_import(name: str, tables: Sequence[dict[str, Any]]) -> int: ...
def kernels_known(model: Spec) -> list[tuple[str, list[str]]]: ...
def kernels_lookup(
    system: str,
    framework: str,
    table: str,
    version: str | None,
    measure: str | None,
    keys: Sequence[tuple[str, _Floats | Sequence[str]]],
) -> _Payload: ...
def kernels_origin() -> str: ...
def kernels_report(
    system: str,
    framework: str,
    device: Spec,
    samples: int,
    seed: int,
    progress: _Report = None,
) -> _Payload: ...
def kernels_suspects(system: str, framework: str, device: Spec, progress: _Report = None) -> _Payload: ...
def kernels_systems() -> list[str]: ...
def kernels_table(system: str, framework: str, name: str, version: str | None = None) -> _Payload: ...
def kernels_tables(system: str, framework: str) -> _Payload: ...
def kernels_versions(system: str, framework: str) -> list[str]: ...
def launch(
    framework: str,
    plan: Spec,
    model: Spec,
    cluster: Spec,
    workload: Spec | None,
    quant: Spec | None,
    serving: Spec | None,
    engine: str,
    force: bool,
) -> str: ...
def mean_interval(values: _Floats) -> tuple[float, float | None, tuple[float, float] | None, int]: ...
def model_facts(model: Spec, quant: Spec | None) -> dict[str, Any]: ...
def near(name: str, known: Sequence[str]) -> str: ...
def network_flows(
    cluster: Spec | None,
    plain_fabric: str | None,
    src: _Ints,
    dst: _Ints,
    bytes: _Floats,
    start_s: _Floats | None,
    engine: str,
    progress: _Report = None,
) -> _Payload: ...
def network_phase(
    cluster: Spec,
    what: str,
    args: str,
    framework: str | None = None,
    alpha_scale: float = 1.0,
) -> tuple[Any, ...]: ...
def num_threads() -> int: ...
def perfetto(
    start_s: _Floats,
    end_s: _Floats,
    whole: Sequence[_Ints],
    kinds: Sequence[str],
    names: Sequence[str],
) -> str: ...
def plan_facts(plan: Spec) -> tuple[str, int]: ...
def plan_verdict(
    plan: Spec,
    model: Spec,
    cluster: Spec,
    framework: str,
    version: str | None = None,
    table: str | None = None,
) -> str: ...
def plan_words(plan: Spec) -> str: ...
def preset_device(system: str) -> specs.Device: ...
def preset_devices() -> list[str]: ...
def preset_fabric(system: str) -> specs.Fabric: ...
def preset_models() -> list[str]: ...
def preset_systems() -> list[str]: ...
def preset_workload(name: str) -> specs.Workload: ...
def preset_workloads() -> list[str]: ...
def rules_table(table: str | None = None) -> list[dict[str, Any]]: ...
def sensitivity(
    case: Case,
    plan: Spec,
    load: float | None,
    parameters: Sequence[str] | None,
    step: float,
) -> _Payload: ...
def set_num_threads(n: int) -> None: ...
def simulate(
    engine: Engine,
    runs: Sequence[tuple[Trace, int]],
    fixed: tuple[float, float, float, float] | None,
    options: str,
    timeline: int,
    progress: _Report = None,
) -> list[tuple[Any, ...]]: ...
def switches(assumptions: Spec) -> list[dict[str, Any]]: ...
def validation_report(sections: Sequence[str], ttft: bool, progress: _Report = None) -> tuple[str, _Payload, str]: ...
def validation_run(sections: Sequence[str], ttft: bool, progress: _Report = None) -> _Payload: ...
def validation_sections() -> list[str]: ...
def verdict(study: Any) -> dict[str, Any]: ...
def versions() -> dict[str, Any]: ...
def workload_facts(workload: Spec) -> dict[str, Any]: ...
