"""Published figures against predictions: target, predicted, error, source, status."""

from __future__ import annotations

from pathlib import Path

from disagg import _core
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.specs._base import checked, expect, told

__all__ = ["report", "run", "sections"]


@told(_core.validation_sections)
def sections() -> list[str]:
    return _core.validation_sections()


@told(_core.validation_run)
def run(*sections: str, ttft: bool = False, progress: Progress = None) -> Frame:
    expect(**{f"sections[{i}]": (s, str) for i, s in enumerate(sections)})
    with reporter(progress, "figures") as callback:
        return Frame._from_core(_core.validation_run(list(sections), bool(ttft), callback))


@checked
def report(path: str | Path, *sections: str, ttft: bool = False, progress: Progress = None) -> Path:
    """Write the sections as markdown tables.

    Parameters
    ----------
    path
        File to write.
    *sections
        Which sections; none: all.
    ttft
        As in `run`.

    Returns
    -------
    Path
        The file.
    """
    expect(**{f"sections[{i}]": (s, str) for i, s in enumerate(sections)})
    with reporter(progress, "figures") as callback:
        text = _core.validation_report(list(sections), bool(ttft), callback)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
