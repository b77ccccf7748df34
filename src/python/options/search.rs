//! What the questions about plans take: one priced, a space searched, mapped, swept or optimised, an answer asked again.
//!
//! Limit: types and defaults only; what a value must keep is checked where it is used.

use super::shared::{ASSUMPTIONS, FRAMEWORK, FRAMEWORKS, LENGTHS, LEVELS, NAMES, QUANT, SERVING, SHOWN, Taken};
use crate::python::made::Left;

pub(super) const ESTIMATE: &[Taken] = &[
    FRAMEWORK,
    FRAMEWORKS,
    QUANT,
    SERVING,
    ASSUMPTIONS,
    (
        "load",
        "float | None",
        Left::None,
        "Requests per second of an open loop (Poisson): batches shrink to it, and TTFT has the rest of the step in flight
and the waits for prefill and for a seat in decode, within 10 % of the request simulator up to 90 % of what
the plan serves. None: a closed loop at full batch.",
    ),
];

pub(super) const SWEEP: &[Taken] = &[
    (
        "metrics",
        "Sequence[str]",
        Left::Words(&["ttft_ms", "tpot_ms", "tokens_per_s"]),
        "Numbers wanted for each point: ``ttft_ms``, ``tpot_ms``, ``itl_worst_ms``, ``requests_per_s``,
``tokens_per_s``, ``tokens_per_s_per_gpu``, ``tokens_per_s_per_user``, ``concurrency``,
``gpus``, ``memory_gib``, ``usd_per_mtok``, ``measured_share``.",
    ),
    (
        "runnable",
        "bool",
        Left::Flag(true),
        "Whether to price only what the framework's server starts (``dg.rules``): other points are rows with ``status``
``\"not runnable: RULE\"`` and no numbers. False prices them all.",
    ),
    (
        "executor",
        "Any",
        Left::None,
        "None: this process, all cores. Or any `concurrent.futures.Executor`, a dask ``Client``,
``\"processes\"`` (loky) or ``\"ray\"``. The rows are the same, to the last bit.",
    ),
    (
        "checkpoint",
        "str | PathLike[str] | None",
        Left::None,
        "A file that keeps finished work; the same call with the same kernel tables takes up where it was stopped. One
sweep at a time writes it; what is damaged of it is priced again.",
    ),
    (
        "partial",
        "bool",
        Left::Flag(false),
        "Whether stopping (Ctrl-C) gives the rows that are done instead of raising; ``attrs[\"complete\"]`` says which.",
    ),
    SHOWN,
];

pub(super) const EXPLORE: &[Taken] = &[
    ("levels", "str | Sequence[str]", LEVELS, ""),
    (
        "frameworks",
        NAMES,
        Left::None,
        "Whose kernels to compare, one name or several; None: all that have kernels for the model on that system.
Those that lack a kind of its layers are left out, and ``study.warnings`` says so.",
    ),
    ("framework", NAMES, Left::None, "`frameworks` under its other name."),
    QUANT,
    SERVING,
    ASSUMPTIONS,
    (
        "objective",
        "str",
        Left::Text("tokens_per_s"),
        "``\"tokens_per_s\"``, ``\"tokens_per_s_per_gpu\"`` or ``\"tokens_per_s_per_user\"``.",
    ),
    (
        "arrivals",
        "str",
        Left::Text("closed"),
        "``\"closed\"``: as many requests as the plan holds, at any time. ``\"poisson\"``: they come at a rate of their own,
and the rate of a plan is the highest at which its limits hold: on the means, or on the percentile of the `SLO`.
A plan is then given seats to spare, and the table says its closed-loop rate as well
(``closed_tokens_per_s_per_gpu``).",
    ),
    (
        "runnable",
        "bool",
        Left::Flag(true),
        "Whether only plans that a released server starts are searched (`dg.rules`; of AFD, those that keep the layout
rules of the framework whose kernels price them). False lifts the rules; `Study.lifted` tells what that gains.",
    ),
    (
        "confidence",
        "float | None",
        Left::None,
        "The chance with which what is measured must keep the limits, above 0 and below 1: 0.8 names the best plan that
keeps them in four cases of five, by the residuals of servers of its kind (``docs/design/physics.md``, section
10), at every level alike. With two limits each is kept with half the doubt, so that both hold. None: the
predicted figures must keep them; a plan on the edge of a limit then fails in about half the cases. Refused with a
TTFT limit and ``Assumptions(request_path=\"service\")``, since the TTFT that was measured is a client's.",
    ),
    (
        "confirm",
        "bool",
        Left::Flag(true),
        "With ``arrivals=\"poisson\"``, whether the best plan of each level is simulated, request by request: the highest
rate at which its limits hold there and the ends of its 95 % interval
(``simulated_tokens_per_s_per_gpu``, ``simulated_low``, ``simulated_high``; NaN where it is not). Takes seconds.",
    ),
    (
        "executor",
        "Any",
        Left::None,
        "None: this process, all cores. Or, as in `sweep`, any `concurrent.futures.Executor`, a dask ``Client``,
``\"processes\"`` (loky) or ``\"ray\"``: a unit of work is a framework's ``aggregated``, its ``aggregated+afd``,
or its ``pd`` and ``pd+afd`` together, and progress counts units. The study is the same, to the last bit. This
machine's cores are busy without one: it is for more machines, or to leave this one free. When stopped,
what another process has begun runs to its end there.",
    ),
    SHOWN,
];

