"""Published figures against predictions: target, predicted, error, source, status."""

from __future__ import annotations

from pathlib import Path

from disagg import _core
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.specs._base import checked, expect

__all__ = ["report", "run", "sections"]


def sections() -> list[str]:
    """List the sections there are.

    Examples
    --------
    >>> import disagg as dg
    >>> "deployed" in dg.validation.sections()
    True
    """
    return _core.validation_sections()


@checked
def run(*sections: str, ttft: bool = False, progress: Progress = None) -> Frame:
    """Set published figures against predictions. Nothing is fitted here.

    A row of the section ``network`` stands for a table of communication times: ``predicted`` is the mean absolute
    relative error, ``target`` the largest that was aimed at (NaN: none), ``status`` says whether the table was
    fitted (``fit``) or held out (``check``), and whether the target is ``met``. A row of ``served`` stands for
    a measured server: ``target`` is its measured mean, ``predicted`` the simulated one, with a device that was
    fitted to the first half of its requests (``fit``) and is judged on the second (``check``). The section ``afd``
    holds decode steps of attention and FFN pools and of the wide-EP servers measured beside them, their KV
    capacities, the best ratio of each context and the lead over wide EP; ``saturated`` holds servers with all
    requests queued, each simulated as it was run and by the closed form.

    Parameters
    ----------
    *sections
        Which sections; none: all.
    ttft
        Simulate the closed loop of every row of the section ``silicon`` too, and add its TTFT as rows of their
        own (minutes; the stop button works). Without it the section compares TPOT only.

    Returns
    -------
    Frame
        section, name, system, model, framework, metric, target, predicted, error (signed, relative), source,
        status (``ok``, or why a row is relabelled or cannot be computed), note, and for rows that stand for a table
        n, median and p95 (shares of the measured time).

    Raises
    ------
    SpecError
        If there is no such section.
    """
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
