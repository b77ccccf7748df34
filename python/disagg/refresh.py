"""Kernel tables kept up to date: packs built from wheels, what a new one moves, the page that says what was measured.

``disagg data build``, ``diff`` and ``support`` are these functions.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import disagg
from disagg import _core, kernels
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.kernels.build import build

__all__ = ["QUESTIONS", "Question", "answers", "build", "diff", "support", "told"]


class Question(NamedTuple):
    """A question whose verdict a refresh of the tables should leave alone, or move for a reason."""

    model: str
    system: str
    gpus: int
    workload: str
    ttft_ms: float
    tpot_ms: float

    def __str__(self) -> str:
        """In words."""
        return f"{self.model.rsplit('/', 1)[-1]}, {self.gpus} {self.system}, {self.workload}"


#: Each family that was measured, on Hopper and on Blackwell.
QUESTIONS: tuple[Question, ...] = (
    Question("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 32, "paper-chat", 2000.0, 50.0),
    Question("deepseek-ai/DeepSeek-V3.2", "h200_sxm", 32, "paper-agentic", 5000.0, 100.0),
    Question("Qwen/Qwen3-235B-A22B-FP8", "h200_sxm", 16, "paper-chat", 2000.0, 50.0),
    Question("openai/gpt-oss-120b", "b200_sxm", 8, "paper-chat", 1000.0, 30.0),
    Question("deepseek-ai/DeepSeek-V4-Flash", "b200_sxm", 16, "paper-coding", 2000.0, 50.0),
    Question("Qwen/Qwen3.5-397B-A17B", "b200_sxm", 16, "paper-chat", 2000.0, 50.0),
    Question("moonshotai/Kimi-K3", "gb300", 64, "paper-agentic", 5000.0, 100.0),
    Question("MiniMaxAI/MiniMax-M3", "b200_sxm", 16, "paper-coding", 2000.0, 50.0),
)


@contextlib.contextmanager
def _pack(source: str | os.PathLike[str]) -> Iterator[None]:
    """Have all that is asked answered by a pack, or by that of a wheel."""
    with contextlib.ExitStack() as scratch:
        at = kernels.shipped() if str(source) == "shipped" else Path(source)
        if not (at / "index.json").is_file():
            made = scratch.enter_context(tempfile.TemporaryDirectory())
            build(at, made)
            at = Path(made)
        before = kernels.in_use()
        kernels.use(at)
        try:
            yield
        finally:
            kernels.use(before)


def answers(questions: Sequence[Question] = QUESTIONS) -> Frame:
    """Ask the standard questions of the tables in use.

    Returns
    -------
    Frame
        question, level, framework, tokens_per_s_per_gpu, ttft_ms, tpot_ms and measured_share of the best plan; of a
        question that cannot be asked, the reason in ``level``.
    """
    names = ("level", "framework", "tokens_per_s_per_gpu", "ttft_ms", "tpot_ms", "measured_share")
    rows: list[tuple[Any, ...]] = []
    for q in questions:
        model, cluster = disagg.Model(q.model), disagg.Cluster(q.system, gpus=q.gpus)
        slo = disagg.SLO(ttft_ms=q.ttft_ms, tpot_ms=q.tpot_ms)
        try:
            found = disagg.explore(model, cluster, disagg.Workload.preset(q.workload), slo).verdict()
            best = [getattr(found, n) for n in names]
            rows.append((str(q), best[0] if found.feasible else "none", *best[1:]))
        except SpecError as error:
            rows.append((str(q), f"not asked: {error}".splitlines()[0], "", 0.0, 0.0, 0.0, 0.0))
    return Frame(dict(zip(("question", *names), map(list, zip(*rows, strict=True)), strict=True)))


def diff(
    old: str | os.PathLike[str], new: str | os.PathLike[str], *, questions: Sequence[Question] = QUESTIONS
) -> Frame:
    """Say which verdicts of the standard questions move between two packs of kernel tables.

    Parameters
    ----------
    old, new
        Directory of a pack, a wheel, or ``"shipped"``.

    Returns
    -------
    Frame
        question, old_level, new_level, old_framework, new_framework, old_rate, new_rate (output tokens/s/GPU), ratio
        (new over old; 0 where there is none), old_measured, new_measured and moved: another level or framework leads.
    """
    found = []
    for pack in (old, new):
        with _pack(pack):
            found.append(answers(questions))
    before, after = found
    kept = {"level": "level", "framework": "framework", "rate": "tokens_per_s_per_gpu", "measured": "measured_share"}
    columns: dict[str, Any] = {"question": before["question"]}
    for name, column in kept.items():
        columns |= {f"old_{name}": before[column], f"new_{name}": after[column]}
        if name == "rate":
            rates = zip(before[column], after[column], strict=True)
            columns["ratio"] = [float(b / a) if a > 0.0 else 0.0 for a, b in rates]
    moved = [columns[f"old_{n}"] != columns[f"new_{n}"] for n in ("level", "framework")]
    return Frame({**columns, "moved": moved[0] | moved[1]})


def told(moves: Frame) -> str:
    """Put a comparison in words, a line a question: what moved first."""
    lines = []
    for r in sorted(moves.rows(), key=lambda r: not r["moved"]):
        lead = f"{r['old_level']} ({r['old_framework']})"
        if r["moved"]:
            lead += f" -> {r['new_level']} ({r['new_framework']})"
        rate = f"{r['old_rate']:.0f} -> {r['new_rate']:.0f} tokens/s/GPU ({r['ratio']:.2f}x)"
        known = f"measured {r['old_measured']:.0%} -> {r['new_measured']:.0%}"
        lines.append(f"{'moves' if r['moved'] else 'stays'}  {r['question']}: {lead}, {rate}, {known}")
    moved = sum(bool(m) for m in moves["moved"])
    return "\n".join([f"{moved} of {len(moves)} verdicts move", *lines])


def known(system: str, framework: str, *, samples: int, seed: int) -> str:
    """Say how well the tables of a framework predict their own rows, and which lanes look wrong, a line each."""
    errors = kernels.report(system, framework, samples=samples, seed=seed)
    shares, names = ("median_error", "p90_error", "noise", "jitter"), ("table", "lane", "axis", "edge", "n")
    lines = ["  ".join((*names, *shares))]
    for r in errors.rows():
        said = [str(r[n]) for n in names] + [f"{r[n]:.1%}" if r[n] == r[n] else "-" for n in shares]
        lines.append("  ".join(said) + ("" if r["within"] else "  worse than aimed at"))
    doubtful = list(kernels.suspects(system, framework).rows())
    lines += ["", f"{len(doubtful)} suspect lanes:", *(f"{r['table']} {r['lane']}: {r['reason']}" for r in doubtful)]
    return "\n".join(lines)


_HEAD = """# What was measured

