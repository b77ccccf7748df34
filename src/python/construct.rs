//! How a spec is built from a call in Python: quickly where every argument plainly fits, else through JSON, which
//! takes numpy's numbers and the like and says everything that is wrong with the call at once.
//!
//! Limit: keyword arguments, but for the few that a kind takes without a name; no defaults that hang on other
//! arguments.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::data::{Data, Spec};
use super::errors::guard;
use super::fields::{build, parse, problems_of};
use super::made::{self, Left, Made};
use crate::error::{Error, Problems, near};

/// An argument of a constructor, and its default.
pub type Argument<'py> = (&'static str, Option<Bound<'py, PyAny>>);

/// A spec from the arguments of its class; `arguments` gives those there are, in order.
pub fn construct<'py>(
    kind: &str,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    arguments: impl FnOnce(Python<'py>) -> PyResult<Vec<Argument<'py>>>,
) -> PyResult<Spec> {
    let py = args.py();
    // What is already checked is taken over: how a class written in Python calls this one.
    if let (1, Ok(first)) = (args.len(), args.get_item(0))
        && let Ok(made) = first.cast::<Spec>()
        && made.get().data().kind() == kind
        && made.is_exact_instance_of::<Spec>()
    {
        return Ok(made.get().clone());
    }
    let none = PyDict::new(py);
    let given = kwargs.unwrap_or(&none);
    if let Some(made) = made::of(kind) {
        return make(kind, made, args, given);
    }
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

/// A spec whose constructor says more than its fields.
fn make<'py>(kind: &str, made: &Made, args: &Bound<'py, PyTuple>, given: &Bound<'py, PyDict>) -> PyResult<Spec> {
    let fields = PyDict::new(args.py());
    let mut problems = Problems::new();
    for (name, value) in given {
        let name = name.to_string();
        if made.open.is_some() || made.arguments.iter().any(|(n, ..)| *n == name) {
            fields.set_item(name, value)?;
        } else {
            let names = made.arguments.iter().map(|(n, ..)| n);
            problems.push(&name, format!("is not an argument of {kind}"), near(&name, names));
        }
    }
    let mut complete = args.len() <= made.nameless;
    if complete {
        for ((name, ..), value) in made.arguments.iter().zip(args) {
            if fields.contains(name)? {
                problems.push(*name, "is given twice", "by its place or by its name");
            }
            fields.set_item(name, value)?;
        }
        for (name, _, left) in made.arguments {
            if matches!(left, Left::Required) && !fields.contains(name)? {
                complete = false;
                problems.push(*name, format!("is required by {kind}"), "");
            }
        }
    } else {
        let text = format!("{kind} takes {} argument(s) without a name, {} were given", made.nameless, args.len());
        let next = made.arguments.get(made.nameless).map_or(String::new(), |(n, ..)| format!("write {kind}({n}=...)"));
        problems.push("", text, next);
    }
    let whole = made::with_defaults(made, &fields)?;
    if problems.is_empty() {
        return (made.build)(&whole);
    }
    if complete && let Err(error) = (made.build)(&whole) {
        problems.0.extend(problems_of(args.py(), &error).unwrap_or_default().0);
    }
    guard(|| Err(Error::Spec(problems)))
}

/// Unknown, missing and nameless arguments.
fn wrong_call(
    kind: &str,
    args: &Bound<'_, PyTuple>,
    given: &Bound<'_, PyDict>,
    arguments: &[Argument<'_>],
) -> Problems {
    let names: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
    let given: Vec<String> = given.keys().iter().map(|k| k.to_string()).collect();
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
