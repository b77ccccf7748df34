"""Verdict: what to deploy, at which rate and cost, how well that is known, and what would change it."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from disagg import _core
from disagg._result_base import Fact, Result, Table, number, texts
from disagg.frame import Frame
from disagg.result import Estimate

if TYPE_CHECKING:
    from disagg.study import Study

__all__ = ["Verdict"]

ROW = ("level", "framework", "feasible", "equal", "tokens_per_s_per_gpu", "tokens_per_s_per_user")
FIGURES = (
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_user",
    "ttft_ms",
    "tpot_ms",
    "usd_per_mtok",
    "measured_share",
    "tpot_measured_share",
    "ttft_measured_share",
)


def _estimate(value: Any) -> Estimate | None:
    return None if value is None else Estimate.from_json(value)


def _row(value: Any) -> dict[str, Any] | None:
    return None if value is None else dict(value)


class Verdict(Result):
    """The answer of a study in a few lines. Made by ``study.verdict()``.

    ``print(verdict)`` and a notebook show it in words; every part is an attribute. Rates count the whole budget,
    times are in milliseconds.
    """

    _shown = ("level", "framework", "tokens_per_s_per_gpu", "ttft_ms", "tpot_ms", "measured_share")

    feasible = Fact(bool, "Whether any plan keeps the limits; if not, the rest is of the nearest miss.")
    level = Fact(str, "Level of the best plan; empty where there is no plan at all.")
    framework = Fact(str, "Framework whose kernels give it.")
    headline = Fact(str, "The first line: what to deploy at which rate.")
    deploy = Fact(str, "The plan in words.")
    estimate = Fact(_estimate, "The estimate of the plan; None where there is no plan at all.")
    runnable = Fact(
        bool, "Whether a released server of the framework starts the plan; if not, `starts` says what does."
    )
    starts = Fact(str, "The server that starts the plan; or that none does, why, and the best plan that one starts.")
    tokens_per_s = Fact(number, "Output tokens per second of the whole budget.")
    tokens_per_s_per_gpu = Fact(number, "The same per GPU of the budget.")
    tokens_per_s_per_user = Fact(number, "Output tokens per second of one user.")
    ttft_ms = Fact(number, "Time to first token, milliseconds.")
    tpot_ms = Fact(number, "Time per later output token, milliseconds.")
    usd_per_mtok = Fact(number, "US dollars per million output tokens; 0 where the device has no price.")
    measured_share = Fact(number, "Measured or interpolated share of the less known of TTFT and TPOT.")
    tpot_measured_share = Fact(number, "The same of TPOT.")
    ttft_measured_share = Fact(number, "The same of TTFT.")
    second = Fact(
        _row,
        "The next level within the limits: ``level framework tokens_per_s_per_gpu behind equal plan``; None: no other. "
        "`equal`: what is known does not tell its rate from the best one's.",
    )
    binds = Fact(str, "The limit that is nearest, and how near; of a miss what is short, and by how much.")
    would_flip = Fact(
        texts, "Changes of limits, kernels and budget and what leads then, in words, from the plans looked at."
    )
    would_not_flip = Fact(
        texts, "Changes of limits and budget under which the same level leads, in words, and how the rate moves."
    )
    warnings = Fact(texts, "What should be known beside it, in words.")
    flips = Table(
        "The changes as a table: ``what side value ratio level framework tokens_per_s_per_gpu tokens_per_s_per_user``."
    )

    @property
    def plan(self) -> Any:
        """The plan itself, to hand to ``dg.estimate``; None where there is none."""
        return None if self.estimate is None else self.estimate.plan

    def _lines(self) -> list[tuple[str, str]]:
        """Heads and texts below the headline."""
        s = self._scalars
        lines = [("plan", self.deploy), ("starts on", s["starts"]), ("gives", s["gives"]), ("known", s["known"])]
        lines += [("second", s["second_words"]), ("binds", self.binds)]
        lines += [("would flip it", text) for text in self.would_flip]
        lines += [("would not flip it", "; ".join(self.would_not_flip))]
        return [(k, v) for k, v in lines if v] + [("warning", w) for w in self.warnings]

    def __str__(self) -> str:
        """Give the verdict in words, one line a point."""
        return "\n".join([self.headline, *(f"  {head}: {text}" for head, text in self._lines())])

    def _repr_html_(self) -> str:
        items = "".join(f"<div><i>{escape(head)}:</i> {escape(text)}</div>" for head, text in self._lines())
        return f"<div><b>{escape(self.headline)}</b>{items}</div>"


def told(study: Study, flips: Frame) -> dict[str, Any]:
    """Give the verdict of a study in words: of its level, what the core says of the study's tables."""
    names = ("least_ttft_ms", "least_tpot_ms")
    facts = {
        "objective": study.objective,
        "slo": study.slo,
        "confidence": study.table.attrs.get("confidence"),
        "estimates": {level: e._told() for level, e in study.estimates.items()},
        "frameworks": [{n: r[n] for n in ROW} for r in study.frameworks.rows()],
        "flips": list(flips.rows()),
        "least": [{n: r[n] for n in names} for r in study.table.rows()],
    }
    return _core.verdict(facts)


def verdict(study: Study) -> Verdict:
    """Put the verdict of a study together."""
    flips = study.flips
    facts = told(study, flips) | {"warnings": study.warnings, "feasible": False, "runnable": False}
    facts |= {"framework": "", "deploy": "", "estimate": None}
    place, facts["second"] = facts["second"], None
    if facts["level"]:
        best = study.estimates[facts["level"]]
        figures = ((n, float(getattr(best, n))) for n in FIGURES)
        facts |= {n: value if math.isfinite(value) else None for n, value in figures}
        facts |= {"framework": best.framework, "feasible": best.feasible, "runnable": best.runnable}
        facts |= {"deploy": _core.plan_words(best.plan), "estimate": best.to_json()}
    if place is not None:
        row, behind = study.frameworks.row(place[0]), place[1]
        facts["second"] = {n: row[n] for n in (*ROW, "plan") if n != "feasible"} | {"behind": behind}
    return Verdict(facts, {"flips": flips})
