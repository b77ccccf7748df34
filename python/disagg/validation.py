"""Published figures against predictions: target, predicted, error, source, status."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from disagg import _core, plots
from disagg._versions import __version__
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.specs._base import expect, told

__all__ = ["report", "run", "sections"]


@told(_core.validation_sections)
def sections() -> list[str]:
    return _core.validation_sections()


@told(_core.validation_run)
def run(*sections: str, ttft: bool = False, progress: Progress = None) -> Frame:
    expect(**{f"sections[{i}]": (s, str) for i, s in enumerate(sections)})
    with reporter(progress, "figures") as callback:
        return Frame._from_core(_core.validation_run(list(sections), bool(ttft), callback))


@told(_core.validation_report)
def report(path: str | Path, *sections: str, ttft: bool = False, progress: Progress = None) -> Path:
    expect(**{f"sections[{i}]": (s, str) for i, s in enumerate(sections)})
    with reporter(progress, "figures") as callback:
        text, payload, origin = _core.validation_report(list(sections), bool(ttft), callback)
    rows, file = Frame._from_core(payload), Path(path)
    pictures = []
    if file.suffix != ".md":
        file = file / "README.md"
        pictures = list(dict.fromkeys(rows["metric"].tolist()))
    file.parent.mkdir(parents=True, exist_ok=True)
    made = f"Made on {datetime.now(UTC):%Y-%m-%d} by disagg {__version__}, `dg.validation.report`."
    lines = ["# How true the predictions are\n", f"{made} Kernel tables: {origin}.\n"]
    for metric in pictures:
        picture = file.with_name(f"{metric}.png")
        plots.accuracy(rows, metric=metric).figure.canvas.print_figure(picture, dpi=110)
        lines.append(f"![measured against predicted {metric}]({picture.name})\n")
    file.write_text("\n".join([*lines, text]), encoding="utf-8")
    return file
