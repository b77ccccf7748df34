"""Deployment plans: which GPUs do what. ``None`` means "choose for me"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from disagg import _core
from disagg.specs._base import Field, Spec, checked, expect
from disagg.specs.hardware import Cluster, Device
from disagg.specs.model import Model
from disagg.specs.serving import Quant, Serving
from disagg.specs.workload import Workload

if TYPE_CHECKING:
    from disagg.launch import Launch
    from disagg.rules import Runnable

Side = Literal["attention", "ffn"]


class Parallel(Spec, hashable=True):
    """How one worker is split over GPUs.

    Parameters
    ----------
    tp
        Tensor-parallel width of attention and dense layers.
    dp
        Data-parallel attention ranks.
    pp
        Pipeline stages.
    cp
        Context-parallel ranks (prefill only).
    ep
        Expert-parallel width; None: ``tp * dp * cp / moe_tp``.
    moe_tp
        Tensor-parallel width of the experts.

    Notes
    -----
    ``tp * dp * cp == ep * moe_tp``; a worker takes ``tp * dp * cp * pp`` GPUs.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Parallel(tp=1, dp=8)
    Parallel(tp=1, dp=8, pp=1, cp=1, moe_tp=1)
    """

    tp: Field[int] = Field("Tensor-parallel width of attention and dense layers.")
    dp: Field[int] = Field("Data-parallel attention ranks.")
    pp: Field[int] = Field("Pipeline stages.")
    cp: Field[int] = Field("Context-parallel ranks (prefill only).")
    ep: Field[int | None] = Field("Expert-parallel width; None: tp * dp * cp / moe_tp.")
    moe_tp: Field[int] = Field("Tensor-parallel width of the experts.")

    def __init__(
        self, *, tp: int = 1, dp: int = 1, pp: int = 1, cp: int = 1, ep: int | None = None, moe_tp: int = 1
    ) -> None:
        self._build(tp=tp, dp=dp, pp=pp, cp=cp, ep=ep, moe_tp=moe_tp)


class Plan(Spec):
    """What the three kinds of plan share."""

    @property
    def level(self) -> str:
        """``aggregated``, ``pd``, ``aggregated+afd`` or ``pd+afd``."""
        return _core.plan_facts(self._raw)[0]

    @property
    def gpus(self) -> int:
        """GPUs that the plan takes."""
        return _core.plan_facts(self._raw)[1]

    @checked
    def check(self, model: Model, cluster: Cluster, *, quant: Quant | None = None) -> None:
        """Check the plan against a model and a cluster.

        Parameters
        ----------
        model, cluster
            What is to be served, and on what.
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
        expect(model=(model, Model), cluster=(cluster, Cluster), quant=(quant, Quant, type(None)))
        _core.check_plan(self._raw, model._raw, cluster._raw, None if quant is None else quant._raw)

    @checked
    def runnable(
        self,
        model: Model,
        cluster: Cluster,
        *,
        framework: str,
        version: str | None = None,
        rules: Mapping[str, Any] | None = None,
    ) -> Runnable:
        """Say whether a server of a framework starts the plan.

        Parameters
        ----------
        model, cluster
            What is to be served, and on what.
        framework
            ``"vllm"``, ``"sglang"`` or ``"trtllm"``.
        version
            Of the framework; None: the one whose kernels price.
        rules
            A table of rules of your own; None: the shipped one (``dg.rules.table()``).

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

        expect(
            model=(model, Model),
            cluster=(cluster, Cluster),
            framework=(framework, str),
            version=(version, str, type(None)),
            rules=(rules, Mapping, type(None)),
        )
        text = _core.plan_verdict(self._raw, model._raw, cluster._raw, framework, version, text_of(rules))
        return Runnable._from_json(text)

    @checked
    def launch(
        self,
        framework: str,
        *,
        model: Model | None = None,
        cluster: Cluster | None = None,
        workload: Workload | None = None,
        quant: Quant | None = None,
        serving: Serving | None = None,
        engine: str | None = None,
        force: bool = False,
    ) -> Launch:
        """Give the commands and files that start the plan.

        Parameters
        ----------
        framework
            ``"vllm"``, ``"sglang"``, ``"trtllm"`` or ``"dynamo"``.
        model, cluster
            What is to be served, and on what.
        workload
            Sets the longest sequence; None: the model's.
        quant, serving
            As in `estimate`; None: the checkpoint's formats, and no speculation.
        engine
            What runs below Dynamo; None: ``"vllm"``.
        force
            Whether to write the commands of a plan that breaks a rule as well; the rules stand in ``.notes``.

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

        parts = {"model": model, "cluster": cluster, "workload": workload, "quant": quant, "serving": serving}
        return Launch._of(framework, self, parts, engine=engine, force=force)


