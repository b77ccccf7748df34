"""Estimates: what a plan gives, where each millisecond goes, and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack, cast

from disagg import _core, _html
from disagg._result_base import Fact, Result, Table, number, text, texts
from disagg._result_plots import EstimatePlots
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.launch import Launch
from disagg.rules import sentences
from disagg.specs import PARTS, Assumptions, Workload
from disagg.specs._base import Spec, checked, takes
from disagg.specs.plan import plan_from_dict

__all__ = ["Estimate", "Step"]

INPUTS = {name: kind for name, kind in PARTS.items() if kind is not Assumptions}


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def _whole(value: Any) -> int:
    return 0 if value is None else int(min(value, 1e15))


def _formats(value: Any) -> dict[str, str]:
    return dict(value or {})


def _plan(value: Any) -> Any:
    return None if value is None else plan_from_dict(value)


def _assumed(value: Any) -> Assumptions:
    return Assumptions.physical() if value is None else Assumptions.from_dict(value)


def _best_first(value: Any) -> dict[str, float]:
    shares: Mapping[str, float] = value or {}
    order = ("measured", "interpolated", "scaled", "extrapolated", "roofline")
    return {n: float(shares[n]) for n in (*order, *sorted(set(shares) - set(order))) if n in shares}


def _measured(shares: Mapping[str, float]) -> float:
    return shares.get("measured", 0.0) + shares.get("interpolated", 0.0) if shares else math.nan


_PATH = ("front", "in_flight", "ahead", "polling", "held", "hand_over")


class Step(Result):
    """One step of a plan's engine."""

    _shown = ("kind", "ms")

    kind = Fact(text, "``decode``, ``prefill`` or ``mixed``.")
    ms = Fact(number, "Time of the step, milliseconds.")
    breakdown = Table("Where it goes: phase, pool, op, ms, share, evidence, tier (of the fabric it crosses, if any).")


