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

__all__ = ["QUESTIONS", "Question", "answers", "build", "diff", "support", "told", "write"]


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


def build(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    origin: str | None = None,
    everything: bool = False,
) -> dict[str, Any]:
    """Read wheels or directories of kernel tables into a pack (needs pyarrow and zstandard).

    Parameters
    ----------
    source
        Wheel, unpacked wheel or data directory, or several: a table that several have is that of the first.
    out
        Directory to write ``index.json`` and ``<system>.pack`` into; ``kernels.use`` reads it.
    origin
        Line that the index says of its source; None: the names of the files.
    everything
        Take every table found, not only those that are read.

    Returns
    -------
    dict
        The index as written.

    Raises
    ------
    DataError
        If a source is no wheel and no directory of tables, or a file of it cannot be read as a whole.
    """
    from disagg.kernels.build import build as pack

    several = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = [Path(s) for s in several]
    return pack(paths, Path(out), origin or ", ".join(p.name for p in paths), everything)


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
    rows: dict[str, list[Any]] = {
        name: [] for name in ("question", "level", "framework", "tokens_per_s_per_gpu", "ttft_ms", "tpot_ms")
    }
    rows["measured_share"] = []
    for question in questions:
        try:
            verdict = disagg.explore(
                disagg.Model(question.model),
                disagg.Cluster(question.system, gpus=question.gpus),
                disagg.Workload.preset(question.workload),
                disagg.SLO(ttft_ms=question.ttft_ms, tpot_ms=question.tpot_ms),
            ).verdict()
            found = (
                verdict.level if verdict.feasible else "none",
                verdict.framework,
                verdict.tokens_per_s_per_gpu,
                verdict.ttft_ms,
                verdict.tpot_ms,
                verdict.measured_share,
            )
        except SpecError as error:
            found = (f"not asked: {error}".splitlines()[0], "", 0.0, 0.0, 0.0, 0.0)
        for name, value in zip(rows, (str(question), *found), strict=True):
            rows[name].append(value)
    return Frame(rows)


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
    with _pack(old):
        before = answers(questions)
    with _pack(new):
        after = answers(questions)
    rates = list(zip(before["tokens_per_s_per_gpu"], after["tokens_per_s_per_gpu"], strict=True))
    changed = [before[n] != after[n] for n in ("level", "framework")]
    return Frame(
        {
            "question": before["question"],
            "old_level": before["level"],
            "new_level": after["level"],
            "old_framework": before["framework"],
            "new_framework": after["framework"],
            "old_rate": before["tokens_per_s_per_gpu"],
            "new_rate": after["tokens_per_s_per_gpu"],
            "ratio": [float(b / a) if a > 0.0 else 0.0 for a, b in rates],
            "old_measured": before["measured_share"],
            "new_measured": after["measured_share"],
            "moved": changed[0] | changed[1],
        }
    )


def told(moves: Frame) -> str:
    """Put a comparison in words, a line a question: what moved first."""
    lines = []
    for i in sorted(range(len(moves)), key=lambda i: not moves.row(i)["moved"]):
        r = moves.row(i)
        lead = f"{r['old_level']} ({r['old_framework']})"
        if r["moved"]:
            lead += f" -> {r['new_level']} ({r['new_framework']})"
        rate = f"{r['old_rate']:.0f} -> {r['new_rate']:.0f} tokens/s/GPU ({r['ratio']:.2f}x)"
        known = f"measured {r['old_measured']:.0%} -> {r['new_measured']:.0%}"
        lines.append(f"{'moves' if r['moved'] else 'stays'}  {r['question']}: {lead}, {rate}, {known}")
    moved = sum(bool(m) for m in moves["moved"])
    return "\n".join([f"{moved} of {len(moves)} verdicts move", *lines])


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
    for name in _core.presets("models"):
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


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write a page."""
    Path(path).write_text(text, encoding="utf-8", newline="\n")
