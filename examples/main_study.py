"""The main study, ``make demo``: three workloads, two sets of limits, four levels, every framework.

    python examples/main_study.py --help

Prints tables and writes a self-contained HTML report. Everything it shows comes from `disagg.explore`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import disagg as dg
from disagg._core import plan_words as words
from disagg._optional import require

__all__ = ["main", "words"]

MODEL = "deepseek-ai/DeepSeek-V3.2"
SYSTEM = "b200_sxm"
GPUS = 128
# Workload and strict TTFT limit in ms of arXiv 2605.28302 (table 1, figure 2); its TPOT limit is 15 ms throughout.
CASES = {"paper-chat": 50.0, "paper-coding": 100.0, "paper-agentic": 150.0}
STRICT_TPOT_MS = 15.0
RELAXED = dg.SLO(ttft_ms=2000, tpot_ms=50)
BANDS = ("strict", "relaxed")

LEGEND = (
    "verdict: best; equal to it; dominated (feasible, less); or no, and what binds its nearest miss, which is shown.",
    "known: share of the time behind TTFT or TPOT, whichever is known less, that is measured or interpolated, of all",
    "time and of compute time.",
    "least TTFT, TPOT: the least that any plan of the level reaches, each on its own, in ms.",
)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "-"


# Head, column of a study's table, and how it is written.
COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("tok/s", "tokens_per_s", _number),
    ("/GPU", "tokens_per_s_per_gpu", _number),
    ("/user", "tokens_per_s_per_user", _number),
    ("TTFT ms", "ttft_ms", _number),
    ("TPOT ms", "tpot_ms", _number),
    ("idle", "idle_gpus", _number),
    ("known", "measured_share", _share),
    ("known compute", "compute_measured_share", _share),
    ("least TTFT", "least_ttft_ms", _number),
    ("least TPOT", "least_tpot_ms", _number),
    ("plans", "points", "{:,}".format),
)


@dataclass(frozen=True)
class Answer:
    """One question and what was found: kept small, without the hundreds of thousands of points."""

    workload: str
    band: str
    slo: dg.SLO
    kernels: str
    table: dg.Frame
    estimates: dict[str, dg.Estimate]
    verdict: dg.Verdict | None
    seconds: float

    @property
    def title(self) -> str:
        """What was asked, in a line."""
        limits = f"TTFT <= {self.slo.ttft_ms:g} ms, TPOT <= {self.slo.tpot_ms:g} ms"
        return f"{self.workload}, {self.band} limits ({limits}), {self.kernels} kernels"

    @property
    def winner(self) -> dict[str, Any] | None:
        """The row of the best level; None where no level is feasible."""
        feasible = self.table.filter(feasible=True)
        return feasible.best("tokens_per_s") if len(feasible) else None

    def levels(self) -> dg.Frame:
        """One row a level, as it is shown."""
        rows, best = list(self.table.rows()), self.winner
        shown = {"level": [r["level"] for r in rows], "kernels": [r["framework"] for r in rows]}
        shown["verdict"] = [_verdict(r, best) for r in rows]
        return dg.Frame({**shown, **{head: [form(r[name]) for r in rows] for head, name, form in COLUMNS}})

    def plans(self) -> dg.Frame:
        """The plan of each level, in words."""
        return dg.Frame({"level": list(self.estimates), "plan": [words(e.plan) for e in self.estimates.values()]})

    def least(self, what: str) -> float:
        """The least ``ttft`` or ``tpot`` of any level, ms."""
        return float(self.table[f"least_{what}_ms"].min())

    def explained(self) -> str:
        """Explain the best plan, or the nearest miss with the least TTFT; what does not fit at all comes last."""
        rows = [r for r in self.table.rows() if r["level"] in self.estimates]
        nearest = min(rows, key=lambda r: r["ttft_ms"] if math.isfinite(r["ttft_ms"]) else math.inf, default=None)
        shown = self.winner or nearest
        found = self.estimates.get(shown["level"]) if shown else None
        return found.explain() if found else f"{self.title}: no plan at all"


def _verdict(row: dict[str, Any], best: dict[str, Any] | None) -> str:
    if best is None or not row["feasible"]:
        return f"no: {row['binding']}"
    if row["level"] == best["level"]:
        return "best"
    return "dominated" if row["tokens_per_s"] < best["tokens_per_s"] else "equal"


def _aligned(frame: dg.Frame, *, left: int) -> str:
    """A table of text, its first `left` columns to the left and the others to the right."""
    table = [frame.columns, *(list(row.values()) for row in frame.rows())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
    return "\n".join([lines[0].rstrip(), "-" * max(map(len, lines)), *(line.rstrip() for line in lines[1:])])


def _summary(answers: Sequence[Answer]) -> dg.Frame:
    """One row a question and framework: who wins, with how much, and what binds the others."""

    def row(a: Answer) -> dict[str, str]:
        best = a.winner
        others = []
        for r in a.table.rows():
            if best is None or r["level"] != best["level"]:
                share = f"{r['tokens_per_s'] / best['tokens_per_s']:.0%}" if best and r["feasible"] else ""
                others.append(f"{r['level']} {share or '({})'.format(r['binding'])}")
        return {
            "workload": a.workload,
            "limits": a.band,
            "kernels": a.kernels,
            "best level": best["level"] if best else "none",
            "tok/s": _number(best["tokens_per_s"]) if best else "-",
            "/GPU": _number(best["tokens_per_s_per_gpu"]) if best else "-",
            "least TTFT": _number(a.least("ttft")),
            "least TPOT": _number(a.least("tpot")),
            "the others": ", ".join(others),
        }

    rows = [row(a) for a in answers]
    return dg.Frame({name: [r[name] for r in rows] for name in rows[0]})


def _paper(answers: Sequence[Answer]) -> str:
    """Hold the paper's headline against what was found."""
    said = "within the strict limits only AFD is feasible, at about 4,000 tok/s."
    lines = [f"The paper (arXiv 2605.28302, figure 2): {said}"]
    for a in (a for a in answers if a.band == "strict"):
        feasible = [f"{r['level']} {_number(r['tokens_per_s'])} tok/s" for r in a.table.filter(feasible=True).rows()]
        found = f"feasible here: {', '.join(feasible)}."
        if not feasible:
            limits = {"ttft": a.slo.ttft_ms or math.inf, "tpot": a.slo.tpot_ms or math.inf}
            least = (f"least {n.upper()} {_number(a.least(n))} ms against {limit:g}" for n, limit in limits.items())
            found = f"no level is feasible; {', '.join(least)}, each on its own."
        lines.append(f"  {a.workload} with {a.kernels} kernels: {found}")
    return "\n".join(lines)


