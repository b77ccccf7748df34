"""The main study, ``python -m disagg.demo``: three workloads, two sets of limits, four levels, every framework.

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
from disagg._words import words

__all__ = ["main", "words"]

MODEL = "deepseek-ai/DeepSeek-V3.2"
SYSTEM = "b200_sxm"
GPUS = 128
# Workload and strict TTFT limit in ms of arXiv 2605.28302 (table 1, figure 2); its TPOT limit is 15 ms throughout.
CASES = (("paper-chat", 50.0), ("paper-coding", 100.0), ("paper-agentic", 150.0))
STRICT_TPOT_MS = 15.0
RELAXED = dg.SLO(ttft_ms=2000, tpot_ms=50)
BANDS = ("strict", "relaxed")

HEAD = ("level", "kernels", "verdict", "tok/s", "/GPU", "/user", "TTFT ms", "TPOT ms", "idle")
HEAD_MORE = ("known", "known compute", "least TTFT", "least TPOT", "plans")
LEGEND = (
    "verdict: best; equal to it; dominated (feasible, less); or no, and what binds its nearest miss, which is shown.",
    "known: share of the time behind TTFT or TPOT, whichever is known less, that is measured or interpolated, of all",
    "time and of compute time.",
    "least TTFT, TPOT: the least that any plan of the level reaches, each on its own, in ms.",
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
        feasible = self.table.filter(self.table["feasible"])
        return feasible.best("tokens_per_s") if len(feasible) else None


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "-"


def _verdict(row: dict[str, Any], best: dict[str, Any] | None) -> str:
    if best is None or not row["feasible"]:
        return f"no: {row['binding']}"
    if row["level"] == best["level"]:
        return "best"
    return "dominated" if row["tokens_per_s"] < best["tokens_per_s"] else "equal"


def _cells(row: dict[str, Any], best: dict[str, Any] | None) -> list[str]:
    rates = [_number(row[n]) for n in ("tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user")]
    times = [_number(row[n]) for n in ("ttft_ms", "tpot_ms", "idle_gpus")]
    known = [_share(row[n]) for n in ("measured_share", "compute_measured_share")]
    least = [_number(row[n]) for n in ("least_ttft_ms", "least_tpot_ms")]
    return [row["level"], row["framework"], _verdict(row, best), *rates, *times, *known, *least, f"{row['points']:,}"]


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def _rows(answer: Answer) -> list[list[str]]:
    best = answer.winner
    return [_cells(r, best) for r in answer.table.rows()]


def _plans(answer: Answer) -> list[list[str]]:
    return [[n, words(e.plan)] for n, e in answer.estimates.items()]


def _text(answer: Answer) -> str:
    plans = [f"  {name}: {plan}" for name, plan in _plans(answer)]
    return "\n".join([_aligned((*HEAD, *HEAD_MORE), _rows(answer), left=3), *plans])


def _frame(head: Sequence[str], rows: Sequence[Sequence[str]]) -> dg.Frame:
    return dg.Frame({n: [r[i] for r in rows] for i, n in enumerate(head)})


def _summary(answers: Sequence[Answer]) -> tuple[tuple[str, ...], list[list[str]]]:
    """One row a question and framework: who wins, with how much, and what binds the others."""
    rows = []
    for a in answers:
        best = a.winner
        least = [_number(min(a.table[f"least_{what}_ms"])) for what in ("ttft", "tpot")]
        won = (
            [best["level"], _number(best["tokens_per_s"]), _number(best["tokens_per_s_per_gpu"])]
            if best
            else ["none", "-", "-"]
        )
        others = ", ".join(
            f"{r['level']} {_other(r, best)}" for r in a.table.rows() if best is None or r["level"] != best["level"]
        )
        rows.append([a.workload, a.band, a.kernels, *won, *least, others])
    return (
        "workload",
        "limits",
        "kernels",
        "best level",
        "tok/s",
        "/GPU",
        "least TTFT",
        "least TPOT",
        "the others",
    ), rows


def _other(row: dict[str, Any], best: dict[str, Any] | None) -> str:
    if row["feasible"] and best is not None:
        return f"{row['tokens_per_s'] / best['tokens_per_s']:.0%}"
    return f"({row['binding']})"


def _paper(answers: Sequence[Answer]) -> str:
    """Hold the paper's headline against what was found."""
    strict = [a for a in answers if a.band == "strict"]
    lines = [
        "The paper (arXiv 2605.28302, figure 2): within the strict limits only AFD is feasible, at about 4,000 tok/s."
    ]
    for a in strict:
        rows = {r["level"]: r for r in a.table.rows()}
        feasible = [n for n, r in rows.items() if r["feasible"]]
        if feasible:
            reach = ", ".join(f"{n} {_number(rows[n]['tokens_per_s'])} tok/s" for n in feasible)
            lines.append(f"  {a.workload} with {a.kernels} kernels: feasible here: {reach}.")
        else:
            least = ", ".join(
                f"least {what.upper()} {_number(min(r[key] for r in rows.values()))} ms against {limit:g}"
                for what, key, limit in (
                    ("ttft", "least_ttft_ms", a.slo.ttft_ms or math.inf),
                    ("tpot", "least_tpot_ms", a.slo.tpot_ms or math.inf),
                )
            )
            who = f"{a.workload} with {a.kernels} kernels"
            lines.append(f"  {who}: no level is feasible; {least}, each on its own.")
    return "\n".join(lines)


