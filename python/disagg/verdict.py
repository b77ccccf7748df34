"""Verdict: what to deploy, at which rate and cost, how well that is known, and what would change it."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from disagg._words import words
from disagg.result import Estimate, Result

if TYPE_CHECKING:
    from disagg.frame import Frame
    from disagg.study import Study

__all__ = ["Verdict"]

_NO_FIT = 1e6
NEAR = 0.9
"""A limit used up to this share is named as what binds."""


class Verdict(Result):
    """The answer of a study in a few lines. Made by ``study.verdict()``.

    ``print(verdict)`` and a notebook show it in words; every part is an attribute. Rates count the whole budget,
    times are in milliseconds.
    """

    _shown = ("level", "framework", "tokens_per_s_per_gpu", "ttft_ms", "tpot_ms", "measured_share")

    @property
    def feasible(self) -> bool:
        """Whether any plan keeps the limits; if not, the rest is of the nearest miss."""
        return bool(self._scalars["feasible"])

    @property
    def level(self) -> str:
        """Level of the best plan; empty where there is no plan at all."""
        return str(self._scalars["level"])

    @property
    def framework(self) -> str:
        """Framework whose kernels give it."""
        return str(self._scalars["framework"])

    @property
    def deploy(self) -> str:
        """The plan in words."""
        return str(self._scalars["deploy"])

    @property
    def estimate(self) -> Estimate | None:
        """The estimate of the plan; None where there is no plan at all."""
        found = self._scalars["estimate"]
        return None if found is None else Estimate.from_json(found)

    @property
    def plan(self) -> Any:
        """The plan itself, to hand to ``dg.estimate``; None where there is none."""
        found = self.estimate
        return None if found is None else found.plan

    @property
    def runnable(self) -> bool:
        """Whether a released server of the framework starts the plan; if not, `starts` says what does."""
        return bool(self._scalars["runnable"])

    @property
    def starts(self) -> str:
        """The server that starts the plan; or that none does, why, and the best plan that one starts."""
        return str(self._scalars["starts"])

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of the whole budget."""
        return self._float("tokens_per_s")

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """The same per GPU of the budget."""
        return self._float("tokens_per_s_per_gpu")

    @property
    def tokens_per_s_per_user(self) -> float:
        """Output tokens per second of one user."""
        return self._float("tokens_per_s_per_user")

    @property
    def ttft_ms(self) -> float:
        """Time to first token, milliseconds."""
        return self._float("ttft_ms")

    @property
    def tpot_ms(self) -> float:
        """Time per later output token, milliseconds."""
        return self._float("tpot_ms")

    @property
    def usd_per_mtok(self) -> float:
        """US dollars per million output tokens; 0 where the device has no price."""
        return self._float("usd_per_mtok")

    @property
    def measured_share(self) -> float:
        """Measured or interpolated share of the less known of TTFT and TPOT."""
        return self._float("measured_share")

    @property
    def tpot_measured_share(self) -> float:
        """The same of TPOT."""
        return self._float("tpot_measured_share")

    @property
    def ttft_measured_share(self) -> float:
        """The same of TTFT."""
        return self._float("ttft_measured_share")

    @property
    def second(self) -> dict[str, Any] | None:
        """The next level within the limits: ``level framework tokens_per_s_per_gpu behind plan``; None: no other."""
        found = self._scalars["second"]
        return None if found is None else dict(found)

    @property
    def binds(self) -> str:
        """The limit that is nearest, and how near; of a miss what is short, and by how much."""
        return str(self._scalars["binds"])

    @property
    def would_flip(self) -> list[str]:
        """Changes of limits, kernels and budget and what leads then, in words, from the plans looked at."""
        return list(self._scalars["would_flip"])

    @property
    def would_not_flip(self) -> list[str]:
        """Changes of limits and budget under which the same level leads, in words, and how the rate moves."""
        return list(self._scalars["would_not_flip"])

    @property
    def flips(self) -> Frame:
        """The same as a table: ``what side value ratio level framework tokens_per_s_per_gpu tokens_per_s_per_user``."""
        return self._frame("flips")

    @property
    def warnings(self) -> list[str]:
        """What should be known beside it, in words."""
        return list(self._scalars["warnings"])

    @property
    def headline(self) -> str:
        """The first line: what to deploy at which rate."""
        return str(self._scalars["headline"])

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


def _percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{share:.0%}"


