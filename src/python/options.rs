//! Options that several calls in Python share (`dg.explore` and `Case.explore`, say): name, type, default and meaning, said
//! once, a file a subject. `disagg.specs._base.takes` makes signatures, checks and documentation of them,
//! `tests/stub.py` their types.
//!
//! Limit: options of keyword only; what stands before them is said in the function itself.

mod afd;
mod network;
mod plan;
mod search;
mod shared;
mod sim;

use pyo3::prelude::*;

use self::shared::Taken;

/// What calls take, by its name in the stub: one group after another.
const CALLS: &[(&str, &[&[Taken]])] = &[
    ("_Estimate", &[search::ESTIMATE]),
    ("_Explore", &[search::EXPLORE]),
    ("_Regimes", &[search::REGIMES]),
    ("_Sweep", &[search::SWEEP]),
    ("_Optimize", &[search::OPTIMIZE]),
    ("_Sensitivity", &[search::SENSITIVITY]),
    ("_Audit", &[search::AUDIT]),
    ("_Step", &[plan::STEP]),
    ("_Runnable", &[plan::RUNNABLE]),
    ("_Launch", &[plan::LAUNCH]),
    ("_Simulate", &[sim::SIMULATE, sim::REPLAY]),
    ("_Replay", &[sim::REPLAY]),
    ("_Calibrate", &[sim::CALIBRATE]),
    ("_Columns", &[sim::COLUMNS]),
    ("_Collective", &[network::COLLECTIVE]),
    ("_Exchange", &[network::EXCHANGE]),
    ("_Hop", &[network::HOP]),
    ("_Transfer", &[network::TRANSFER]),
    ("_Schedule", &[afd::SCHEDULE]),
    ("_Provision", &[afd::PROVISION]),
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
    let group = |(name, taken): &(&'static str, &[&[Taken]])| {
        Ok((*name, taken.iter().copied().flatten().map(one).collect::<PyResult<Vec<_>>>()?))
    };
    CALLS.iter().map(group).collect()
}