def _known(answers: Sequence[Answer]) -> str:
    """Say how much of the compute time of the first workload was measured."""
    first = [a for a in answers if a.workload == answers[0].workload]
    lines = [f"Compute time that is measured or interpolated, {first[0].workload}, best plan or nearest miss:"]
    for a in first:
        shares = ", ".join(f"{r['level']} {_share(r['compute_measured_share'])}" for r in a.table.rows())
        lines.append(f"  {a.band:<8}: {shares}")
    return "\n".join(lines)


def _pictures(study: dg.Study, tell: Callable[[str], object]) -> list[Any]:
    try:
        require("matplotlib", extra="plot").use("Agg")
    except dg.MissingPackageError as e:
        tell(f"no pictures: {e}")
        return []
    drawn = {
        "Frontier of each level, within the limits": study.plot.pareto(),
        "Throughput of AFD against its split": study.plot.ratio(),
        "Where each millisecond goes": study.plot.breakdown(),
        "What fills a GPU": study.plot.memory(),
    }
    for title, ax in drawn.items():
        ax.set_title(title, fontsize="medium", loc="left")
    return list(drawn.values())


def _ask(model: dg.Model, cluster: dg.Cluster, name: str, band: str, framework: str | None) -> tuple[Answer, dg.Study]:
    slo = dg.SLO(ttft_ms=CASES[name], tpot_ms=STRICT_TPOT_MS) if band == "strict" else RELAXED
    start = time.perf_counter()
    study = dg.explore(model, cluster, dg.Workload.preset(name), slo, frameworks=framework)
    seconds, kernels = time.perf_counter() - start, framework or "the best"
    return Answer(name, band, slo, kernels, study.table, study.estimates, study.verdict(), seconds), study


