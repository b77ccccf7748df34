"""What servers can start: the table of rules, and what it says of a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disagg import _core
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.specs._base import checked

__all__ = ["Runnable", "sentences", "table"]


def text_of(rules: Mapping[str, Any] | None) -> str | None:
    """Give a table as JSON text."""
    if rules is None:
        return None
    try:
        return json.dumps(dict(rules), allow_nan=False)
    except (TypeError, ValueError) as e:
        raise SpecError([("rules", f"is not plain data: {e}", "as in disagg/data/serving/rules.json")]) from e


def sentences(why_not: list[dict[str, str]]) -> list[str]:
    """Give the broken rules of `why_not` in words: rule, field, what is wrong, what to write instead, source."""
    return [f"{v['rule']}: {v['path']}: {v['message']}; {v['instead']} [{v['source']}]" for v in why_not]


@dataclass(frozen=True)
class Runnable:
    """Whether a server starts a plan; true or false in itself.

    Parameters
    ----------
    runnable
        Whether a released server starts it.
    server
        Which one, with its version; None: none.
    why_not
        A sentence for each rule that it breaks: the rule, the field, what is wrong, what to write instead, the source.
    rules
        Names of these rules.
    """

    runnable: bool
    server: str | None
    why_not: list[str]
    rules: list[str]

    def __bool__(self) -> bool:
        """Whether a released server starts it."""
        return self.runnable

    @classmethod
    def _from_json(cls, text: str) -> Runnable:
        found = json.loads(text)
        names = list(dict.fromkeys(v["rule"] for v in found["why_not"]))
        return cls(found["runnable"], found["server"], sentences(found["why_not"]), names)


@checked
def table(rules: Mapping[str, Any] | None = None) -> Frame:
    """Give the rules of what servers can start, each with its source.

    Parameters
    ----------
    rules
        A table of your own, checked and shown; None: the shipped one.

    Returns
    -------
    Frame
        A row a rule: ``name``, ``frameworks``, ``since`` and ``until`` (versions; empty: open), ``condition``,
        ``source``, ``instead`` (what to write instead).

    Raises
    ------
    SpecError
        If the table names an unknown framework, condition or field.

    Examples
    --------
    >>> import disagg as dg
    >>> shipped = dg.rules.table()
    >>> "vllm-experts-one-way" in shipped["name"].tolist()
    True
    >>> dg.rules.table({"servers": [], "rules": [{"name": "x", "frameworks": ["vlm"]}]})
    Traceback (most recent call last):
    disagg.errors.SpecError: rules.rules[0].frameworks[0]: unknown value 'vlm'; did you mean 'vllm'?
    """
    rows = _core.rules_table(text_of(rules))
    shown = {
        "name": [r["name"] for r in rows],
        "frameworks": [", ".join(r["frameworks"]) for r in rows],
        "since": [r["since"] or "" for r in rows],
        "until": [r["until"] or "" for r in rows],
        "condition": [json.dumps(r["condition"]) for r in rows],
        "source": [r["source"] for r in rows],
        "instead": [r["instead"] for r in rows],
    }
    return Frame(shown)
