"""Launch: the commands and files that start a plan."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

from disagg import _core, _html
from disagg.errors import SpecError
from disagg.result import Result
from disagg.specs import Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import Spec, expect

__all__ = ["Launch"]


class Launch(Result):
    """Commands and files that start a plan. Made by ``plan.launch(...)`` and ``estimate.launch()``.

    ``str()`` shows everything; `write` puts the scripts into a directory. Each flag that carries a choice of the plan
    has a comment that says which. ``MODEL`` and the hosts ``NODE0``, ``NODE1`` ... are variables of the scripts.
    """

    _shown: ClassVar[tuple[str, ...]] = ("framework", "server")

    @property
    def framework(self) -> str:
        """``vllm``, ``sglang``, ``trtllm`` or ``dynamo``."""
        return str(self._scalars["framework"])

    @property
    def server(self) -> str:
        """What the commands start, with its version."""
        return str(self._scalars["server"])

    @property
    def commands(self) -> list[str]:
        """Shell text of each process: the servers node by node, the router last."""
        return list(self._scalars["commands"])

    @property
    def files(self) -> dict[str, str]:
        """File name to text: a script a node, the router's, and configuration files where the framework takes some."""
        return dict(self._scalars["files"])

    @property
    def notes(self) -> list[str]:
        """What no flag says: choices that the framework has no switch for, and what must run beforehand."""
        return list(self._scalars["notes"])

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
        expect(
            framework=(framework, str),
            workload=(parts.get("workload"), Workload, type(None)),
            quant=(parts.get("quant"), Quant, type(None)),
            serving=(parts.get("serving"), Serving, type(None)),
            engine=(engine, str, type(None)),
            force=(force, bool),
        )
        missing = [
            (name, "is required: its facts decide the flags", f"{name}=dg.{kind.__name__}(...), or use estimate.launch()")
            for name, kind in (("model", Model), ("cluster", Cluster))
            if parts.get(name) is None
        ]
        if missing:
            raise SpecError(missing)
        expect(model=(parts["model"], Model), cluster=(parts["cluster"], Cluster))
        names = ("model", "cluster", "workload", "quant", "serving")
        model, cluster, *rest = (None if parts.get(n) is None else parts[n]._raw for n in names)
        text = _core.launch(framework, plan._raw, model, cluster, *rest, engine or "vllm", force)
        return cls(json.loads(text), {})
