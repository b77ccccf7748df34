"""The parts of a verdict in words: what to deploy, how well it is known, what binds, what would change it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from disagg.frame import Frame
    from disagg.result import Estimate
    from disagg.study import Study

_NO_FIT = 1e6
NEAR = 0.9
"""A limit used up to this share is named as what binds."""


def _percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{share:.0%}"


def _change(ratio: float) -> str:
    return f"{ratio - 1:+.0%}".replace("-0%", "+0%")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def headline(study: Study) -> str:
    """Say in one line what to deploy, or that nothing keeps the limits."""
    best = chosen(study)
    if best is None:
        return "No plan: no layout of the levels searched fits the model and the budget"
    if not best.feasible:
        return f"Nothing keeps the limits ({_limits(study)}); nearest: {best.level} with {best.framework} kernels"
    rates = f"{_figure(best.tokens_per_s_per_gpu)} tokens/s per GPU"
    if not math.isnan(best.tokens_per_s_per_user):
        rates += f", {_figure(best.tokens_per_s_per_user)} per user"
    return f"Deploy {best.level} with {best.framework} kernels: {rates} on {best.gpus} GPUs"


def chosen(study: Study) -> Estimate | None:
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
    said = ", ".join(f"{name} {limit:g} ms" for name, limit in given if limit is not None) or "none asked"
    chance = study.table.attrs.get("confidence")
    return f"{said} with {float(chance):.0%}" if chance else said


def gives(e: Estimate) -> str:
    if math.isnan(e.ttft_ms):
        return ""
    idle = f", {e.gpus - e.gpus_used} of {e.gpus} GPUs idle" if e.gpus_used < e.gpus else ""
    cost = f", ${e.usd_per_mtok:.3g} per million output tokens" if e.usd_per_mtok > 0 else ""
    tpot = f", TPOT {e.tpot_ms:.4g} ms{_between(e.tpot_interval)}" if e.tpot_ms > 0 else ""
    rate = f"{_figure(e.tokens_per_s)}{_between(e.rate_interval)} output tokens/s in all"
    return f"{rate}, TTFT {e.ttft_ms:.4g} ms{_between(e.ttft_interval)}{tpot}{cost}{idle}"


def _between(ends: tuple[float, float]) -> str:
    low, high = ends
    return "" if math.isnan(low) else f" ({_figure(low)} to {_figure(high)} with 80 %)"


def starts(study: Study, e: Estimate) -> str:
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


def known(e: Estimate) -> str:
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


def binds(study: Study, e: Estimate) -> str:
    used = _used(study, e)
    near = [u for u in used if u[0] >= NEAR] or used[:1]
    said = "; ".join(f"{text} ({share:.0%})" for share, text in near)
    return said if used and used[0][0] >= NEAR else f"no limit is near; the nearest is {said}" if said else "nothing"


def short(study: Study, e: Estimate) -> str:
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


def second(study: Study, best: Estimate) -> tuple[dict[str, Any] | None, str]:
    metric = _metric(study)
    lead = float(getattr(best, metric))
    others = [r for r in study.frameworks.rows() if r["feasible"]]
    level = max((r for r in others if r["level"] != best.level), key=lambda r: float(r[metric]), default=None)
    lane = max((r for r in others if r["framework"] != best.framework), key=lambda r: float(r[metric]), default=None)
    if level is None:
        return None, "no other level keeps the limits"
    names = ("level", "framework", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "plan")
    found = {n: level[n] for n in names} | {"behind": 1.0 - float(level[metric]) / lead, "equal": bool(level["equal"])}

    def said(r: dict[str, Any]) -> str:
        equal = ", equal within what is known" if r["equal"] else ""
        change = _change(float(r[metric]) / lead)
        return f"{r['level']} with {r['framework']}, {_figure(float(r[metric]))} ({change}{equal})"

    text = said(level)
    if lane is not None and lane["framework"] != level["framework"]:
        text += f"; with other kernels {said(lane)}"
    return found, text


def changes(study: Study, best: Estimate, flips: Frame) -> tuple[list[str], list[str]]:
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
