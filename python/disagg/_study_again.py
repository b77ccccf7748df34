"""What a study can be asked once more: the same search under other assumptions, or without the rules of servers."""

from __future__ import annotations

from typing import Unpack

from disagg import _core
from disagg._frozen import Frozen
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.specs import Assumptions
from disagg.specs._base import checked, takes


class Again(Frozen):
    """A search that is still at hand, and what it answers beside the study."""

    __slots__ = ("_native",)

    _native: _core.Study | None

    def _search(self) -> _core.Study:
        if self._native is None:
            raise SpecError([("study", "was read back and cannot be searched again", "explore again, then ask it")])
        return self._native

    @takes("_Audit")
    def audit(self, to: Assumptions | None = None, **options: Unpack[_core._Audit]) -> Frame:
        """Walk from the study's assumptions to others, one switch at a time, every level searched again.

        Parameters
        ----------
        to
            The other end; None: ``Assumptions.paper()``.

        Returns
        -------
        Frame
            One row a step and level: ``step switch value level effect``, the objective after the step (0
            where the level keeps no limit), ``feasible binding ttft_ms tpot_ms least_ttft_ms
            least_tpot_ms plan``. The first step is ``from``, the last ``to``; ``attrs["order"]`` states
            the order.

        Raises
        ------
        SpecError
            If a switch is not one that differs, or the study was read back from JSON or a pickle.

        Examples
        --------
        >>> import disagg as dg
        >>> study = dg.explore(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("b200_sxm", gpus=2),
        ...                    dg.Workload(isl=1024, osl=128), dg.SLO(ttft_ms=500), levels=["pd"])
        >>> walk = study.audit(to=dg.Assumptions.physical().replace(kv_transfer="ignored"))
        >>> walk["switch"].tolist()
        ['from', 'kv_transfer', 'to']
        """
        search, to = self._search(), Assumptions.paper() if to is None else to
        how, octave = options, options["batches_per_octave"]
        with reporter(how["progress"], "layouts") as report:
            found = search.audit(to, how["method"], list(how["order"]), how["orders"], how["seed"], octave, report)
            return Frame._from_core(found)

    @checked
    def lifted(self, *, progress: Progress = None) -> Frame:
        """Tell what lifting the rules of servers would gain: the same question searched once more without them.

        Returns
        -------
        Frame
            One row a level: ``level``, ``runnable_tokens_per_s_per_gpu`` (the best plan that a server starts; NaN: none
            keeps the limits), ``lifted_tokens_per_s_per_gpu`` (the best of all), ``gain`` (the second over the first,
            less one), ``plan`` and ``rules`` (those that the second breaks).

        Raises
        ------
        SpecError
            If the study was read back from JSON or a pickle.

        Examples
        --------
        >>> import disagg as dg
        >>> study = dg.explore(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=2),
        ...                    dg.Workload(isl=1024, osl=128), dg.SLO(ttft_ms=500), levels=["pd"], frameworks="vllm")
        >>> study.lifted().columns[:2]
        ['level', 'runnable_tokens_per_s_per_gpu']
        """
        search = self._search()
        with reporter(progress, "layouts") as report:
            return Frame._from_core(search.lifted(report))