class Workers(Spec, hashable=True):
    """Equal workers that fill the prefill or the decode slot of a `PD` plan.

    Parameters
    ----------
    count
        Number of workers.
    parallel
        How each is split.
    batch
        Decode: sequences per attention rank. Prefill: sequences per step and attention rank.
    chunk_tokens
        Token budget of a prefill step.
    two_batch_overlap
        Whether two half batches may overlap compute and communication; None: as `Serving` says.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Workers(count=2, parallel=dg.Parallel(dp=8)).count
    2
    """

    count: Field[int] = Field("Number of workers.")
    parallel: Field[Parallel] = Field("How each is split.", "Parallel")
    batch: Field[int | None] = Field("Sequences per attention rank; None: chosen.")
    chunk_tokens: Field[int | None] = Field("Token budget of a prefill step; None: chosen.")
    two_batch_overlap: Field[bool | None] = Field("Whether two half batches may overlap; None: as Serving says.")

    def __init__(
        self,
        *,
        count: int,
        parallel: Parallel,
        batch: int | None = None,
        chunk_tokens: int | None = None,
        two_batch_overlap: bool | None = None,
    ) -> None:
        self._build(
            count=count,
            parallel=parallel,
            batch=batch,
            chunk_tokens=chunk_tokens,
            two_batch_overlap=two_batch_overlap,
        )


class Aggregated(Plan, hashable=True):
    """Chunked prefill and decode on the same GPUs.

    Parameters
    ----------
    parallel
        How each replica is split.
    batch
        Sequences per attention rank.
    chunk_tokens
        Token budget of a step per attention rank.
    replicas
        Equal copies.
    two_batch_overlap
        Whether two half batches may overlap compute and communication; None: as `Serving` says.
    prefill_interval
        Prompt tokens join every n-th step at most; None: as `Serving` says.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Aggregated(parallel=dg.Parallel(dp=8), replicas=4).replicas
    4
    """

    parallel: Field[Parallel] = Field("How each replica is split.", "Parallel")
    batch: Field[int | None] = Field("Sequences per attention rank; None: chosen.")
    chunk_tokens: Field[int | None] = Field("Token budget of a step per attention rank; None: chosen.")
    replicas: Field[int] = Field("Equal copies.")
    two_batch_overlap: Field[bool | None] = Field("Whether two half batches may overlap; None: as Serving says.")
    prefill_interval: Field[int | None] = Field("Prompt tokens join every n-th step; None: as Serving says.")

    def __init__(
        self,
        *,
        parallel: Parallel,
        batch: int | None = None,
        chunk_tokens: int | None = None,
        replicas: int = 1,
        two_batch_overlap: bool | None = None,
        prefill_interval: int | None = None,
    ) -> None:
        self._build(
            parallel=parallel,
            batch=batch,
            chunk_tokens=chunk_tokens,
            replicas=replicas,
            two_batch_overlap=two_batch_overlap,
            prefill_interval=prefill_interval,
        )