def _by_framework(answer: Answer, study: dg.Study) -> list[Answer]:
    """Give the same question answered with the kernels of each framework alone."""
    each = study.frameworks
    names = dict.fromkeys(each["framework"].tolist())
    return [replace(answer, kernels=n, table=each.filter(framework=n), estimates={}, verdict=None) for n in names]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong in the package's words, without a traceback."""
    try:
        yield
    except dg.DisaggError as e:
        sys.exit(f"{type(e).__name__}: {e}")
    except OSError as e:
        sys.exit(f"cannot write {e.filename}: {e.strerror}")
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How far can disaggregation go?")
    parser.add_argument("--model", default=MODEL, help="preset, or path of a Hugging Face config.json (%(default)s)")
    parser.add_argument("--system", default=SYSTEM, help="preset of the GPUs (%(default)s)")
    parser.add_argument("--gpus", type=int, default=GPUS, help="budget (%(default)s)")
    parser.add_argument("--framework", help="whose kernels; left out: all are compared")
    parser.add_argument("--quick", action="store_true", help="the first workload only")
    parser.add_argument("--out", type=Path, default=Path("disagg_report.html"), help="report to write (%(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, *, say: Callable[[str], object] | None = None) -> Path:
    """Run the study.

    Parameters
    ----------
    argv
        Options as on the command line; None: those of the process.
    say
        Where lines go; None: standard output.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    SystemExit
        With the words of the error, if a value does not fit.
    """
    given = _options(argv)
    with _plain_errors():
        return _run(given, say or _print)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(given: argparse.Namespace, tell: Callable[[str], object]) -> Path:
    from disagg.report import text, write_report

    start = time.perf_counter()
    model, cluster = dg.Model(given.model), dg.Cluster(given.system, gpus=given.gpus)
    title = f"How far can disaggregation go? {model.name} on {cluster.gpus} {given.system}"
    tell("\n".join([title, repr(cluster), "", *LEGEND]))
    mine: list[Answer] = []
    every: list[Answer] = []
    sections: list[tuple[str, Any]] = []
    for name in list(CASES)[: 1 if given.quick else None]:
        for band in BANDS:
            answer, study = _ask(model, cluster, name, band, given.framework)
            mine.append(answer)
            every += _by_framework(answer, study)
            levels, plans = answer.levels(), answer.plans()
            tell(f"\n{answer.title}: {study.priced:,} plans in {answer.seconds:.1f} s\n{_aligned(levels, left=3)}")
            tell("\n".join(f"  {p['level']}: {p['plan']}" for p in plans.rows()))
            tell("\n".join(f"  {line}" for line in str(answer.verdict).splitlines()))
            pictures = _pictures(study, tell) if band == "relaxed" else []
            sections.append((answer.title, [levels, plans, *pictures, text(answer.explained())]))
            del study
    compared, heading = _summary(every), "Every framework's kernels: share of the best where feasible"
    tell(f"\n{heading}\n{_aligned(compared, left=4)}")
    # The paper's question, or another one that it says nothing about.
    paper = (model.name, cluster.system, cluster.gpus) == (MODEL, SYSTEM, GPUS)
    claims = [*([_paper(every)] if paper else []), _known(mine)]
    tell("\n" + "\n\n".join(claims))
    verdicts = [part for a in mine for part in (f"<h3>{a.title}</h3>".replace("<=", "&le;"), a.verdict)]
    legend = "".join(f"<p>{line}</p>" for line in LEGEND)
    short = ("In short", [[*verdicts, *map(text, claims)], legend])
    footer = f"disagg {dg.__version__}; kernels: aiconfigurator-core 0.12.0 (Apache-2.0)"
    footer += f"; made in {time.perf_counter() - start:.0f} s"
    path = write_report(given.out, title, [short, (heading, compared), *sections], footer=footer)
    tell(f"\nreport: {path} ({path.stat().st_size / 1e3:,.0f} kB), {time.perf_counter() - start:.0f} s in all")
    return path


if __name__ == "__main__":
    main()
