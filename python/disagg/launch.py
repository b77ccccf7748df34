"""Launch: the commands and files that start a plan."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

from disagg import _core, _html
from disagg._result_base import Fact, Result, texts
from disagg.errors import SpecError
from disagg.specs._base import Spec

__all__ = ["Launch"]


def _named(value: Any) -> dict[str, str]:
    return dict(value)


class Launch(Result):
    """Commands and files that start a plan. Made by ``plan.launch(...)`` and ``estimate.launch()``.

    ``str()`` shows everything; `write` puts the scripts into a directory. Each flag that carries a choice of the plan
    has a comment that says which. ``MODEL`` and the hosts ``NODE0``, ``NODE1`` ... are variables of the scripts.
    """

    _shown: ClassVar[tuple[str, ...]] = ("framework", "server")

    framework = Fact(str, "``vllm``, ``sglang``, ``trtllm`` or ``dynamo``.")
    server = Fact(str, "What the commands start, with its version.")
    commands = Fact(texts, "Shell text of each process: the servers node by node, the router last.")
    files = Fact(
        _named,
        "File name to text: a script a node, the router's, and configuration files that a framework takes.",
    )
    notes = Fact(
        texts, "What no flag says: choices that the framework has no switch for, and what must run beforehand."
    )

    def write(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Write the files into a directory, which is made where it is missing.

        Returns
        -------
        list of Path
            What was written; scripts are executable.

        Raises
        ------
        SpecError
            If the directory cannot be written.
        """
        target = Path(directory)
        written = []
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, text in self.files.items():
                path = target / name
                path.write_text(text, encoding="utf-8")
                if name.endswith(".sh"):
                    path.chmod(0o755)
                written.append(path)
        except OSError as e:
            raise SpecError([("directory", f"cannot be written: {e}", "")]) from e
        return written

    def __str__(self) -> str:
        """Every file under its name."""
        return "\n".join(f"==> {name} <==\n{text}" for name, text in self.files.items())

    def _repr_html_(self) -> str:
        return _html.table(f"{self.framework}: {self.server}", ["file", ""], [[n, t] for n, t in self.files.items()])

    @classmethod
    def _of(
        cls, framework: str, plan: Spec, parts: dict[str, Any], *, engine: str | None = None, force: bool = False
    ) -> Self:
        """Write the launch of a plan for the parts of a question."""
        missing = [
            (n, "is required: its facts decide the flags", f"{n}=..., or estimate.launch()")
            for n in ("model", "cluster")
            if parts.get(n) is None
        ]
        if missing:
            raise SpecError(missing)
        text = _core.launch(
            framework, plan, parts["model"], parts["cluster"], parts.get("workload"), parts.get("quant"),
            parts.get("serving"), engine or "vllm", force,
        )  # fmt: skip
        return cls(json.loads(text), {})
