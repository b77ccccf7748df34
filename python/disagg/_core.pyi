# Types of the native core. Kept by hand (the core takes any value and says what is wrong with it,
# so a generated stub would say `Any`); `make test` compares it with the binary by stubtest.
from collections.abc import Callable
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "DesignSpace",
    "Engine",
    "Exploration",
    "Regimes",
    "Search",
    "Spec",
    "Study",
    "Trace",
    "_frame",
    "_spin",
    "afd_provision",
    "afd_schedule",
    "assumptions",
    "calibrate",
    "check_plan",
    "cluster",
    "design_metrics",
    "distribution_facts",
    "frontier",
    "goodput_curve",
    "holds",
    "judge",
    "kernels_at",
    "kernels_frameworks",
    "kernels_import",
    "kernels_lookup",
    "kernels_origin",
    "kernels_report",
    "kernels_suspects",
    "kernels_systems",
    "kernels_table",
    "kernels_tables",
    "launch",
    "mean_interval",
    "model_facts",
    "model_from_hf",
    "near",
    "network_flows",
    "network_phase",
    "num_threads",
    "perfetto",
    "plan_facts",
    "plan_verdict",
    "preset",
    "presets",
    "rules_table",
    "sensitivity",
    "set_num_threads",
    "simulate",
    "switches",
    "validation_report",
    "validation_run",
    "validation_sections",
    "versions",
    "workload",
    "workload_facts",
]

_Payload: TypeAlias = tuple[dict[str, Any], dict[str, str]]

_EstimatePayload: TypeAlias = tuple[str, dict[str, _Payload]]
_Report: TypeAlias = Callable[[int, int], object] | None

@final
class DesignSpace:
    def __new__(cls, text: str) -> DesignSpace: ...
    @property
    def size(self) -> int: ...
    def to_json(self) -> str: ...
    def sample(self, n: int, method: str, seed: int) -> npt.NDArray[np.int64]: ...
    def price(
        self, points: npt.NDArray[np.int64], metrics: list[str], runnable: bool, progress: _Report = None
    ) -> _Payload: ...
    def broken(self, point: int) -> str | None: ...
    def question(self, point: int) -> str: ...
    def index_of(self, choices: list[int]) -> int | None: ...
    def values(self, points: npt.NDArray[np.int64]) -> _Payload: ...

@final
class Engine:
    def __new__(
        cls,
        model: Spec,
        cluster: Spec,
        workload: Spec,
        plan: Spec,
        framework: str | None = None,
        quant: Spec | None = None,
        serving: Spec | None = None,
        assumptions: Spec | None = None,
        load: float | None = None,
    ) -> Engine: ...
    def estimate(self) -> _EstimatePayload: ...
    def step(self, kind: str, batch: float, context: float, new: float, past: float) -> tuple[float, _Payload]: ...

@final
class Exploration:
    def __new__(
        cls,
        model: Spec,
        cluster: Spec,
        workload: Spec,
        slo: Spec,
        levels: list[str],
        frameworks: list[str] | None = None,
        quant: Spec | None = None,
        serving: Spec | None = None,
        assumptions: Spec | None = None,
        objective: str = "tokens_per_s",
        arrivals: str = "closed",
        confirm: bool = True,
        runnable: bool = True,
    ) -> Exploration: ...
    @property
    def frameworks(self) -> list[str]: ...
    def explore(self, progress: _Report = None) -> Study: ...
    def units(self) -> list[str]: ...
    def search(self, unit: int, progress: _Report = None) -> npt.NDArray[np.uint32]: ...
    def join(self, parts: list[npt.NDArray[np.uint32]]) -> Study: ...

@final
class Regimes:
    def __new__(
        cls,
        model: Spec,
        clusters: list[Spec],
        workloads: list[Spec],
        slos: list[Spec],
        levels: list[str],
        frameworks: list[str] | None = None,
        quant: Spec | None = None,
        serving: Spec | None = None,
        assumptions: Spec | None = None,
        tolerance: float = 0.01,
        batches_per_octave: int = 2,
        arrivals: str = "closed",
        runnable: bool = True,
    ) -> Regimes: ...
    def frameworks(self) -> list[list[str]]: ...
    def warnings(self) -> list[str]: ...
    def search(self, partial: bool = False, progress: _Report = None) -> _Payload: ...