class Estimate(Result):
    """The steady state of one plan: latency, throughput, memory, breakdown, evidence.

    Made by ``dg.estimate(...)`` and by a study. Every time is in milliseconds, every rate counts the
    whole deployment unless its name says per GPU or per user.
    """

    _shown = (
        "level",
        "framework",
        "gpus",
        "feasible",
        "runnable",
        "binding",
        "ttft_ms",
        "tpot_ms",
        "tokens_per_s",
        "tokens_per_s_per_gpu",
        "tokens_per_s_per_user",
        "concurrency",
    )

    level = Fact(text)
    framework = Fact(text)
    plan = Fact(_plan, "The plan, with what was left open filled in.", of="_scalars")
    feasible = Fact(bool)
    binding = Fact(text)
    runnable = Fact(bool, "Whether a released server of the framework starts the plan (``dg.rules``).")
    server = Fact(_name, "What starts the plan, with its version; None: no released server does.")
    why_not = Fact(
        lambda broken: sentences(broken or []),
        "Rules that the plan breaks: the rule, the field, what is wrong, what to write instead, the source.",
    )
    ttft_ms = Fact(number)
    ttft_service_ms = Fact(number)
    tpot_ms = Fact(number)
    itl_worst_ms = Fact(number)
    wait_ms = Fact(number)
    queueing = Fact(_name)
    requests_per_s = Fact(number)
    tokens_per_s = Fact(number)
    tokens_per_s_per_gpu = Fact(number)
    tokens_per_s_per_user = Fact(number)
    concurrency = Fact(number)
    max_sequences = Fact(_whole)
    gpus = Fact(_whole)
    usd_per_mtok = Fact(number)
    watts = Fact(number)
    watts_drawn = Fact(number)
    joules_per_token = Fact(number)
    context_exceeded = Fact(bool)
    evidence_ttft = Fact(_best_first)
    evidence_tpot = Fact(_best_first)
    evidence = Fact(_best_first)
    compute_evidence = Fact(_best_first)
    measured_share = Fact(number)
    lanes = Fact(texts)
    formats = Fact(_formats)
    warnings = Fact(texts)
    assumptions = Fact(_assumed, "The modelling choices.", of="_scalars")
    memory = Table("Memory per GPU: pool, item, gib.")
    breakdown = Table(
        "Where each millisecond goes: phase, pool, op, ms, share, evidence, tier (scale-up, scale-out, both)."
    )
    pipeline = Table("Stage times of the micro-batch pipeline; empty without one.")
    timeline = Table("A stretch of the schedule: phase, stage, attention_group, microbatch, layer, start_us, end_us.")

    @property
    def kv_tokens(self) -> int:
        """KV tokens that fit one attention rank, as its server prints them at start.

        Of P/D the decode slot's, of AFD the attention pool's. Whatever the plan's batch: the room beside weights,
        activations at the token budget and the server's own share (``est.memory``), in sequences of the
        workload's mean final length (which matters where layers keep a sliding window only). With a prefix that
        all requests share, the room beside it.

        Examples
        --------
        >>> import disagg as dg
        >>> model, cluster = dg.Model("Qwen/Qwen3-235B-A22B-FP8"), dg.Cluster("h100_sxm", gpus=4)
        >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=4), batch=16)
        >>> est = dg.estimate(model, cluster, dg.Workload(isl=4096, osl=1024), plan, framework="vllm",
        ...                   serving=dg.Serving(memory_fraction=0.9))
        >>> 170_000 < est.kv_tokens < 190_000
        True
        """
        return _whole(self._figures.get("kv_tokens"))

    @property
    def gpus_used(self) -> int:
        """GPUs of the plan; the rest of the budget idles and is counted."""
        return int(self._figures.get("gpus_used", self.gpus))

    @property
    def ttft_path_ms(self) -> dict[str, float]:
        """What a request waits for outside of the steps that serve it, milliseconds by name, in order.

        ``front``: the API server, there and back, with the prompt's text made tokens; ``in_flight``: the rest of
        the step under way; ``ahead``: steps scheduled already; ``polling`` and ``held``: where the server looks
        for requests seldom or waits for more (``Serving``); ``hand_over``: P/D, decode steps until it goes on with
        the prompt. `ttft_ms` is `ttft_service_ms` and these. All 0 with ``Assumptions(request_path="service")``.

        Examples
        --------
        >>> import disagg as dg
        >>> model, cluster = dg.Model("Qwen/Qwen3-32B"), dg.Cluster("h200_sxm", gpus=2)
        >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=16)
        >>> est = dg.estimate(model, cluster, dg.Workload(isl=1024, osl=512), plan, framework="vllm")
        >>> sum(est.ttft_path_ms.values()) > 2
        True
        >>> abs(est.ttft_service_ms + sum(est.ttft_path_ms.values()) - est.ttft_ms) < 1e-3
        True
        """
        found: dict[str, float] = self._scalars.get("ttft_path_ms") or {}
        return {name: float(found[name]) for name in _PATH if name in found}

    def _interval(self, name: str) -> tuple[float, float]:
        ends = (self._scalars.get("intervals") or {}).get(name) or {}
        low, high = ends.get("low"), ends.get("high")
        return float("nan" if low is None else low), float("nan" if high is None else high)

    @property
    def ttft_interval(self) -> tuple[float, float]:
        """As `tpot_interval`, of the TTFT that a client sees, milliseconds.

        Not a number with ``Assumptions(request_path="service")``: what was measured is a client's.
        """
        return self._interval("ttft_ms")

    @property
    def rate_interval(self) -> tuple[float, float]:
        """As `tpot_interval`, of the output tokens per second of the deployment."""
        return self._interval("tokens_per_s")

    @property
    def kv_interval(self) -> tuple[float, float]:
        """As `tpot_interval`, of `kv_tokens`: from the few servers that print their room at start."""
        return self._interval("kv_tokens")

    @property
    def tpot_interval(self) -> tuple[float, float]:
        """Interval that holds a measured TPOT with a chance of 80 %, milliseconds.

        From the residuals of measured servers by framework, generation of the device, experts or not, and prompts
        on workers of their own or not (``docs/design/physics.md``, section 10). It is not centred on `tpot_ms`: where
        servers of the kind are slower than predicted, it lies above. Not a number where nothing is decoded.

        Examples
        --------
        >>> import disagg as dg
        >>> model, cluster = dg.Model("Qwen/Qwen3-32B"), dg.Cluster("h200_sxm", gpus=2)
        >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=16)
        >>> est = dg.estimate(model, cluster, dg.Workload(isl=1024, osl=512), plan, framework="trtllm")
        >>> low, high = est.tpot_interval
        >>> 0.5 * est.tpot_ms < low < high < 2 * est.tpot_ms
        True
        """
        return self._interval("tpot_ms") if self.tpot_ms > 0 else (math.nan, math.nan)

    @property
    def ttft_measured_share(self) -> float:
        """Measured or interpolated share of the time behind TTFT."""
        return _measured(self.evidence_ttft)

    @property
    def tpot_measured_share(self) -> float:
        """Measured or interpolated share of the time behind TPOT; not a number where nothing is decoded."""
        return _measured(self.evidence_tpot)

    @property
    def inputs(self) -> dict[str, Spec]:
        """The specs it was made from: model, cluster, workload, and quant and serving where given."""
        if hasattr(self, "_given"):
            return dict(self._given)
        found = self._scalars.get("inputs", {})
        return {n: cls.from_dict(found[n]) for n, cls in INPUTS.items() if found.get(n) is not None}

    def _case(self, given: dict[str, Spec]) -> _core.Case:
        """The native side of the case that it is an estimate of; `given`: its inputs."""
        model, cluster, workload = (given[name] for name in ("model", "cluster", "workload"))
        quant, serving = given.get("quant"), given.get("serving")
        return _core.Case(model, cluster, workload, self.framework or None, quant, serving, self.assumptions)

    @property
    def plot(self) -> EstimatePlots:
        """Plots: ``.breakdown()``, ``.pipeline()``, ``.memory()``, ``.sensitivity()``."""
        return EstimatePlots(self)

    @takes("_Step")
    def step(self, kind: Literal["decode", "prefill", "mixed"], **options: Unpack[_core._Step]) -> Step:
        """Price one step of the plan's engine.

        Parameters
        ----------
        kind
            ``"decode"``: `batch` sequences of `context` tokens per attention rank; ``"prefill"``: `batch`
            sequences of `new` tokens over `past`; ``"mixed"``: both.

        Raises
        ------
        SpecError
            If a number does not fit, or the estimate does not hold what it was made from.
        """
        given = self.inputs
        if not {"model", "cluster", "workload"} <= given.keys():
            raise SpecError([("step", "this estimate does not hold what it was made from", "use dg.estimate(...)")])
        workload = cast("Workload", given["workload"])
        mean = workload.mean
        engine = _core.Engine(self._case(given), self.plan)
        usual = {"batch": 1.0, "context": workload.theta, "new": mean["isl"], "past": mean["prefix"]}
        numbers = {**usual, **{n: v for n, v in options.items() if isinstance(v, (int, float))}}
        ms, rows = engine.step(kind, **{n: float(v) for n, v in numbers.items()})
        return Step({"kind": kind, "ms": ms, **numbers}, {"breakdown": Frame._from_core(rows)})

    @checked
    def launch(self, framework: str | None = None, *, force: bool = False) -> Launch:
        """Give the commands and files that start the plan, with everything the estimate stands on.

        Parameters
        ----------
        framework
            ``"vllm"``, ``"sglang"``, ``"trtllm"``, or ``"dynamo"`` over the framework whose kernels price;
            None: that one.

        Raises
        ------
        SpecError
            If the plan breaks a rule of what the framework starts, or the estimate does not hold what it was made from.

        Examples
        --------
        >>> import disagg as dg
        >>> est = dg.estimate(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=4),
        ...                   dg.Workload.preset("paper-chat"), dg.Aggregated(parallel=dg.Parallel(tp=2)))
        >>> est.launch().framework == est.framework
        True
        """
        given: dict[str, Any] = self.inputs
        if not {"model", "cluster"} <= given.keys():
            raise SpecError([("launch", "this estimate does not hold what it was made from", "use dg.estimate(...)")])
        return Launch._of(framework or self.framework, self.plan, given, engine=self.framework or None, force=force)

    def explain(self) -> str:
        """Say where each microsecond goes and how well it is known, as text."""
        return _core.explain(self._told(), repr(self.plan))

    def compare(self, other: Estimate) -> Frame:
        """Compare with another estimate.

        Parameters
        ----------
        other
            The estimate to compare with.

        Returns
        -------
        Frame
            A row a quantity: ``quantity``, ``this``, ``other``, ``difference``, ``ratio`` (other / this)
            and ``reason``: the part of the breakdown that changed most.
        """
        rows = _core.compare(self._told(), other._told())
        columns = {n: [r[n] for r in rows] for n in ("quantity", "this", "other", "difference", "ratio", "reason")}
        return Frame(columns, attrs={"this": repr(self.plan), "other": repr(other.plan)})

    def _told(self) -> dict[str, Any]:
        """What it says of itself, for the core to put into words."""
        return {**self._figures, "breakdown": list(self.breakdown.rows()), "memory": list(self.memory.rows())}

    def _repr_html_(self) -> str:
        both = (("TTFT", self.evidence_ttft), ("TPOT", self.evidence_tpot))
        known = [(n, ", ".join(f"{v:.0%} {k}" for k, v in e.items() if v > 0)) for n, e in both if e]
        shares = "; ".join(f"{name}: {text}" for name, text in known)
        return _html.table("Estimate", [], [list(f) for f in self._facts()], note=shares)

    def __repr__(self) -> str:
        """One line with the main facts."""
        known = [("ttft_measured_share", self.ttft_measured_share), ("tpot_measured_share", self.tpot_measured_share)]
        shares = [(n, f"{v:.2f}") for n, v in known if not math.isnan(v)]
        return f"Estimate({', '.join(f'{n}={v}' for n, v in [*self._facts(), *shares])})"
