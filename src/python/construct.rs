//! How a spec is built from a call in Python: quickly where every argument plainly fits, else through JSON, which
//! takes numpy's numbers and the like and says everything that is wrong with the call at once.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::convert;
use super::data::{Data, Spec};
use super::diagnose::{self, wrong_children};
use super::errors::guard;
use crate::error::{Error, Problems, Result, near};

/// An argument of a constructor, and its default.
pub type Argument<'py> = (&'static str, Option<Bound<'py, PyAny>>);

/// A spec from the arguments of its class; `arguments` gives those there are, in order.
pub fn construct<'py>(
    kind: &str,
    plain: bool,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    arguments: impl FnOnce(Python<'py>) -> PyResult<Vec<Argument<'py>>>,
) -> PyResult<Spec> {
    let py = args.py();
    // What is already checked is taken over: how a class written in Python calls this one.
    if let (1, Ok(first)) = (args.len(), args.get_item(0))
        && let Ok(made) = first.cast::<Spec>()
        && made.get().data().kind() == kind
        && (!plain || made.is_exact_instance_of::<Spec>())
    {
        return Ok(made.get().clone());
    }
    let none = PyDict::new(py);
    let given = kwargs.unwrap_or(&none);
    if args.is_empty()
        && let Some(data) = Data::make(kind, given)?
        && data.check().is_empty()
    {
        return Ok(Spec::new(data));
    }
    let arguments = arguments(py)?;
    let mut problems = wrong_call(kind, args, given, &arguments);
    let complete =
        args.is_empty() && arguments.iter().all(|(name, d)| d.is_some() || given.contains(name).is_ok_and(|c| c));
    let fields = PyDict::new(py);
    for (name, default) in arguments {
        if let Some(value) = given.get_item(name)?.or(default) {
            fields.set_item(name, value)?;
        }
    }
    if problems.is_empty() {
        return build(kind, &fields);
    }
    guard(|| {
        if complete && let Err(Error::Spec(more)) = parse(kind, &fields) {
            problems.0.extend(more.0);
        }
        Err(Error::Spec(problems))
    })
}

/// Unknown, missing and nameless arguments.
fn wrong_call(
    kind: &str,
    args: &Bound<'_, PyTuple>,
    given: &Bound<'_, PyDict>,
    arguments: &[Argument<'_>],
) -> Problems {
    let names: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
    let given: Vec<String> = given.keys().iter().filter_map(|k| k.extract().ok()).collect();
    let mut problems = Problems::new();
    for name in given.iter().filter(|n| !names.contains(&n.as_str())) {
        problems.push(name, format!("is not an argument of {kind}"), near(name, &names));
    }
    if args.is_empty() {
        for (name, _) in arguments.iter().filter(|(n, d)| d.is_none() && !given.iter().any(|g| g == n)) {
            problems.push(*name, format!("is required by {kind}"), "");
        }
    } else {
        let text = format!("{kind} takes 0 argument(s) without a name, {} were given", args.len());
        problems.push("", text, names.first().map_or(String::new(), |first| format!("write {kind}({first}=...)")));
    }
    problems
}

/// Builds and checks a spec from its fields; specs may stand inside.
pub fn build(kind: &str, fields: &Bound<'_, PyDict>) -> PyResult<Spec> {
    guard(|| parse(kind, fields).map(Spec::new))
}

fn parse(kind: &str, fields: &Bound<'_, PyDict>) -> Result<Data> {
    let mut problems = Problems::new();
    let value = convert::to_json(fields.as_any(), "", &mut problems);
    wrong_children(kind, fields, &mut problems);
    if problems.is_empty() {
        return diagnose::parse(kind, &value);
    }
    // The fields that could not be said at all stand as null: only what else is wrong matters.
    let top = |path: &str| path.split('.').next().unwrap_or_default().to_string();
    let named: Vec<String> = problems.0.iter().map(|p| top(&p.path)).collect();
    if let Err(Error::Spec(more)) = diagnose::parse(kind, &value) {
        problems.0.extend(more.0.into_iter().filter(|p| !named.contains(&top(&p.path))));
    }
    Err(Error::Spec(problems))
}