Made from the kernel tables by `disagg data support --out docs/support.md`; not to be edited.

Tables: {origin}.

## Versions

Tables of each version of a framework. The first is meant where none is named, and the newest that measured the model
where that one has not; `framework="vllm@0.25"` names one.

| system | framework | versions (tables) |
|---|---|---|
{versions}

## Models

Frameworks that measured what sets a model apart: its experts at their sizes, its latent, sparse or compressed attention
or the width of its heads, its running state. Others are priced from the nearest rows or by roofline, and tagged so.

| model | {systems} |
|---|{line}
{models}
"""


def _versions(system: str, framework: str) -> str:
    """Versions of a framework and how many tables each has, the usual one first."""
    tables = kernels.tables(system, framework)
    rows = [tables.row(i) for i in range(len(tables))]
    usual = next(r["version"] for r in rows if r["table"] == "gemm" and r["default"])
    order = [usual, *(v for v in _core.kernels_versions(system, framework) if v != usual)]
    return ", ".join(f"{v} ({sum(r['version'] == v for r in rows)})" for v in order)


def support() -> str:
    """Give the page that says which models and frameworks were measured where, from the tables in use.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> from disagg import refresh
    >>> refresh.support().splitlines()[0]
    '# What was measured'
    """
    systems = kernels.systems()
    versions = [f"| {s} | {f} | {_versions(s, f)} |" for s in systems for f in kernels.frameworks(s)]
    models = []
    for name in _core.preset_models():
        known = dict(_core.kernels_known(disagg.Model(name)))
        cells = [", ".join(known.get(s, [])) or "-" for s in systems]
        models.append(f"| {name} | {' | '.join(cells)} |")
    return _HEAD.format(
        origin=_core.kernels_origin(),
        versions="\n".join(versions),
        systems=" | ".join(systems),
        line="---|" * len(systems),
        models="\n".join(models),
    )
