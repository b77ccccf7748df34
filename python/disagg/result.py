"""Results: what an estimate says, where each millisecond goes, and how well it is known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self, cast

from disagg import _core, _html
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.specs import Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import Spec, checked, expect, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.launch import Launch

__all__ = ["Estimate", "Result", "Step"]

_INPUTS: dict[str, type[Spec]] = {
    "model": Model,
    "cluster": Cluster,
    "workload": Workload,
    "quant": Quant,
    "serving": Serving,
}


def _number(value: Any) -> str:
    """Give a value as a person would write it."""
    if isinstance(value, float):
        return "none" if math.isnan(value) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"  # noqa: PLR2004
    return str(value)


def _best_first(shares: Mapping[str, float]) -> dict[str, float]:
    order = ("measured", "interpolated", "scaled", "extrapolated", "roofline")
    return {n: float(shares[n]) for n in (*order, *sorted(set(shares) - set(order))) if n in shares}


def _measured(shares: Mapping[str, float]) -> float:
    return shares.get("measured", 0.0) + shares.get("interpolated", 0.0) if shares else math.nan


def _rebuild(cls: type[Result], scalars: dict[str, Any], frames: dict[str, Frame]) -> Result:
    return cls(scalars, frames)


class Result:
    """Plain data from the core: scalars and named Frames. Frozen, compared by value.

    Parameters
    ----------
    scalars
        Named values, JSON-able.
    frames
        Named tables: `Frame`, or columns.
    """

    __slots__ = ("_frames", "_scalars")

    _shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, scalars: Mapping[str, Any], frames: Mapping[str, Any]) -> None:
        tables = {n: f if isinstance(f, Frame) else Frame(f) for n, f in frames.items()}
        object.__setattr__(self, "_scalars", dict(scalars))
        object.__setattr__(self, "_frames", tables)

    _scalars: dict[str, Any]
    _frames: dict[str, Frame]

    @classmethod
    def _from_core(cls, payload: tuple[str, dict[str, Any]], inputs: Mapping[str, Any] | None = None) -> Self:
        """Take over what the native core gives: scalars as JSON text, frames as columns; and the inputs."""
        text, frames = payload
        scalars = {**json.loads(text), **({"inputs": dict(inputs)} if inputs else {})}
        return cls(scalars, {n: Frame._from_core(f) for n, f in frames.items()})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: results are frozen."""
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _float(self, name: str) -> float:
        value = self._scalars.get(name)
        return math.nan if value is None else float(value)

    def _frame(self, name: str) -> Frame:
        return self._frames.get(name, Frame({}))

    def _facts(self) -> list[tuple[str, str]]:
        found = ((n, getattr(self, n)) for n in self._shown)
        return [(n, repr(v) if isinstance(v, (str, bool)) else _number(v)) for n, v in found if v is not None]

    def to_json(self) -> str:
        """Give the result as JSON text; `from_json` gives an equal result back, to the last bit."""
        frames = {n: json.loads(f.to_json()) for n, f in self._frames.items()}
        return json.dumps({"scalars": self._scalars, "frames": frames}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a result back from the text that `to_json` gave.

        Raises
        ------
        SpecError
            If the text is not such a result.
        """
        try:
            data = json.loads(text)
            return cls(data["scalars"], {n: Frame.from_json(json.dumps(f)) for n, f in data["frames"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise SpecError([("json", f"is not a result: {e}", "give the text that to_json() gave")]) from e

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if type(self) is not type(other):
            return NotImplemented
        return self._scalars == other._scalars and self._frames == other._frames

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """One line with the main facts."""
        return f"{type(self).__name__}({', '.join(f'{n}={v}' for n, v in self._facts())})"

    def _repr_html_(self) -> str:
        return _html.table(type(self).__name__, [], [list(f) for f in self._facts()])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the plain data."""
        return _rebuild, (type(self), self._scalars, self._frames)

    def __copy__(self) -> Self:
        """Return itself: it is frozen."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it is frozen."""
        return self


class Step(Result):
    """One step of a plan's engine."""

    _shown = ("kind", "ms")

    @property
    def kind(self) -> str:
        """``decode``, ``prefill`` or ``mixed``."""
        return str(self._scalars.get("kind", ""))

    @property
    def ms(self) -> float:
        """Time of the step, milliseconds."""
        return self._float("ms")

    @property
    def breakdown(self) -> Frame:
        """Where it goes: phase, pool, op, ms, share, evidence, tier (of the fabric, where anything crosses it)."""
        return self._frame("breakdown")


class _EstimatePlots:
    """Plots of one estimate."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate

    def breakdown(self, *, part: str = "op", ax: Axes | None = None) -> Axes:
        """Draw where each millisecond goes; `part` is ``"op"`` or ``"evidence"``."""
        from disagg import plots

        return plots.breakdown(self._estimate.breakdown, part=part, ax=ax)

    def pipeline(self, *, phase: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw who is busy when in the micro-batch pipeline, in microseconds; ``phase``: decode, mixed or prefill."""
        from disagg import plots

        return plots.timeline(self._estimate.timeline, phase=phase, ax=ax)

    def memory(self, *, ax: Axes | None = None) -> Axes:
        """Draw what fills each GPU."""
        from disagg import plots

        return plots.memory(self._estimate.memory, ax=ax)

    def sensitivity(
        self,
        *,
        metric: str = "tpot_ms",
        parameters: Sequence[str] | None = None,
        step: float = 0.1,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw what moves a metric when one figure is varied at a time (``dg.sensitivity``), the widest on top."""
        from disagg import plots
        from disagg.sensitivity import sensitivity

        return plots.tornado(sensitivity(self._estimate, parameters=parameters, step=step), metric=metric, ax=ax)


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

    @property
    def level(self) -> str:
        """``aggregated``, ``pd``, ``aggregated+afd`` or ``pd+afd``."""
        return str(self._scalars.get("level", ""))

    @property
    def feasible(self) -> bool:
        """Whether the plan fits into memory and meets what was asked."""
        return bool(self._scalars.get("feasible", False))

    @property
    def binding(self) -> str:
        """What limits it: ``ttft``, ``tpot``, ``memory:<pool>``, ``bandwidth:<port>`` ..."""
        return str(self._scalars.get("binding") or "")

    @property
    def ttft_ms(self) -> float:
        """Time to first token, milliseconds."""
        return self._float("ttft_ms")

    @property
    def tpot_ms(self) -> float:
        """Mean time between later tokens of one request, milliseconds."""
        return self._float("tpot_ms")

    @property
    def itl_worst_ms(self) -> float:
        """Longest time between two tokens, milliseconds."""
        return self._float("itl_worst_ms")

    @property
    def requests_per_s(self) -> float:
        """Finished requests per second."""
        return self._float("requests_per_s")

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of the whole deployment."""
        return self._float("tokens_per_s")

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Output tokens per second and GPU of the budget."""
        return self._float("tokens_per_s_per_gpu")

    @property
    def tokens_per_s_per_user(self) -> float:
        """Output tokens per second of one user: 1000 / tpot_ms."""
        return self._float("tokens_per_s_per_user")

    @property
    def concurrency(self) -> float:
        """Requests in flight."""
        return self._float("concurrency")

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
        found = self._float("kv_tokens")
        return 0 if math.isnan(found) else int(found)

    @property
    def max_sequences(self) -> int:
        """Requests of the workload's lengths that fit the whole deployment at a time.

        Whole sequences on every attention rank, all replicas, workers and units together; of P/D the decode
        slot's, of AFD the attention pool's. More requests wait outside.
        """
        found = self._float("max_sequences")
        return 0 if math.isnan(found) else int(min(found, 1e15))

    @property
    def gpus(self) -> int:
        """GPUs of the budget."""
        return int(self._scalars.get("gpus", 0))

    @property
    def gpus_used(self) -> int:
        """GPUs of the plan; the rest of the budget idles and is counted."""
        return int(self._scalars.get("gpus_used", self.gpus))

    @property
    def usd_per_mtok(self) -> float:
        """US dollars per million output tokens."""
        return self._float("usd_per_mtok")

    @property
    def watts(self) -> float:
        """Power of all GPUs at their board limit, watts."""
        return self._float("watts")

    @property
    def joules_per_token(self) -> float:
        """Energy per output token with all GPUs at their board limit, joules."""
        return self._float("joules_per_token")

    @property
    def wait_ms(self) -> float:
        """Part of `ttft_ms` under ``load=`` that is waiting: step in flight, prefill, seat; 0 in a closed loop."""
        return self._float("wait_ms")

    @property
    def queueing(self) -> str | None:
        """Name of the queueing formula behind `wait_ms`; None in a closed loop."""
        found = self._scalars.get("queueing")
        return None if found is None else str(found)

    @property
    def runnable(self) -> bool:
        """Whether a released server of the framework starts the plan (``dg.rules``)."""
        return bool(self._scalars.get("runnable", False))

    @property
    def server(self) -> str | None:
        """What starts the plan, with its version; None: no released server does."""
        found = self._scalars.get("server")
        return None if found is None else str(found)

    @property
    def why_not(self) -> list[str]:
        """Rules that the plan breaks: the rule, the field, what is wrong, what to write instead, the source."""
        from disagg.rules import sentences

        return sentences(self._scalars.get("why_not", []))

    @property
    def context_exceeded(self) -> bool:
        """Whether the workload is longer than the model's context."""
        return bool(self._scalars.get("context_exceeded", False))

    @property
    def framework(self) -> str:
        """Framework whose kernels were used."""
        return str(self._scalars.get("framework", ""))

    @property
    def evidence_ttft(self) -> dict[str, float]:
        """Share of the time behind TTFT per class.

        ``measured`` and ``interpolated`` rest on rows of the device's own tables, ``scaled`` on rows of the device
        that a what-if device stands on, ``extrapolated`` goes beyond them, ``roofline`` has none.
        """
        return _best_first(self._scalars.get("evidence_ttft", {}))

    @property
    def evidence_tpot(self) -> dict[str, float]:
        """Share of the time behind TPOT per class, as `evidence_ttft`; empty where nothing is decoded."""
        return _best_first(self._scalars.get("evidence_tpot", {}))

    @property
    def measured_share(self) -> float:
        """Measured or interpolated share of the less known of TTFT and TPOT."""
        return self._float("measured_share")

    @property
    def ttft_measured_share(self) -> float:
        """Measured or interpolated share of the time behind TTFT."""
        return _measured(self.evidence_ttft)

    @property
    def tpot_measured_share(self) -> float:
        """Measured or interpolated share of the time behind TPOT; not a number where nothing is decoded."""
        return _measured(self.evidence_tpot)

    @property
    def evidence(self) -> dict[str, float]:
        """Share per class of all a request pays for: prefill and decode of P/D together, the mean step of others.

        A long prefill hides a decode step here: how well a latency is known say `evidence_ttft` and
        `evidence_tpot`.
        """
        return _best_first(self._scalars.get("evidence", {}))

    @property
    def compute_evidence(self) -> dict[str, float]:
        """As `evidence`, of computing alone, without communication."""
        return _best_first(self._scalars.get("compute_evidence", {}))

    @property
    def lanes(self) -> list[str]:
        """Which implementation of the expert layers was taken, by phase."""
        return list(self._scalars.get("lanes", []))

    @property
    def formats(self) -> dict[str, str]:
        """Number format of each part in force, and whether it was asked for, the checkpoint's or the server's."""
        return dict(self._scalars.get("formats", {}))

    @property
    def warnings(self) -> list[str]:
        """What should be known, in words."""
        return list(self._scalars.get("warnings", []))

    @property
    def plan(self) -> Any:
        """The plan, with what was left open filled in."""
        found = self._scalars.get("plan")
        return None if found is None else wrap(found, ("Aggregated", "PD", "AFD"))

    @property
    def inputs(self) -> dict[str, Spec]:
        """The specs it was made from: model, cluster, workload, and quant and serving where given."""
        found = self._scalars.get("inputs", {})
        return {n: cls.from_dict(found[n]) for n, cls in _INPUTS.items() if found.get(n) is not None}

    @property
    def assumptions(self) -> Assumptions:
        """The modelling choices."""
        found = self._scalars.get("assumptions")
        return Assumptions.physical() if found is None else Assumptions.from_dict(found)

    @property
    def memory(self) -> Frame:
        """Memory per GPU: pool, item, gib."""
        return self._frame("memory")

    @property
    def breakdown(self) -> Frame:
        """Where each millisecond goes: phase, pool, op, ms, share, evidence, tier (scale-up, scale-out, both)."""
        return self._frame("breakdown")

    @property
    def pipeline(self) -> Frame:
        """Stage times of the micro-batch pipeline; empty without one."""
        return self._frame("pipeline")

    @property
    def timeline(self) -> Frame:
        """A stretch of the schedule: phase, stage, attention_group, microbatch, layer, start_us, end_us."""
        return self._frame("timeline")

    @property
    def plot(self) -> _EstimatePlots:
        """Plots: ``.breakdown()``, ``.pipeline()``, ``.memory()``, ``.sensitivity()``."""
        return _EstimatePlots(self)

    @checked
    def step(
        self,
        kind: Literal["decode", "prefill", "mixed"],
        *,
        batch: float | None = None,
        context: float | None = None,
        new: float | None = None,
        past: float | None = None,
    ) -> Step:
        """Price one step of the plan's engine.

        Parameters
        ----------
        kind
            ``"decode"``: `batch` sequences of `context` tokens per attention rank; ``"prefill"``: `batch`
            sequences of `new` tokens over `past`; ``"mixed"``: both.
        batch
            Sequences per attention rank; None: 1.
        context
            Tokens in the KV cache of a decoding sequence; None: the workload's stationary mean.
        new, past
            New tokens and cached tokens of a prefilling sequence; None: the workload's means.

        Raises
        ------
        SpecError
            If a number does not fit, or the estimate does not hold what it was made from.
        """
        expect(kind=(kind, str))
        given = self.inputs
        if not {"model", "cluster", "workload"} <= given.keys():
            raise SpecError([("step", "this estimate does not hold what it was made from", "use dg.estimate(...)")])
        workload = cast("Workload", given["workload"])
        mean = workload.mean
        raw = {n: s._raw for n, s in given.items()}
        engine = _core.Engine(
            raw["model"],
            raw["cluster"],
            raw["workload"],
            self.plan._raw,
            self.framework or None,
            raw.get("quant"),
            raw.get("serving"),
            self.assumptions._raw,
        )
        numbers = {
            "batch": 1.0 if batch is None else batch,
            "context": workload.theta if context is None else context,
            "new": mean["isl"] if new is None else new,
            "past": mean["prefix"] if past is None else past,
        }
        expect(**{n: (v, int, float) for n, v in numbers.items()})
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
        force
            Whether to write the commands of a plan that breaks a rule as well; the rules stand in ``.notes``.

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
        from disagg.launch import Launch

        given: dict[str, Any] = self.inputs
        if not {"model", "cluster"} <= given.keys():
            raise SpecError([("launch", "this estimate does not hold what it was made from", "use dg.estimate(...)")])
        return Launch._of(framework or self.framework, self.plan, given, engine=self.framework or None, force=force)

    def explain(self) -> str:
        """Say where each microsecond goes and how well it is known, as text."""
        from disagg._explain import explain

        return explain(self)

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
        from disagg._explain import compare

        return compare(self, other)

    def _shares(self) -> list[tuple[str, str]]:
        """How well each latency is known, in words."""
        found = (("TTFT", self.evidence_ttft), ("TPOT", self.evidence_tpot))
        return [(n, ", ".join(f"{v:.0%} {k}" for k, v in e.items() if v > 0)) for n, e in found if e]

    def _repr_html_(self) -> str:
        shares = "; ".join(f"{name}: {text}" for name, text in self._shares())
        return _html.table("Estimate", [], [list(f) for f in self._facts()], note=shares)

    def __repr__(self) -> str:
        """One line with the main facts."""
        known = [("ttft_measured_share", self.ttft_measured_share), ("tpot_measured_share", self.tpot_measured_share)]
        shares = [(n, f"{v:.2f}") for n, v in known if not math.isnan(v)]
        return f"Estimate({', '.join(f'{n}={v}' for n, v in [*self._facts(), *shares])})"