pub(super) const REGIMES: &[Taken] = &[
    (
        "slo",
        "specs.SLO | Sequence[specs.SLO]",
        Left::Required,
        "Limits: one SLO or a list.",
    ),
    ("isl", LENGTHS, Left::Words(&[]), "New tokens: one value or a list; every combination with the next two is a workload."),
    ("osl", LENGTHS, Left::Words(&[]), "Output tokens, as `isl`."),
    ("prefix", LENGTHS, Left::Whole(0), "Cached tokens, as `isl`."),
    (
        "workloads",
        "specs.Workload | Sequence[specs.Workload] | None",
        Left::None,
        "Workloads in place of the combinations of `isl`, `osl` and `prefix`.",
    ),
    ("levels", "str | Sequence[str]", LEVELS, ""),
    (
        "frameworks",
        NAMES,
        Left::None,
        "Whose kernels to compare, one name or several; None: on each system all that have kernels for the model.",
    ),
    ("framework", NAMES, Left::None, "`frameworks` under its other name."),
    QUANT,
    SERVING,
    ASSUMPTIONS,
    (
        "tolerance",
        "float",
        Left::Number(0.01),
        "Levels whose rates are nearer than this share are tied: borders are as uncertain as the tables.",
    ),
    (
        "batches_per_octave",
        "int",
        Left::Whole(2),
        "Batches scanned per doubling, of AFD units half as many; fewer are faster and coarser.",
    ),
    (
        "arrivals",
        "str",
        Left::Text("closed"),
        "``\"closed\"``: as many requests as the plan holds, at any time. ``\"poisson\"``: as in `explore`, the rate of a
plan is the highest at which its limits hold (means, or the percentile of its `SLO`); the winners are not
simulated, and a cell costs as much as an exploration.",
    ),
    (
        "runnable",
        "bool",
        Left::Flag(true),
        "Whether only plans that a released server starts are searched, as in `explore`.",
    ),
    (
        "executor",
        "Any",
        Left::None,
        "None: this process, all cores. Or, as in `sweep`, any `concurrent.futures.Executor`, a dask ``Client``,
``\"processes\"`` (loky) or ``\"ray\"``: a unit of work is one cluster and workload with all its limits. The rows
are the same, to the last bit. When stopped, what another process has begun runs to its end there.",
    ),
    (
        "partial",
        "bool",
        Left::Flag(false),
        "Whether stopping (Ctrl-C) gives the cells that are done, if there are any, instead of raising;
``attrs[\"complete\"]`` says which.",
    ),
    SHOWN,
];

pub(super) const OPTIMIZE: &[Taken] = &[
    (
        "objective",
        "str",
        Left::Required,
        "A metric of `sweep`: rates are made high, times, memory, GPUs and money low; or with its sense,
``\"max concurrency\"``, ``\"min gpus\"``. With `simulate`: ``\"goodput\"`` (requests per second inside the
limits), ``tokens_per_s``, ``tokens_per_s_per_gpu``, ``requests_per_s``, mean ``ttft_ms``, ``tpot_ms``,
``e2e_ms``, or their percentiles, e.g. ``\"ttft_p99_ms\"``.",
    ),
    (
        "constraints",
        "Sequence[str]",
        Left::Words(&[]),
        "Limits over metrics and axes, in the language of ``Space(where=)``: ``[\"ttft_ms <= 500\",
\"tokens_per_s / gpus > 100 or tp == 1\"]``.",
    ),
    (
        "runnable",
        "bool",
        Left::Flag(true),
        "Whether only what the framework's server starts may win (``dg.rules``); other points are told in
``.certificate`` and ``.points`` with the rule that they break. False lifts it.",
    ),
    (
        "method",
        "Literal[\"exact\", \"optuna\"]",
        Left::Text("exact"),
        "``\"exact\"``: the true optimum; every point is priced, or left out with a proof that stands in
``.certificate``. ``\"optuna\"``: `trials` points asked of optuna's TPE sampler, nothing proved; for spaces
too large to go through, such as those with fine lists (``np.linspace(25, 400, 1000)``) for
continuous axes.",
    ),
    (
        "simulate",
        "Any",
        Left::None,
        "None: steady states. A trace, or a dict of ``trace``, ``slo`` (for goodput) and options of `simulate`:
every candidate serves the same requests with the same seed. A candidate is dropped after the
first quarter of the requests if, request by request, it is worse than the best so far with 99 %
confidence. That is statistical, not a proof.",
    ),
    ("seed", "int", Left::Whole(0), "Of the sampler and the simulations; the same seed gives the same bits."),
    ("trials", "int", Left::Whole(100), "Points to ask for with ``\"optuna\"``."),
    (
        "partial",
        "bool",
        Left::Flag(false),
        "Whether stopping (Ctrl-C) gives the best so far, if there is any, instead of raising; ``.complete`` says which.",
    ),
    SHOWN,
];

