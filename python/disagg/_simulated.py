"""Points of a space judged by the requests they serve, hopeless ones dropped early."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from disagg import _core
from disagg._judge import Report, question
from disagg.errors import DisaggError, Problem, SpecError
from disagg.frame import Frame, better
from disagg.run import Run
from disagg.simulate import simulate as _simulate
from disagg.space import Space
from disagg.specs import SLO
from disagg.trace import Trace

PREFIX = 4
"""The first quarter of the requests decides which candidates are dropped."""
LEAST = 100
"""Requests of a prefix that is worth a test."""
TIE = 1e-9

MEANS = ("ttft_ms", "tpot_ms", "e2e_ms")
RATES = ("goodput", "requests_per_s", "tokens_per_s", "tokens_per_s_per_gpu")
PERCENTILE = re.compile(r"(ttft|tpot|e2e)_p(\d+(?:\.\d+)?)_ms")
OPTIONS = ("trace", "slo", "timing", "scheduler", "router", "prefix_cache", "kv_blocks")


class Simulated:
    """Points by the requests they serve: the same for all, with the same seed."""

    def __init__(  # noqa: PLR0917 - as `optimize` has them
        self,
        space: Space,
        objective: str,
        constraints: list[str],
        options: Mapping[str, Any],
        seed: int,
        *,
        runnable: bool,
    ) -> None:
        self.space, self.constraints, self.seed, self.runnable = space, constraints, seed, runnable
        self.trace: Trace = options["trace"]
        self.slo: SLO | None = options.get("slo")
        self.options = {n: v for n, v in options.items() if n not in ("trace", "slo")}
        self.axes: list[str] = [a["path"] for a in json.loads(space.to_json())["axes"]]
        sense, _, metric = objective.strip().rpartition(" ")
        self.metric = metric
        self._check(sense)
        self.more = (better(metric) if sense == "" else sense) == "max"
        words = {w for c in constraints for w in re.findall(r"[A-Za-z_][\w.]*", c)}
        wanted = [metric, "ttft_ms", "tpot_ms", "tokens_per_s", *sorted(w for w in words if self._known(w))]
        self.metrics = [m for m in dict.fromkeys(wanted) if m != "goodput" or self.slo is not None]
        for i, c in enumerate(constraints):
            _core.holds(c, f"constraints[{i}]", self.metrics + self.axes, [0.0] * len(self.metrics + self.axes))
        self.prefix = self._prefix()
        self.rows: dict[int, dict[str, Any]] = {}
        self.leader: tuple[float, int, Run, npt.NDArray[np.float64] | None] | None = None
        self.dropped = 0

    @staticmethod
    def _known(name: str) -> bool:
        return name in MEANS or name in RATES or PERCENTILE.fullmatch(name) is not None

    def _check(self, sense: str) -> None:
        problems = []
        if sense not in ("", "max", "min") or not self._known(self.metric):
            hint = _core.near(self.metric, [*RATES, *MEANS, "ttft_p99_ms", "tpot_p99_ms"])
            problems.append(Problem("objective", f"'{self.metric}' is not a metric of a simulation", hint))
        if self.metric == "goodput" and self.slo is None:
            hint = "simulate={'trace': trace, 'slo': dg.SLO(ttft_ms=..., tpot_ms=...)}"
            problems.append(Problem("simulate.slo", "is required by goodput", hint))
        if problems:
            raise SpecError(problems)

    def _prefix(self) -> Trace | None:
        """The first requests of an open loop, if they are enough for a test."""
        arrivals = self.trace.requests["arrival_s"]
        first = len(arrivals) // PREFIX
        if self.trace.stats()["rate"] is None or first < LEAST or self._each(None) is None:
            return None
        return self.trace.window(0.0, float(arrivals[first]))

    def _each(self, run: Run | None) -> npt.NDArray[np.float64] | None:
        """What each request adds to the objective, more is better; None where it is no mean over requests."""
        if self.metric == "goodput" and self.slo is not None:
            return np.zeros(0) if run is None else run._within(self.slo).astype(np.float64)
        if self.metric in MEANS:
            sign = 1.0 if self.more else -1.0
            return np.zeros(0) if run is None else sign * run.requests[self.metric].astype(np.float64)
        return None

    def _run(self, parts: dict[str, Any], trace: Trace) -> Run:
        return _simulate(
            parts["model"], parts["cluster"], parts["plan"], trace, framework=parts["framework"], quant=parts["quant"],
            serving=parts["serving"], assumptions=parts["assumptions"], seed=self.seed, progress=False, **self.options,
        )  # fmt: skip

    def _worse(self, each: npt.NDArray[np.float64] | None) -> bool:
        """Whether it is worse than the best so far with 99 % confidence, request by request."""
        if each is None or self.leader is None or self.leader[3] is None:
            return False
        difference = each - self.leader[3]
        mean, _, half, _, _ = _core.mean_interval(np.ascontiguousarray(difference[~np.isnan(difference)]), False)
        return half is not None and mean + half < 0.0

    def _value(self, run: Run, name: str) -> float:
        if name == "goodput":
            assert self.slo is not None  # noqa: S101 - checked at the start
            return float(run.goodput(self.slo)["requests_per_s"])
        found = PERCENTILE.fullmatch(name)
        if found:
            values = run.requests[f"{found[1]}_ms"]
            return float(np.nanpercentile(values, float(found[2]))) if np.isfinite(values).any() else float("nan")
        value = run.summary.get(name)
        value = value["mean"] if isinstance(value, dict) else value
        return float("nan") if value is None else float(value)

    def whole(self, report: Report) -> None:
        """Go through all points of the space, one after another."""
        for done, point in enumerate(self.space._numbers().tolist(), 1):
            self.take([point])
            if report is not None:
                report(done, self.space.size)

    def take(self, points: Sequence[int]) -> list[float | None]:
        """Objectives of points; None where one does not stand, breaks a limit or was dropped."""
        return [self._one(int(p)) for p in points]

    def _one(self, point: int) -> float | None:
        row: dict[str, Any] = {"feasible": False, "kept": False, "status": "ok"}
        row |= dict.fromkeys(self.metrics, float("nan"))
        self.rows[point] = row
        broken = self.space._core.broken(point) if self.runnable else None
        if broken is not None:
            row["status"] = broken
            return None
        try:
            parts = question(self.space, point)
            each = None if self.prefix is None else self._each(self._run(parts, self.prefix))
            if self._worse(each):
                self.dropped += 1
                row["status"] = "dropped: worse on the first requests (99 %)"
                return None
            run = self._run(parts, self.trace)
        except DisaggError as e:
            row["status"] = str(e).replace("\n", "; ")
            return None
        row |= {m: self._value(run, m) for m in self.metrics}
        lost = run.arrivals - run.finished
        if lost > 0 and self.metric not in RATES:
            row["status"] = f"{lost} requests did not finish"
            return None
        row["feasible"] = True
        axes = Frame._from_core(self.space._core.values(np.array([point], dtype=np.int64)))
        numbers = [v if isinstance(v := axes[a].tolist()[0], (int, float)) else float("nan") for a in self.axes]
        values = [row[m] for m in self.metrics] + numbers
        names = self.metrics + self.axes
        row["kept"] = all(_core.holds(c, f"constraints[{i}]", names, values) for i, c in enumerate(self.constraints))
        value = float(row[self.metric])
        if not row["kept"] or np.isnan(value):
            return None
        turned = value if self.more else -value
        if self.leader is None or turned > self.leader[0]:
            self.leader = (turned, point, run, each)
        return value

    def frames(self) -> tuple[Frame, Frame]:
        """All that was judged, and the certificate."""
        points = sorted(self.rows)
        axes = Frame._from_core(self.space._core.values(np.array(points, dtype=np.int64)))
        columns: dict[str, Any] = {n: axes[n] for n in axes.columns}
        for name in (*self.metrics, "feasible", "kept", "status"):
            columns[name] = [self.rows[p][name] for p in points]
        left = self.space.size - len(points)
        told = [
            ("points", self.space.size, "in the space"),
            ("priced", len(points) - self.dropped, "simulated with the same requests and seed"),
            ("dropped", self.dropped, "worse than the best so far on the first requests: 99 % confidence, not a proof"),
            ("not looked at", left, "nothing is proved of these"),
        ]
        told = [t for t in told if t[1] > 0 or t[0] in ("points", "priced")]
        names = ("what", "points", "why")
        return Frame(columns), Frame({n: list(c) for n, c in zip(names, zip(*told, strict=True), strict=True)})

    def best(self) -> tuple[int, list[int], Any]:
        """The best point, those that tie with it, and its run."""
        if self.leader is None:
            why = dict.fromkeys(r["status"] if not r["feasible"] else "breaks a constraint" for r in self.rows.values())
            said = "; ".join(list(why)[:4]) or "none was run"
            text = f"none of {len(self.rows)} points has a {self.metric} within the constraints: {said}"
            raise SpecError([Problem("objective", text, "loosen a constraint, or widen an axis")])
        turned, point, run, _ = self.leader
        values = {p: r[self.metric] * (1 if self.more else -1) for p, r in self.rows.items() if r["kept"]}
        return point, sorted(p for p, v in values.items() if v >= turned - TIE * abs(turned)), run