class Pool(Spec, hashable=True):
    """One pool of an AFD unit.

    Parameters
    ----------
    gpus
        GPUs of the pool; odd sizes are welcome.
    tp
        Attention pool: tensor-parallel width of a rank.
    ep
        FFN pool: expert-parallel width; None: as wide as the pool allows.
    moe_tp
        FFN pool: tensor-parallel width of the experts.
    device
        Hardware of this pool; None: the cluster's.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Pool(gpus=112)
    Pool(gpus=112, tp=1, moe_tp=1)
    """

    gpus: Field[int] = Field("GPUs of the pool.")
    tp: Field[int] = Field("Attention pool: tensor-parallel width of a rank.")
    ep: Field[int | None] = Field("FFN pool: expert-parallel width; None: as wide as the pool allows.")
    moe_tp: Field[int] = Field("FFN pool: tensor-parallel width of the experts.")
    device: Field[Device | None] = Field("Hardware of this pool; None: the cluster's.", "Device")

    def __init__(
        self, *, gpus: int, tp: int = 1, ep: int | None = None, moe_tp: int = 1, device: Device | None = None
    ) -> None:
        self._build(gpus=gpus, tp=tp, ep=ep, moe_tp=moe_tp, device=device)


class Placement(Spec, hashable=True):
    """GPU ids of each pool; empty lists are chosen.

    Parameters
    ----------
    attention, ffn
        Ids of the pools of an AFD unit.
    prefill, decode
        Ids of the two sides of a `PD` plan.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Placement(attention=[0, 1], ffn=[2, 3]).ffn
    [2, 3]
    """

    attention: Field[list[int]] = Field("Ids of the attention pool.")
    ffn: Field[list[int]] = Field("Ids of the FFN pool.")
    prefill: Field[list[int]] = Field("Ids of the prefill side.")
    decode: Field[list[int]] = Field("Ids of the decode side.")

    def __init__(
        self,
        *,
        attention: Sequence[int] = (),
        ffn: Sequence[int] = (),
        prefill: Sequence[int] = (),
        decode: Sequence[int] = (),
    ) -> None:
        self._build(attention=attention, ffn=ffn, prefill=prefill, decode=decode)