pub(super) const SENSITIVITY: &[Taken] = &[
    (
        "parameters",
        "Sequence[str] | None",
        Left::None,
        "Which figures; None: all that the estimate has. ``tflops`` (all formats together), ``hbm_gb_per_s``,
``hbm_gib``, ``launch_us``, ``nvlink_gb_per_s``, ``nic_gb_per_s``, ``afd_alpha_scale`` (start-up of A2F and
F2A), ``dispatch_alpha_scale`` (of dispatch and combine), ``imbalance`` (exponent of the experts' load),
``acceptance``, ``prefix_share`` (at a fixed prompt), ``isl``, ``osl``, ``load``, ``usd_per_hour``,
``power_w``.",
    ),
    ("step", "float", Left::Number(0.1), "Relative change to either side, between 0 and 1."),
];

pub(super) const AUDIT: &[Taken] = &[
    (
        "method",
        "str",
        Left::Text("order"),
        "``\"order\"``: one walk, whose steps add up to the whole difference; ``\"shapley\"``: the mean
effect of each switch over orders.",
    ),
    (
        "order",
        "Sequence[str]",
        Left::Words(&[]),
        "Names of the switches that differ, in the order to walk; empty: the order of the switches.",
    ),
    (
        "orders",
        "int | None",
        Left::None,
        "For ``\"shapley\"``: how many orders to sample, each with its reverse; None: all subsets (up to
six switches).",
    ),
    ("seed", "int", Left::Whole(0), "Of the sampled orders; the same seed gives the same bits."),
    (
        "batches_per_octave",
        "int | None",
        Left::None,
        "Batches priced per doubling; None: as the study. Fewer are faster, and both ends are then
those of the coarser search.",
    ),
    SHOWN,
];
