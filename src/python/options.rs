//! Options that several calls in Python share (`dg.explore` and `Case.explore`, say): name, type, default and meaning, said
//! once. `disagg.specs._base.takes` makes signatures, checks and documentation of them, `tests/stub.py` their types.

use pyo3::prelude::*;

use super::made::Left;

/// Name, type in Python, default, and what it means ("" where calls share that too).
type Taken = (&'static str, &'static str, Left, &'static str);

const NAMES: &str = "str | Sequence[str] | None";
const PROGRESS: &str = "bool | Callable[[int, int], object] | None";
const LENGTHS: &str = "float | specs.Distribution | Sequence[float | specs.Distribution]";
const LEVELS: Left = Left::Words(&["aggregated", "pd", "aggregated+afd", "pd+afd"]);

const QUANT: Taken = ("quant", "specs.Quant | None", Left::None, "");
const SERVING: Taken = ("serving", "specs.Serving | None", Left::None, "");
const ASSUMPTIONS: Taken = ("assumptions", "specs.Assumptions | None", Left::None, "");
const SHOWN: Taken = ("progress", PROGRESS, Left::None, "");

const EXPLORE: &[Taken] = &[
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

const REGIMES: &[Taken] = &[
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

const OPTIMIZE: &[Taken] = &[
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

const SENSITIVITY: &[Taken] = &[
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

const AUDIT: &[Taken] = &[
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

/// Of the routing of a model.
const HIDDEN: Taken = ("hidden", "int", Left::Required, "Width of a token's vector.");
const TOPK: Taken = ("topk", "int", Left::Required, "Experts of a token.");
const EXPERTS: Taken = ("experts", "int", Left::Required, "Routed experts of a layer.");
const GROUPS: Taken = ("groups", "int", Left::Whole(0), "Group-limited routing (DeepSeek-V3: 8 and 4); 0: none.");
const TOPK_GROUPS: Taken = ("topk_groups", "int", Left::Whole(0), "Groups of a token, where there are any.");

const EXCHANGE: &[Taken] = &[
    (
        "tokens",
        "float",
        Left::Required,
        "Tokens per source GPU (of a combine: per GPU that they come back to); uniform routing unless `load` or
`exponent` says otherwise.",
    ),
    HIDDEN,
    TOPK,
    EXPERTS,
    ("ranks", "int", Left::Required, "GPUs of the group."),
    (
        "dtype",
        "str",
        Left::Text("fp8"),
        "Payload of the dispatch: ``\"fp8\"`` (with scales), ``\"bfloat16\"`` or ``\"nvfp4\"``. Of a combine it picks the
kernel; what comes back is BF16.",
    ),
    (
        "backend",
        "str | None",
        Left::None,
        "``\"low-latency\"`` (no deduplication), ``\"normal\"`` (one copy a node), ``\"one-sided\"`` (one copy a
GPU, one rack); None: the fastest that takes so many tokens.",
    ),
    GROUPS,
    TOPK_GROUPS,
    (
        "load",
        "Sequence[float] | None",
        Left::None,
        "A histogram: one load an expert, in the order in which they lie on the ranks.",
    ),
    ("exponent", "float | None", Left::None, "Instead of it: loads i^-exponent, dealt to the ranks in turn."),
    ("framework", NAMES, Left::None, "Whose kernels; None: the first that has tables."),
    ("frameworks", NAMES, Left::None, ""),
];

const HOP: &[Taken] = &[
    ("tokens", "float", Left::Required, "Tokens per attention rank (of `tp` GPUs) and micro-batch."),
    HIDDEN,
    TOPK,
    EXPERTS,
    ("senders", "int", Left::Required, "GPUs that send: of A2F attention GPUs, of F2A FFN GPUs."),
    ("receivers", "int", Left::Required, "GPUs that receive: of A2F FFN GPUs, of F2A attention GPUs."),
    ("tp", "int", Left::Whole(1), "GPUs of an attention rank, each with 1/tp of the vector."),
    ("ep", "int | None", Left::None, "Expert groups of the FFN pool; None: as many as fit."),
    ("moe_tp", "int", Left::Whole(1), "GPUs of an expert group."),
    (
        "dtype",
        "str",
        Left::Text("fp8"),
        "Payload of A2F: ``\"fp8\"`` (with scales), ``\"bfloat16\"`` or ``\"nvfp4\"``. What comes back is BF16.",
    ),
    GROUPS,
    TOPK_GROUPS,
    (
        "placement",
        "specs.Placement | None",
        Left::None,
        "GPU ids of both pools; None: packed, attention first, from the start of a domain.",
    ),
    (
        "alpha_scale",
        "float",
        Left::Number(1.0),
        "Scales the start-up, which no public measurement covers: look at 0.5 and 2.",
    ),
];

/// What calls take, by its name in the stub.
const CALLS: &[(&str, &[Taken])] = &[
    ("_Explore", EXPLORE),
    ("_Regimes", REGIMES),
    ("_Optimize", OPTIMIZE),
    ("_Sensitivity", SENSITIVITY),
    ("_Audit", AUDIT),
    ("_Exchange", EXCHANGE),
    ("_Hop", HOP),
];

/// An option: its name, its type, whether it must be given, what it is where it is left out, and what it means.
type Said<'py> = (&'static str, &'static str, bool, Option<Bound<'py, PyAny>>, &'static str);

/// Every group of options.
#[pyfunction]
pub fn _options(py: Python<'_>) -> PyResult<Vec<(&'static str, Vec<Said<'_>>)>> {
    let one = |(name, takes, left, about): &Taken| {
        let value = left.value(py)?;
        Ok((*name, *takes, value.is_none(), value, *about))
    };
    let group =
        |(name, taken): &(&'static str, &[Taken])| Ok((*name, taken.iter().map(one).collect::<PyResult<Vec<_>>>()?));
    CALLS.iter().map(group).collect()
}