def _known(answers: Sequence[Answer]) -> str:
    """Say how much of the compute time of the first workload was measured."""
    first = [a for a in answers if a.workload == answers[0].workload]
    lines = [f"Compute time that is measured or interpolated, {first[0].workload}, best plan or nearest miss:"]
    for a in first:
        shares = ", ".join(f"{r['level']} {_share(r['compute_measured_share'])}" for r in a.table.rows())
        lines.append(f"  {a.band:<8}: {shares}")
    return "\n".join(lines)


def _figures(study: dg.Study) -> list[Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    drawn = {
        "Frontier of each level, within the limits": study.plot.pareto(),
        "Throughput of AFD against its split": study.plot.ratio(),
        "Where each millisecond goes": study.plot.breakdown(),
        "What fills a GPU": study.plot.memory(),
    }
    for title, ax in drawn.items():
        ax.set_title(title, fontsize="medium", loc="left")
    return list(drawn.values())


def _misses(row: dict[str, Any]) -> float:
    """Order of the nearest misses: their TTFT; what does not fit at all comes last."""
    ttft = float(row["ttft_ms"])
    return ttft if math.isfinite(ttft) else math.inf


def _explained(answer: Answer) -> str:
    """Explain the best plan, or the nearest miss with the least TTFT."""
    rows = [r for r in answer.table.rows() if r["level"] in answer.estimates]
    best = answer.winner or min(rows, key=_misses, default=None)
    found = answer.estimates.get(best["level"]) if best else None
    return found.explain() if found else f"{answer.title}: no plan at all"


def _ask(
    model: dg.Model, cluster: dg.Cluster, case: tuple[str, float], band: str, framework: str | None
) -> tuple[Answer, dg.Study]:
    name, ttft = case
    slo = dg.SLO(ttft_ms=ttft, tpot_ms=STRICT_TPOT_MS) if band == "strict" else RELAXED
    start = time.perf_counter()
    study = dg.explore(model, cluster, dg.Workload.preset(name), slo, frameworks=framework)
    kernels = framework or "the best"
    seconds = time.perf_counter() - start
    return Answer(name, band, slo, kernels, study.table, study.estimates, study.verdict(), seconds), study


def _by_framework(answer: Answer, study: dg.Study) -> list[Answer]:
    """Give the same question answered with the kernels of each framework alone."""
    each = study.frameworks
    names = dict.fromkeys(each["framework"].tolist())
    return [replace(answer, kernels=n, table=each.filter(framework=n), estimates={}, verdict=None) for n in names]


def _short(main: Sequence[Answer], every: Sequence[Answer], *, paper: bool) -> list[Any]:
    """Give the verdict on every question, and the paper's headline where its question was asked."""
    from disagg.report import text

    verdicts = [part for a in main if a.verdict for part in (f"<h3>{a.title}</h3>".replace("<=", "&le;"), a.verdict)]
    claims = [text(_paper(every))] if paper else []
    return [*verdicts, *claims, text(_known(main))]


def _report(
    out: Path,
    title: str,
    main: Sequence[Answer],
    every: Sequence[Answer],
    *,
    figures: dict[str, list[Any]],
    paper: bool,
    seconds: float,
) -> Path:
    from disagg.report import text, write_report

    legend = "".join(f"<p>{line}</p>" for line in LEGEND)
    sections: list[tuple[str, Any]] = [
        ("In short", [_short(main, every, paper=paper), legend]),
        ("Every framework's kernels: share of the best where feasible", _frame(*_summary(every))),
    ]
    for a in main:
        tables = [_frame((*HEAD, *HEAD_MORE), _rows(a)), _frame(("level", "plan"), _plans(a))]
        pictures = figures.get(a.workload, []) if a.band == "relaxed" else []
        sections.append((a.title, [*tables, *pictures, text(_explained(a))]))
    footer = f"disagg {dg.__version__}; kernels: aiconfigurator-core 0.12.0 (Apache-2.0); made in {seconds:.0f} s"
    return write_report(out, title, sections, footer=footer)


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
    parser = argparse.ArgumentParser(prog="python -m disagg.demo", description="How far can disaggregation go?")
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
    tell = say or _print
    with _plain_errors():
        return _run(given, tell)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(given: argparse.Namespace, tell: Callable[[str], object]) -> Path:
    start = time.perf_counter()
    model, cluster = dg.Model(given.model), dg.Cluster(given.system, gpus=given.gpus)
    title = f"How far can disaggregation go? {model.name} on {cluster.gpus} {given.system}"
    tell("\n".join([title, repr(cluster), "", *LEGEND]))
    cases = CASES[:1] if given.quick else CASES
    mine: list[Answer] = []
    every: list[Answer] = []
    figures: dict[str, list[Any]] = {}
    for case in cases:
        for band in BANDS:
            answer, study = _ask(model, cluster, case, band, given.framework)
            mine.append(answer)
            every += _by_framework(answer, study)
            tell(f"\n{answer.title}: {study.priced:,} plans in {answer.seconds:.1f} s\n{_text(answer)}")
            tell("\n".join(f"  {line}" for line in str(answer.verdict).splitlines()))
            if band == "relaxed":
                figures[answer.workload] = _pictures(study, tell)
            del study
    every.sort(key=lambda a: ([c[0] for c in CASES].index(a.workload), BANDS.index(a.band)))
    tell(f"\nEvery framework's kernels: share of the best where feasible\n{_aligned(*_summary(every), left=4)}")
    # The paper's question, or another one that it says nothing about.
    paper = (model.name, cluster.system, cluster.gpus) == (MODEL, SYSTEM, GPUS)
    tell("\n".join([*(["", _paper(every)] if paper else []), "", _known(mine)]))
    seconds = time.perf_counter() - start
    path = _report(given.out, title, mine, every, figures=figures, paper=paper, seconds=seconds)
    tell(f"\nreport: {path} ({path.stat().st_size / 1e3:,.0f} kB), {time.perf_counter() - start:.0f} s in all")
    return path


def _pictures(study: dg.Study, tell: Callable[[str], object]) -> list[Any]:
    try:
        return _figures(study)
    except dg.MissingPackageError as e:
        tell(f"no pictures: {e}")
        return []


if __name__ == "__main__":
    main()