class AFD(Plan, hashable=True):
    """Attention and experts on different GPUs (attention-FFN disaggregation).

    Alone it serves prefill and decode (level ``aggregated+afd``); in a slot of `PD` the slot decides.

    Parameters
    ----------
    attention, ffn
        The two pools.
    microbatches
        Micro-batches in flight.
    batch
        Sequences per attention rank, all micro-batches together.
    chunk_tokens
        Token budget of a prefill step per attention rank.
    pipeline
        ``"overlapped"``: a micro-batch starts its next token as soon as its own last layer is done;
        ``"alone"``: every step starts on an empty pipeline.
    duplex
        ``"full"``: both directions of the fabric at once; ``"half"``: they share one resource.
    router, shared_expert, dense
        Which side holds the router, the shared expert and the dense layers.
    prereduce
        Whether the FFN side adds up the experts' outputs before sending them back.
    placement
        GPU ids; None: best found. Groups, then pipeline stages, then units follow one another.
    attention_groups
        Equal groups of each attention pool's GPUs (whole attention ranks) that step on their own, each with
        ``microbatches`` of its own, and take turns on one FFN pool. The pool is kept busy by other groups while one
        computes attention, with no finer cut of a rank's batch. FFN GPUs serve, and read their weights for,
        ``attention_groups * microbatches`` micro-batches a layer.
    pp
        Pipeline stages of a unit: each has both pools (a unit has ``pp`` times their GPUs) and ``layers / pp`` layers,
        uneven splits rounded up; dense layers in the first, LM head in the last. Decode keeps a batch a stage in
        flight: `batch` is of one of them.
    units
        Equal AFD units side by side.
    prefill_interval
        Of a unit that serves prefill and decode: prompt tokens join every n-th step at most; None: as `Serving` says.

    Notes
    -----
    One layer of a step, steps overlapped, full duplex, equal micro-batches (M of them, G groups; A, X, F, Y the
    times of attention, A2F, FFN and F2A): ``max(M A, M X, M Y, G M F, G M ports, A + X + F + Y)``. A group's hops run
    on its own ports; the FFN pool's ports are shared, for as long as the bytes keep them.

    Examples
    --------
    >>> import disagg as dg
    >>> plan = dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=112), microbatches=3)
    >>> plan.ffn.gpus, plan.pipeline
    (112, 'overlapped')
    >>> dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=16), microbatches=1, attention_groups=2).attention_groups
    2
    """

    attention: Field[Pool] = Field("The attention pool.", "Pool")
    ffn: Field[Pool] = Field("The FFN pool.", "Pool")
    microbatches: Field[int | None] = Field("Micro-batches in flight; None: chosen.")
    batch: Field[int | None] = Field("Sequences per attention rank, all micro-batches together; None: chosen.")
    chunk_tokens: Field[int | None] = Field("Token budget of a prefill step per attention rank; None: chosen.")
    pipeline: Field[str] = Field("'overlapped' or 'alone'.")
    duplex: Field[str] = Field("'full' or 'half'.")
    router: Field[str] = Field("Side that holds the router.")
    shared_expert: Field[str] = Field("Side that holds the shared expert.")
    dense: Field[str] = Field("Side that holds the dense layers.")
    prereduce: Field[bool] = Field("Whether the FFN side adds up outputs before sending them back.")
    placement: Field[Placement | None] = Field("GPU ids; None: best found.", "Placement")
    attention_groups: Field[int] = Field("Groups of attention GPUs that share the FFN pool.")
    pp: Field[int] = Field("Pipeline stages of a unit, each with both pools.")
    units: Field[int] = Field("Equal AFD units side by side.")
    prefill_interval: Field[int | None] = Field("Prompt tokens join every n-th step; None: as Serving says.")

    def __init__(
        self,
        *,
        attention: Pool,
        ffn: Pool,
        microbatches: int | None = None,
        batch: int | None = None,
        chunk_tokens: int | None = None,
        pipeline: Literal["overlapped", "alone"] = "overlapped",
        duplex: Literal["full", "half"] = "full",
        router: Side = "attention",
        shared_expert: Side = "ffn",
        dense: Side = "attention",
        prereduce: bool = False,
        placement: Placement | None = None,
        attention_groups: int = 1,
        pp: int = 1,
        units: int = 1,
        prefill_interval: int | None = None,
    ) -> None:
        self._build(
            attention=attention,
            ffn=ffn,
            microbatches=microbatches,
            batch=batch,
            chunk_tokens=chunk_tokens,
            pipeline=pipeline,
            duplex=duplex,
            router=router,
            shared_expert=shared_expert,
            dense=dense,
            prereduce=prereduce,
            placement=placement,
            attention_groups=attention_groups,
            pp=pp,
            units=units,
            prefill_interval=prefill_interval,
        )


class PD(Plan, hashable=True):
    """Prefill and decode on different GPUs.

    Parameters
    ----------
    prefill, decode
        What fills each slot: `Workers` or `AFD`.

    Examples
    --------
    >>> import disagg as dg
    >>> plan = dg.PD(
    ...     prefill=dg.Workers(count=2, parallel=dg.Parallel(dp=8)),
    ...     decode=dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=96)),
    ... )
    >>> plan.decode.attention.gpus
    16
    """

    prefill: Field[Workers | AFD] = Field("What fills the prefill slot.", "Workers", "AFD")
    decode: Field[Workers | AFD] = Field("What fills the decode slot.", "Workers", "AFD")

    def __init__(self, *, prefill: Workers | AFD, decode: Workers | AFD) -> None:
        self._build(prefill=prefill, decode=decode)