def _change(ratio: float) -> str:
    return f"{ratio - 1:+.0%}".replace("-0%", "+0%")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def headline(study: Study) -> str:
    """Say in one line what to deploy, or that nothing keeps the limits."""
    best = _best(study)
    if best is None:
        return "No plan: no layout of the levels searched fits the model and the budget"
    if not best.feasible:
        return f"Nothing keeps the limits ({_limits(study)}); nearest: {best.level} with {best.framework} kernels"
    rates = f"{_figure(best.tokens_per_s_per_gpu)} tokens/s per GPU"
    if not math.isnan(best.tokens_per_s_per_user):
        rates += f", {_figure(best.tokens_per_s_per_user)} per user"
    return f"Deploy {best.level} with {best.framework} kernels: {rates} on {best.gpus} GPUs"


def verdict(study: Study) -> Verdict:
    """Put the verdict of a study together."""
    best = _best(study)
    flips = study.flips
    facts: dict[str, Any] = {
        "headline": headline(study),
        "feasible": best is not None and best.feasible,
        "warnings": study.warnings,
        "second": None,
        "second_words": "",
        "binds": "",
        "would_flip": [],
        "would_not_flip": [],
        "runnable": False,
        "starts": "",
        "gives": "",
        "known": "",
        "level": "",
        "framework": "",
        "deploy": "",
        "estimate": None,
    }
    if best is not None:
        facts |= {
            "level": best.level,
            "framework": best.framework,
            "deploy": words(best.plan),
            "estimate": best.to_json(),
            "gives": _gives(best),
            "known": _known(best),
            "runnable": best.runnable,
            "starts": _starts(study, best),
            "binds": _binds(study, best) if best.feasible else _short(study, best),
        }
        names = ("tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "ttft_ms", "tpot_ms")
        more = ("usd_per_mtok", "measured_share", "tpot_measured_share", "ttft_measured_share")
        for name in (*names, *more):
            value = float(getattr(best, name))
            facts[name] = value if math.isfinite(value) else None
        facts["would_flip"], facts["would_not_flip"] = _changes(study, best, flips)
    if best is not None and best.feasible:
        facts["second"], facts["second_words"] = _second(study, best)
    return Verdict(facts, {"flips": flips})


def _best(study: Study) -> Estimate | None:
    """The best estimate of all; where none keeps the limits the nearest miss."""
    found = list(study.estimates.values())
    if not found:
        return None
    if any(e.feasible for e in found):
        return study.best()
    return min(found, key=lambda e: _over(study, e))


def _over(study: Study, e: Estimate) -> float:
    """How far the worst limit is exceeded; what does not fit comes after all that is only too slow."""
    fits = not e.binding.startswith("memory")
    return max((share for share, _ in _used(study, e)), default=0.0) + (0.0 if fits else _NO_FIT)


def _limits(study: Study) -> str:
    given = (("TTFT", study.slo.ttft_ms), ("TPOT", study.slo.tpot_ms))
    return ", ".join(f"{name} {limit:g} ms" for name, limit in given if limit is not None) or "none asked"


def _gives(e: Estimate) -> str:
    if math.isnan(e.ttft_ms):
        return ""
    idle = f", {e.gpus - e.gpus_used} of {e.gpus} GPUs idle" if e.gpus_used < e.gpus else ""
    cost = f", ${e.usd_per_mtok:.3g} per million output tokens" if e.usd_per_mtok > 0 else ""
    tpot = f", TPOT {e.tpot_ms:.4g} ms" if e.tpot_ms > 0 else ""
    return f"{_figure(e.tokens_per_s)} output tokens/s in all, TTFT {e.ttft_ms:.4g} ms{tpot}{cost}{idle}"


def _starts(study: Study, e: Estimate) -> str:
    if e.runnable:
        return e.server or e.framework
    why = "; ".join(e.why_not)
    metric = _metric(study)
    others = [x for x in study.estimates.values() if x.runnable and x.feasible]
    best = max(others, key=lambda x: float(getattr(x, metric)), default=None)
    text = f"no released server{f' ({why})' if why else ''}"
    if best is None or not e.feasible:
        return text
    rate = float(getattr(best, metric))
    behind = _change(rate / float(getattr(e, metric)))
    return f"{text}; the best that one starts: {best.level} with {best.framework}, {_figure(rate)} ({behind})"


def _known(e: Estimate) -> str:
    both = [("TTFT", e.ttft_measured_share), ("TPOT", e.tpot_measured_share)]
    parts = ", ".join(f"{n} {_percent(v)}" for n, v in both if not math.isnan(v))
    scaled = max(e.evidence_ttft.get("scaled", 0.0), e.evidence_tpot.get("scaled", 0.0))
    more = f"; up to {_percent(scaled)} measured and scaled to a what-if device" if scaled > 0 else ""
    return f"{_percent(e.measured_share)} measured or interpolated ({parts}){more}" if parts else ""


def _used(study: Study, e: Estimate) -> list[tuple[float, str]]:
    """Shares of each limit that are used, and their words."""
    found = []
    for name, value, limit in (("TTFT", e.ttft_ms, study.slo.ttft_ms), ("TPOT", e.tpot_ms, study.slo.tpot_ms)):
        if limit is not None and value > 0:
            found.append((value / limit, f"{name} {value:.4g} of {limit:g} ms"))
    for pool in dict.fromkeys(e.memory["pool"].tolist() if len(e.memory) else []):
        items = {r["item"]: float(r["gib"]) for r in e.memory.filter(pool=pool).rows()}
        capacity = items.pop("capacity", math.nan)
        used = sum(items.values())
        found.append((used / capacity, f"memory of a GPU in {pool} {used:.4g} of {capacity:.4g} GiB"))
    return sorted((f for f in found if not math.isnan(f[0])), reverse=True)


def _binds(study: Study, e: Estimate) -> str:
    used = _used(study, e)
    near = [u for u in used if u[0] >= NEAR] or used[:1]
    said = "; ".join(f"{text} ({share:.0%})" for share, text in near)
    return said if used and used[0][0] >= NEAR else f"no limit is near; the nearest is {said}" if said else "nothing"


def _short(study: Study, e: Estimate) -> str:
    over = [f"{text} ({share:.2f}x)" for share, text in _used(study, e) if share > 1]
    table = study.table
    least = []
    for name, column, limit in (
        ("TTFT", "least_ttft_ms", study.slo.ttft_ms),
        ("TPOT", "least_tpot_ms", study.slo.tpot_ms),
    ):
        reached = min(table[column].tolist(), default=math.inf)
        if limit is not None and math.isfinite(reached) and reached > limit:
            least.append(f"no plan's {name} is below {reached:.4g} ms")
    return "; ".join([*over, *least]) or f"bound by {e.binding or 'nothing'}"


def _metric(study: Study) -> str:
    """What levels are compared by, as it is shown."""
    return "tokens_per_s_per_user" if study.objective == "tokens_per_s_per_user" else "tokens_per_s_per_gpu"


def _second(study: Study, best: Estimate) -> tuple[dict[str, Any] | None, str]:
    metric = _metric(study)
    lead = float(getattr(best, metric))
    others = [r for r in study.frameworks.rows() if r["feasible"]]
    level = max((r for r in others if r["level"] != best.level), key=lambda r: float(r[metric]), default=None)
    lane = max((r for r in others if r["framework"] != best.framework), key=lambda r: float(r[metric]), default=None)
    if level is None:
        return None, "no other level keeps the limits"
    names = ("level", "framework", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "plan")
    found = {n: level[n] for n in names} | {"behind": 1.0 - float(level[metric]) / lead}

    def said(r: dict[str, Any]) -> str:
        return f"{r['level']} with {r['framework']}, {_figure(float(r[metric]))} ({_change(float(r[metric]) / lead)})"

    text = said(level)
    if lane is not None and lane["framework"] != level["framework"]:
        text += f"; with other kernels {said(lane)}"
    return found, text


def _changes(study: Study, best: Estimate, flips: Frame) -> tuple[list[str], list[str]]:
    """What flips the answer, and what does not."""
    metric = _metric(study)
    here = float(getattr(best, metric)) if best.feasible else math.nan
    own = best.level if best.feasible else ""
    out, steady = [], []
    for name in dict.fromkeys(study.frameworks["framework"].tolist() if len(study.frameworks) else []):
        rows = [r for r in study.frameworks.rows() if r["framework"] == name and r["feasible"]]
        top = max(rows, key=lambda r: float(r[metric]), default=None)
        if name != best.framework and (top["level"] if top else "") != own:
            reach = f"{top['level']} leads with {_figure(float(top[metric]))}" if top else "no level keeps the limits"
            out.append(f"kernels of {name}: {reach}")
    for r in flips.rows():
        what = {"ttft_ms": "TTFT limit", "tpot_ms": "TPOT limit", "gpus": "GPUs"}[r["what"]]
        unit = "" if r["what"] == "gpus" else " ms"
        rate = float(r[metric])
        leads = f"{r['level']} with {r['framework']}, {_figure(rate)}" if r["level"] else "nothing keeps the limits"
        if r["side"] == "at" and r["level"] == own:
            moved = f"the rate moves by {_change(rate / here)}" if here > 0 else "still nothing keeps the limits"
            steady.append(f"{what} {_change(r['ratio'])} ({moved})")
        elif r["side"] == "at":
            out.append(f"{what} {_change(r['ratio'])} ({_figure(r['value'])}{unit}): {leads}")
        else:
            out.append(f"{what} {r['side']} {r['value']:.4g}{unit} ({_change(r['ratio'])}): {leads}")
    return out, steady
