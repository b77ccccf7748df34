"""Runs: what became of each request, and what the instances did."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from disagg import _core, plots
from disagg._result_base import Fact, Result, Table
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.plots import requests
from disagg.plots._owned import Plots, drawn
from disagg.specs import SLO
from disagg.specs._base import checked, expect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Run", "compare_runs"]

METRICS = ("ttft_ms", "tpot_ms", "e2e_ms")


class _RunPlots(Plots):
    """Plots of one run."""

    latency = drawn(plots.latency, "requests")
    timeline = drawn(plots.instances, "timeline")

    def goodput(self, slo: SLO, *, ax: Axes | None = None) -> Axes:
        """Draw arrivals over time, and how many of them kept the limits."""
        return requests.kept(self._of.requests, self._of._within(slo), ax=ax)


def _mean(value: Any) -> Any:
    return value["mean"] if isinstance(value, dict) else value


class Run(Result):
    """A simulation: latencies of every request, instances over time, means with intervals. Made by ``dg.simulate``."""

    _shown = ("arrivals", "finished", "rejected", "unfinished", "ttft_ms", "tpot_ms", "tokens_per_s", "warning")

    arrivals = Fact(_mean, "Requests that arrived.")
    finished = Fact(_mean, "Requests that got their last token.")
    rejected = Fact(_mean, "Requests that no instance could hold.")
    unfinished = Fact(_mean, "Requests still under way at the end.")
    ttft_ms = Fact(_mean, "Mean time to first token between the way in and the way out, milliseconds.")
    tpot_ms = Fact(_mean, "Mean time between later tokens between the way in and the way out, milliseconds.")
    tokens_per_s = Fact(_mean, "Output tokens per second from the first arrival to the last answer.")
    stable = Fact(
        _mean,
        "False where more arrives than is served, so that latencies grow; a run too short to tell is True (`warning`).",
    )
    notes = Fact(
        _mean, "What is to be known of the figures: unstable, too short, choices that a server would make otherwise."
    )
    requests = Table("One row a request, times in ms; not-a-number where it has none.")
    utilization = Table("One row an instance: busy share, KV share, mean decode batch, tokens.")
    timeline = Table("Stretches of time on each instance; equal decode steps are one row.")

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, rates, and means with 95 % and 99 % intervals; see `notes` for what they rest on.

        Means leave out the requests of the way in (two stays) and of the way out (one). Intervals are by batch means,
        widened by what neighbouring batches share and by how bursts skew the mean (``src/sim/statistics.rs``).
        ``high_95`` and the half widths are None where the run holds too few bursts to say how much more may come
        (``error`` is the standard error as far as it shows). ``shows`` says in one word whether the run is ``steady``,
        ``short`` or ``unstable``; only a steady one has intervals. An unstable one is not ``stable``, and
        ``lacks_requests_per_s`` is the capacity it lacks. ``kv_admission``,
        ``first_token`` and ``first_token_source`` are choices that servers make differently (P/D: what the first token
        waits for, by framework).
        """
        return dict(self._scalars)

    @property
    def warning(self) -> str | None:
        """The notes in one line; None if there are none."""
        return "; ".join(self.notes) or None

    def percentiles(self) -> Frame:
        """Latencies (ms) at the 10 to 99.9 % points, linear between neighbours."""
        return self._frame("percentiles")

    def _within(self, slo: SLO) -> npt.NDArray[np.bool_]:
        """Tell which requests finished inside the limits (a single token has no TPOT to miss)."""
        expect(slo=(slo, SLO))
        r = self.requests
        found = np.asarray(r["status"] == "finished", dtype=np.bool_)
        for limit, values in ((slo.ttft_ms, r["ttft_ms"]), (slo.tpot_ms, r["tpot_ms"])):
            if limit is not None:
                found &= np.isnan(values) | (values <= limit)
        return found

    @checked
    def goodput(self, slo: SLO) -> dict[str, Any]:
        """Give requests per second that kept the limits, their share of arrivals, and whether the percentile holds.

        The rate is over the time of the arrivals, and no more than was served. Requests that were rejected or did not
        finish miss every limit.
        """
        r = self.requests
        found = _core.judge(
            r["ttft_ms"],
            r["tpot_ms"],
            r["e2e_ms"],
            np.asarray(r["status"] == "finished", dtype=bool),
            float(self._scalars["window_s"]),
            float(self._scalars["lacks_requests_per_s"]),
            slo,
        )
        return dict(zip(("requests_per_s", "share", "ttft_ms", "tpot_ms", "holds"), found, strict=True))

    @checked
    def to_perfetto(self, path: str | PathLike[str]) -> None:
        """Write the timeline as Chrome trace events, which ui.perfetto.dev opens."""
        t, u = self.timeline, self.utilization
        names = [f"instance {i} ({pool})" for i, pool in zip(u["instance"].tolist(), u["pool"].tolist(), strict=True)]
        whole = [t[n] for n in ("instance", "lane", "batch", "steps")]
        Path(path).write_text(
            _core.perfetto(t["start_s"], t["end_s"], whole, t["kind"].tolist(), names), encoding="utf-8"
        )

    @property
    def plot(self) -> _RunPlots:
        """Plots: ``latency``, ``timeline``, ``goodput``."""
        return _RunPlots(self)


@checked
def compare_runs(runs: Sequence[Run]) -> Frame:
    """Compare runs of the same trace with the first one, request by request.

    Common random numbers: the same request under each plan. Differences in order of arrival, intervals
    by batch means (as ``Run.summary``); requests that did not finish in both runs are left out and counted.

    Parameters
    ----------
    runs
        At least two.

    Returns
    -------
    Frame
        ``run``, ``metric``, ``difference_ms`` (run minus the first), ``low_95_ms``, ``high_95_ms``, ``pairs``,
        ``left_out``. An end is infinite where the runs are too short to say how far the mean may lie.

    Raises
    ------
    SpecError
        If the runs are not of the same requests.
    """
    if len(runs) < 2 or not all(isinstance(r, Run) for r in runs):  # noqa: PLR2004
        raise SpecError([("runs", "are not two or more runs", "give what simulate() gave")])
    first = runs[0].requests
    rows: list[tuple[int, str, float, float, float, int, int]] = []
    for k, run in enumerate(runs[1:], 1):
        other = run.requests
        if len(first) != len(other) or any(not np.array_equal(first[c], other[c]) for c in ("isl", "osl")):
            raise SpecError([(f"runs[{k}]", "is of other requests", "simulate the same trace")])
        for metric in METRICS:
            difference = np.asarray(other[metric] - first[metric], dtype=np.float64)
            kept = np.ascontiguousarray(difference[~np.isnan(difference)])
            mean, _, ends, n = _core.mean_interval(kept)
            low, high = (np.nan, np.nan) if ends is None else ends
            rows.append((k, metric, mean, low, high, n, len(difference) - n))
    names = ("run", "metric", "difference_ms", "low_95_ms", "high_95_ms", "pairs", "left_out")
    return Frame({n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)})