@final
class Search:
    def __new__(
        cls,
        space: DesignSpace,
        points: npt.NDArray[np.int64] | None,
        objective: str,
        constraints: list[str],
        runnable: bool,
    ) -> Search: ...
    def run(self, progress: _Report = None) -> None: ...
    @property
    def objective(self) -> tuple[str, bool]: ...
    @property
    def complete(self) -> bool: ...
    def take(self, points: npt.NDArray[np.int64]) -> _Payload: ...
    def best(self) -> tuple[int, list[int]]: ...
    def points(self) -> _Payload: ...
    def certificate(self) -> _Payload: ...

@final
class Study:
    def __len__(self) -> int: ...
    def table(self) -> _Payload: ...
    def frameworks(self) -> _Payload: ...
    def flips(self) -> _Payload: ...
    @property
    def warnings(self) -> list[str]: ...
    def lifted(self, progress: _Report = None) -> _Payload: ...
    def points(self) -> _Payload: ...
    def best(self, level: str) -> _EstimatePayload: ...
    def audit(
        self,
        to: Spec,
        method: str,
        order: list[str],
        orders: int | None,
        seed: int,
        batches_per_octave: int | None = None,
        progress: Any | None = None,
    ) -> _Payload: ...

@final
class Trace:
    @staticmethod
    def read(format: str, path: str, on_error: str, option: float, n: int, seed: int) -> Trace: ...  # noqa: A002
    @staticmethod
    def servegen(path: str, start_s: float, end_s: float | None, seed: int, on_error: str) -> Trace: ...
    @staticmethod
    def open(workload: Spec, rate: float, cv: float, n: int, seed: int) -> Trace: ...
    @staticmethod
    def closed(workload: Spec, users: int, n: int, think_s: float, seed: int) -> Trace: ...
    @staticmethod
    def from_json(text: str) -> Trace: ...
    def to_json(self) -> str: ...
    def columns(self) -> _Payload: ...
    def stats(self) -> str: ...
    def prefix_hit(self, tokens: int | None = None) -> float: ...
    def scale(self, rate: float) -> Trace: ...
    def with_priority(self, priority: list[int]) -> Trace: ...
    def window(self, start_s: float, end_s: float) -> Trace: ...
    def lengths(self, most: int) -> list[tuple[float, float, float]]: ...
    def __len__(self) -> int: ...

@final
class Spec:
    def __new__(cls, kind: str, fields: dict[str, Any]) -> Spec: ...
    @staticmethod
    def from_json(kind: str, text: str) -> Spec: ...
    @property
    def kind(self) -> str: ...
    def to_json(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...
    def get(self, name: str) -> Any: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

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
    stage_ms: list[float],
    shape: list[int],
    layers: int,
    microbatches: int,
    attention_groups: int,
    half_duplex: bool,
    overlapped: bool,
) -> float: ...
def assumptions(profile: str, switches: dict[str, Any]) -> Spec: ...
def calibrate(
    model: Spec,
    cluster: Spec,
    workload: Spec,
    plan: Spec,
    framework: str | None,
    quant: Spec | None,
    serving: Spec | None,
    assumptions: Spec | None,
    options: str,
    arrival_s: npt.NDArray[np.float64],
    isl: npt.NDArray[np.int64],
    osl: npt.NDArray[np.int64],
    ttft_ms: npt.NDArray[np.float64],
    tpot_ms: npt.NDArray[np.float64],
    progress: _Report = None,
) -> Spec: ...
def check_plan(plan: Spec, model: Spec, cluster: Spec, quant: Spec | None = None) -> None: ...
def cluster(fields: dict[str, Any]) -> Spec: ...
def design_metrics() -> list[str]: ...
def distribution_facts(distribution: Spec, q: float) -> tuple[float, float]: ...
def frontier(
    costs: list[npt.NDArray[np.float64]], epsilon: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]: ...
