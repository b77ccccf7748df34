//! Published figures against predictions.
//!
//! Limit: the sections of the build; figures of one's own are compared by hand.

use super::give::Payload;
use pyo3::prelude::*;

use super::{columns, kernels, run};
use crate::validation;

/// List the sections there are.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> "deployed" in dg.validation.sections()
/// True
#[pyfunction]
pub fn validation_sections() -> Vec<&'static str> {
    validation::Section::NAMES.to_vec()
}

/// Set published figures against predictions. Nothing is fitted here.
///
/// A row of the section ``network`` stands for a table of communication times: ``predicted`` is the mean absolute
/// relative error, ``target`` the largest that was aimed at (NaN: none), ``status`` says whether the table was
/// fitted (``fit``) or held out (``check``), and whether the target is ``met``. A row of ``served`` stands for
/// a measured server: ``target`` is its measured mean, ``predicted`` the simulated one, with a device that was
/// fitted to the first half of its requests (``fit``) and is judged on the second (``check``). The section ``afd``
/// holds decode steps of attention and FFN pools and of the wide-EP servers measured beside them, their KV
/// capacities, the best ratio of each context and the lead over wide EP; ``saturated`` holds servers with all
/// requests queued, each simulated as it was run and by the closed form.
///
/// Parameters
/// ----------
/// *sections
///     Which sections; none: all.
/// ttft
///     Simulate the closed loop of every row of the section ``silicon`` too, and add its TTFT as rows of their
///     own (minutes; the stop button works). Without it the section compares TPOT only.
///
/// Returns
/// -------
/// Frame
///     section, name, system, model, framework, metric, target, predicted, error (signed, relative), source,
///     status (``ok``, or why a row is relabelled or cannot be computed), note, and for rows that stand for a table
///     n, median and p95 (shares of the measured time).
///
/// Raises
/// ------
/// SpecError
///     If there is no such section.
#[pyfunction]
#[pyo3(signature = (sections, ttft, progress: "_Report" = None))]
pub fn validation_run<'py>(
    py: Python<'py>,
    sections: Vec<String>,
    ttft: bool,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Payload<'py>> {
    let found = run::run(py, progress, move |control| {
        validation::run(&kernels::db()?, &validation::Section::parse(&sections)?, ttft, control)
    })?;
    columns::to_python(py, found)
}

/// Write how true the predictions are: each section as tables, dated, with the origin of the kernel tables.
///
/// Parameters
/// ----------
/// path
///     A file that ends in ``.md``, or a folder: it gets ``README.md`` and its pictures (needs matplotlib).
/// *sections
///     Which sections; none: all.
/// ttft
///     As in `run`.
///
/// Returns
/// -------
/// Path
///     The file.
///
/// Examples
/// --------
/// >>> import tempfile
/// >>> import disagg as dg
/// >>> dg.validation.report(tempfile.mkdtemp(), "literature", progress=False).name
/// 'README.md'
#[pyfunction]
#[pyo3(signature = (sections, ttft, progress: "_Report" = None))]
pub fn validation_report<'py>(
    py: Python<'py>,
    sections: Vec<String>,
    ttft: bool,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<(String, Payload<'py>, String)> {
    let (text, rows, origin) = run::run(py, progress, move |control| {
        let db = kernels::db()?;
        let (text, rows) = validation::report(&db, &validation::Section::parse(&sections)?, ttft, control)?;
        Ok((text, validation::columns(&rows), db.origin().to_owned()))
    })?;
    Ok((text, columns::to_python(py, rows)?, origin))
}
