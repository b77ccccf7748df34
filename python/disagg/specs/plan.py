"""Deployment plans: which GPUs do what. ``None`` means "choose for me"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from disagg import _core
from disagg._core import Parallel, Placement, Pool, Workers
from disagg.specs._base import checked, takes
from disagg.specs.hardware import Cluster
from disagg.specs.model import Model
from disagg.specs.serving import Quant

if TYPE_CHECKING:
    from disagg.launch import Launch
    from disagg.rules import Runnable

__all__ = ["AFD", "PD", "Aggregated", "Parallel", "Placement", "Plan", "Pool", "Workers"]


class Plan(_core.Spec):
    """What the three kinds of plan share."""

    __slots__ = ()

    @property
    def level(self) -> str:
        """``aggregated``, ``pd``, ``aggregated+afd`` or ``pd+afd``."""
        return _core.plan_facts(self)[0]

    @property
    def gpus(self) -> int:
        """GPUs that the plan takes."""
        return _core.plan_facts(self)[1]

    @checked
    def check(self, model: Model, cluster: Cluster, *, quant: Quant | None = None) -> None:
        """Check the plan against a model and a cluster.

        Parameters
        ----------
        quant
            Number formats, whose blocks are not to be cut; None: the checkpoint's.

        Raises
        ------
        SpecError
            With every problem, e.g. a width that does not divide the heads, experts cut through blocks of a
            quantised format, or too many GPUs.

        Examples
        --------
        >>> import disagg as dg
        >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=3))
        >>> plan.check(dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("b200_sxm", gpus=8))
        Traceback (most recent call last):
        disagg.errors.SpecError: plan.parallel.tp: 3 does not divide 128 attention heads; did you mean 4?
        """
        _core.check_plan(self, model, cluster, quant)

    @takes("_Runnable")
    def runnable(self, model: Model, cluster: Cluster, **options: Unpack[_core._Runnable]) -> Runnable:
        """Say whether a server of a framework starts the plan.

        Returns
        -------
        Runnable
            True or false, with ``.server`` (what starts it) and ``.why_not`` (the rules that it breaks, what to
            write instead, and the source).

        Raises
        ------
        SpecError
            If the framework or version is unknown, the table has a slip (the field is named), or the plan does
            not fit the model.

        Examples
        --------
        >>> import disagg as dg
        >>> model, cluster = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8)
        >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=8, ep=2, moe_tp=4))
        >>> said = plan.runnable(model, cluster, framework="vllm")
        >>> bool(said), said.rules
        (False, ['vllm-experts-one-way'])
        >>> bool(plan.runnable(model, cluster, framework="sglang"))
        True
        """
        from disagg.rules import Runnable, text_of

        rules = text_of(options["rules"])
        text = _core.plan_verdict(self, model, cluster, options["framework"], options["version"], rules)
        return Runnable._from_json(text)

    @takes("_Launch")
    def launch(self, framework: str, **options: Unpack[_core._Launch]) -> Launch:
        """Give the commands and files that start the plan.

        Parameters
        ----------
        framework
            ``"vllm"``, ``"sglang"``, ``"trtllm"`` or ``"dynamo"``.

        Returns
        -------
        Launch
            ``.commands``, ``.files``, ``.notes``, ``.write(directory)``; ``str()`` shows everything.

        Raises
        ------
        SpecError
            If the plan does not fit, or breaks a rule of what the framework starts: the rule, what to write
            instead, and the source.

        Examples
        --------
        >>> import disagg as dg
        >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=2, ep=2), batch=64, chunk_tokens=2048)
        >>> model, cluster = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8)
        >>> started = plan.launch("vllm", model=model, cluster=cluster)
        >>> "--tensor-parallel-size 2" in started.commands[0], list(started.files)
        (True, ['node0.sh'])
        """
        from disagg.launch import Launch

        parts: dict[str, Any] = {**options}
        engine, force = parts.pop("engine"), parts.pop("force")
        return Launch._of(framework, self, parts, engine=engine, force=force)


class Aggregated(_core.Aggregated, Plan):  # noqa: D101 - as the native class says
    __slots__ = ()
    __doc__ = _core.Aggregated.__doc__


class AFD(_core.AFD, Plan):  # noqa: D101
    __slots__ = ()
    __doc__ = _core.AFD.__doc__


class PD(_core.PD, Plan):  # noqa: D101
    __slots__ = ()
    __doc__ = _core.PD.__doc__


def plan_from_dict(fields: dict[str, Any]) -> Aggregated | PD | AFD:
    """Make the plan that a plain dict stands for, by its `kind`."""
    kinds: dict[str, type[Aggregated | PD | AFD]] = {"pd": PD, "afd": AFD}
    return kinds.get(fields.get("kind", ""), Aggregated).from_dict(fields)