def goodput_curve(
    engine: Engine,
    trace: Trace,
    slo: Spec,
    rates: list[float],
    fixed: tuple[float, float, float, float] | None,
    options: str,
    seed: int,
    progress: _Report = None,
) -> _Payload: ...
def holds(text: str, path: str, names: list[str], values: list[float]) -> bool: ...
def judge(
    ttft_ms: npt.NDArray[np.float64],
    tpot_ms: npt.NDArray[np.float64],
    e2e_ms: npt.NDArray[np.float64],
    finished: npt.NDArray[np.bool_],
    duration_s: float,
    slo: Spec,
) -> tuple[float, float, float, float, bool]: ...
def kernels_at(path: str) -> None: ...
def kernels_frameworks(system: str) -> list[str]: ...
def kernels_import(name: str, tables: list[dict[str, Any]]) -> int: ...
def kernels_lookup(
    system: str, framework: str, table: str, version: str | None, measure: str | None, keys: list[tuple[str, Any]]
) -> _Payload: ...
def kernels_origin() -> str: ...
def kernels_report(
    system: str, framework: str, device: Spec, samples: int, seed: int, progress: _Report = None
) -> _Payload: ...
def kernels_suspects(system: str, framework: str, device: Spec, progress: _Report = None) -> _Payload: ...
def kernels_systems() -> list[str]: ...
def kernels_table(system: str, framework: str, name: str, version: str | None = None) -> _Payload: ...
def kernels_tables(system: str, framework: str) -> _Payload: ...
def mean_interval(values: npt.NDArray[np.float64], cut: bool) -> tuple[float, float | None, float | None, int, int]: ...
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
def model_facts(model: Spec, quant: Spec | None) -> dict[str, float]: ...
def model_from_hf(config: dict[str, Any], quant: dict[str, Any] | None, name: str, source: str) -> Spec: ...
def near(name: str, known: list[str]) -> str: ...
def network_flows(
    cluster: Spec | None,
    plain_fabric: str | None,
    src: npt.NDArray[np.int64],
    dst: npt.NDArray[np.int64],
    bytes: npt.NDArray[np.float64],  # noqa: A002 - as the flows call it
    start_s: npt.NDArray[np.float64] | None,
    engine: str,
    progress: _Report = None,
) -> _Payload: ...
def network_phase(
    cluster: Spec, what: str, args: str, framework: str | None = None, alpha_scale: float = 1.0
) -> tuple[str, _Payload]: ...
def num_threads() -> int: ...
def perfetto(
    start_s: npt.NDArray[np.float64],
    end_s: npt.NDArray[np.float64],
    whole: list[npt.NDArray[np.int64]],
    kinds: list[str],
    names: list[str],
) -> str: ...
def plan_facts(plan: Spec) -> tuple[str, int]: ...
def plan_verdict(
    plan: Spec, model: Spec, cluster: Spec, framework: str, version: str | None = None, table: str | None = None
) -> str: ...
def preset(kind: str, name: str) -> Spec: ...
def presets(kind: str) -> list[str]: ...
def rules_table(table: str | None = None) -> list[dict[str, Any]]: ...
def sensitivity(
    model: Spec,
    cluster: Spec,
    workload: Spec,
    plan: Spec,
    framework: str,
    quant: Spec | None,
    serving: Spec | None,
    assumptions: Spec,
    load: float | None,
    parameters: list[str] | None,
    step: float,
) -> _Payload: ...
def set_num_threads(n: int) -> None: ...
def simulate(
    engine: Engine,
    runs: list[tuple[Trace, int]],
    fixed: tuple[float, float, float, float] | None,
    options: str,
    timeline: int,
    progress: _Report = None,
) -> list[tuple[str, dict[str, _Payload]]]: ...
def switches(assumptions: Spec) -> list[dict[str, Any]]: ...
def validation_report(sections: list[str], ttft: bool, progress: _Report = None) -> str: ...
def validation_run(sections: list[str], ttft: bool, progress: _Report = None) -> _Payload: ...
def validation_sections() -> list[str]: ...
def versions() -> dict[str, Any]: ...
def workload(fields: dict[str, Any]) -> Spec: ...
def workload_facts(workload: Spec) -> dict[str, Any]: ...
def _frame(x: npt.NDArray[np.float64]) -> _Payload: ...
def _spin(seconds: float, progress: _Report = None, panic: bool = False) -> int: ...
