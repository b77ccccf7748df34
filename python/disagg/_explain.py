"""Estimates in words: the breakdown behind a number, and the reason behind a difference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from disagg.frame import Frame

if TYPE_CHECKING:
    from disagg.result import Estimate

# Smaller parts are summed up in one line.
LEAST_SHARE = 0.005

_QUANTITIES = (
    "ttft_ms",
    "tpot_ms",
    "itl_worst_ms",
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_user",
    "requests_per_s",
    "concurrency",
    "gpus",
    "usd_per_mtok",
)
# Which phases of the breakdown stand behind a latency: what one level calls prefill another does in mixed steps.
_PHASES = {
    "ttft_ms": ("prefill", "mixed"),
    "tpot_ms": ("decode",),
    "itl_worst_ms": ("mixed",),
    "tokens_per_s_per_user": ("decode",),
}


def explain(estimate: Estimate) -> str:
    """Write the breakdown, the memory and the evidence of an estimate as text."""
    e = estimate
    bound = f", bound by {e.binding}" if e.binding else ""
    head = "feasible" if e.feasible else "NOT FEASIBLE"
    known = "; ".join(f"{name} {shares}" for name, shares in e._shares())
    rates = f"{e.tokens_per_s_per_gpu:,.1f} per GPU, {e.tokens_per_s_per_user:,.1f} per user"
    lines = [
        f"{e.level} on {e.gpus} GPUs ({head}{bound})",
        f"  TTFT {e.ttft_ms:.4g} ms, TPOT {e.tpot_ms:.4g} ms, {e.tokens_per_s:,.0f} output tokens/s ({rates})",
        *_path(e),
        *_intervals(e),
        f"  plan: {e.plan!r}",
        f"  kernels: {e._scalars.get('kernels') or 'none'}; evidence: {known or 'none'}",
    ]
    lines += [f"  runs on: {e.server}"] if e.server else [f"  NOT RUNNABLE: {why}" for why in e.why_not]
    lines += [f"  {lane}" for lane in e.lanes]
    lines += [f"  warning: {w}" for w in e.warnings]
    if e.formats:
        lines.append("  formats: " + "; ".join(f"{part} {said}" for part, said in e.formats.items()))
    lines += _times(e.breakdown)
    lines += _memory(e.memory)
    if len(e.memory):
        lines.append(f"KV room: {e.kv_tokens:,} tokens an attention rank, {e.max_sequences:,} requests in all")
    return "\n".join(lines)


def _path(e: Estimate) -> list[str]:
    waits = {name: ms for name, ms in e.ttft_path_ms.items() if ms > 0}
    if not waits:
        return []
    said = ", ".join(f"{name.replace('_', ' ')} {ms:.3g}" for name, ms in waits.items())
    return [f"  TTFT = {e.ttft_service_ms:.4g} ms of service + {sum(waits.values()):.4g} ms outside of it ({said})"]


def _intervals(e: Estimate) -> list[str]:
    found = (
        ("TTFT", e.ttft_interval, " ms", "ttft_ms"),
        ("TPOT", e.tpot_interval, " ms", "tpot_ms"),
        ("rate", e.rate_interval, " tokens/s", "tokens_per_s"),
        ("KV room", e.kv_interval, " tokens", "kv_tokens"),
    )
    lines: dict[str, list[str]] = {}
    for name, (low, high), unit, key in found:
        if not math.isnan(low):
            said = f"{name} {low:,.4g} to {high:,.4g}{unit}"
            lines.setdefault(str(e._scalars["intervals"][key]["from"]), []).append(said)
    return [f"  within, with 80 %: {', '.join(said)}; from {source}" for source, said in lines.items()]


def _times(frame: Frame) -> list[str]:
    if len(frame) == 0:
        return []
    lines = []
    for phase in dict.fromkeys(frame["phase"].tolist()):
        rows = frame.filter(phase=phase)
        total = float(rows["ms"].sum())
        lines.append(f"{phase}: {total:.4g} ms")
        part = rows.sort("ms", descending=True)
        shown = [r for r in part.rows() if total == 0 or r["ms"] / total >= LEAST_SHARE]
        for r in shown:
            share = r["ms"] / total if total else 0.0
            name = f"{r['pool']!s:<10} {r['op']!s:<24}"
            across = f", {r['tier']}" if r["tier"] else ""
            lines.append(f"  {name} {r['ms']:>10.4g} ms {share:>5.0%}  {r['evidence']}{across}")
        rest = total - sum(r["ms"] for r in shown)
        if len(shown) < len(rows):
            lines.append(f"  {'':<10} {f'{len(rows) - len(shown)} smaller parts':<24} {rest:>10.4g} ms")
    return lines


def _memory(frame: Frame) -> list[str]:
    lines = []
    for pool in dict.fromkeys(frame["pool"].tolist() if len(frame) else []):
        items = {r["item"]: float(r["gib"]) for r in frame.filter(pool=pool).rows()}
        capacity = items.pop("capacity", math.nan)
        outside = items.pop("outside the fraction", 0.0)
        of = "" if math.isnan(capacity) else f" of {capacity:.4g}"
        left = f", {outside:.3g} left outside the server's fraction" if outside else ""
        parts = ", ".join(f"{k} {v:.3g}" for k, v in sorted(items.items(), key=lambda kv: -kv[1]) if v)
        lines.append(f"memory of a GPU in {pool}: {sum(items.values()):.4g}{of} GiB ({parts}{left})")
    return lines


def _parts(frame: Frame, phases: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for r in frame.rows():
        if r["phase"] in phases:
            found[str(r["op"])] = found.get(str(r["op"]), 0.0) + float(r["ms"])
    return found


def _reason(name: str, a: Estimate, b: Estimate) -> str:
    if name in ("tokens_per_s", "tokens_per_s_per_gpu", "requests_per_s", "usd_per_mtok"):
        return (
            f"concurrency {a.concurrency:,.4g} -> {b.concurrency:,.4g}, TPOT {a.tpot_ms:.4g} -> {b.tpot_ms:.4g} ms, "
            f"bound by {a.binding or 'nothing'} -> {b.binding or 'nothing'}"
        )
    if name not in _PHASES:
        return ""
    mine, theirs = _parts(a.breakdown, _PHASES[name]), _parts(b.breakdown, _PHASES[name])
    changes = {k: theirs.get(k, 0.0) - mine.get(k, 0.0) for k in [*mine, *theirs]}
    if not changes:
        return ""
    most = max(changes, key=lambda k: abs(changes[k]))
    where = " and ".join(_PHASES[name])
    return f"{most} in {where} {changes[most]:+.4g} ms" if changes[most] else "the same parts"


def compare(a: Estimate, b: Estimate) -> Frame:
    """Set two estimates side by side, with the reason for each difference."""
    rows: list[dict[str, Any]] = []
    for name in _QUANTITIES:
        x, y = float(getattr(a, name)), float(getattr(b, name))
        if math.isnan(x) and math.isnan(y):
            continue
        rows.append(
            {
                "quantity": name,
                "this": x,
                "other": y,
                "difference": y - x,
                "ratio": y / x if x else math.nan,
                "reason": "" if x == y else _reason(name, a, b),
            }
        )
    names = ("quantity", "this", "other", "difference", "ratio", "reason")
    attrs = {"this": repr(a.plan), "other": repr(b.plan)}
    return Frame({n: [r[n] for r in rows] for n in names}, attrs=attrs)
