//! Python values to JSON values: the one gate through which specs come in. (The way out is [`super::give`].)
//!
//! Limit: 32 levels deep, and nothing that JSON cannot say.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

use super::data::Spec;
use crate::error::Problems;

/// Nesting that no honest spec reaches; a list that holds itself does.
const DEPTH: usize = 32;

/// `value` as JSON. What cannot be said in JSON becomes a problem at `path` (and null).
pub fn to_json(value: &Bound<'_, PyAny>, path: &str, problems: &mut Problems) -> Value {
    json_at(value, path, problems, DEPTH)
}

fn json_at(value: &Bound<'_, PyAny>, path: &str, problems: &mut Problems, depth: usize) -> Value {
    if depth == 0 {
        problems.push(path, "is nested too deeply", "");
        return Value::Null;
    }
    if value.is_none() {
        return Value::Null;
    }
    if let Ok(spec) = value.cast::<Spec>() {
        return spec.get().to_value();
    }
    if let Ok(b) = value.cast::<PyBool>() {
        return Value::Bool(b.is_true());
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value, path, problems);
    }
    if value.is_instance_of::<PyFloat>() {
        return float(value, path, problems);
    }
    if let Ok(s) = value.cast::<PyString>() {
        return match s.to_str() {
            Ok(s) => Value::String(s.to_string()),
            Err(_) => refuse(path, "is not text that UTF-8 can say", "", problems),
        };
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return mapping(dict, path, problems, depth);
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return sequence(value, path, problems, depth);
    }
    foreign(value, path, problems, depth)
}

/// The same, with numbers that JSON does not have as text, or as the nearest one: they do no harm in fields that nobody
/// reads.
///
/// # Errors
/// If something else cannot be said in JSON.
pub fn lenient(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let mut problems = Problems::new();
    let said = lenient_at(value, &mut problems, DEPTH)?;
    super::errors::guard(|| problems.into_result())?;
    Ok(said)
}

fn lenient_at(value: &Bound<'_, PyAny>, problems: &mut Problems, depth: usize) -> PyResult<Value> {
    if depth == 0 {
        problems.push("", "is nested too deeply", "");
        return Ok(Value::Null);
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let mut map = Map::new();
        for (key, item) in dict {
            map.insert(key.str()?.to_string(), lenient_at(&item, problems, depth - 1)?);
        }
        return Ok(Value::Object(map));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| lenient_at(&item?, problems, depth - 1));
        return Ok(Value::Array(items.collect::<PyResult<_>>()?));
    }
    let mut wrong = Problems::new();
    let said = json_at(value, "", &mut wrong, depth);
    if !wrong.is_empty() && (value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>()) {
        let near = value.extract::<f64>().ok().filter(|x| x.abs() < 1e300).and_then(Number::from_f64);
        return near.map_or_else(|| value.str().map(|s| Value::String(s.to_string())), |n| Ok(Value::Number(n)));
    }
    problems.0.extend(wrong.0);
    Ok(said)
}

fn refuse(path: &str, message: &str, hint: &str, problems: &mut Problems) -> Value {
    problems.push(path, message, hint);
    Value::Null
}

fn integer(value: &Bound<'_, PyAny>, path: &str, problems: &mut Problems) -> Value {
    if let Ok(i) = value.extract::<i64>() {
        Value::from(i)
    } else if let Ok(u) = value.extract::<u64>() {
        Value::from(u)
    } else {
        refuse(path, "is too large a whole number", "", problems)
    }
}

fn float(value: &Bound<'_, PyAny>, path: &str, problems: &mut Problems) -> Value {
    match value.extract::<f64>().ok().and_then(Number::from_f64) {
        Some(n) => Value::Number(n),
        None => refuse(path, "is not a finite number", "give a number, or leave it out", problems),
    }
}

fn mapping(dict: &Bound<'_, PyDict>, path: &str, problems: &mut Problems, depth: usize) -> Value {
    let mut map = Map::new();
    for (key, item) in dict {
        match key.extract::<String>() {
            Ok(key) => {
                let inner = json_at(&item, &join(path, &key), problems, depth - 1);
                map.insert(key, inner);
            }
            Err(_) => problems.push(path, "has a key that is not text", "keys are field names"),
        }
    }
    Value::Object(map)
}

fn sequence(value: &Bound<'_, PyAny>, path: &str, problems: &mut Problems, depth: usize) -> Value {
    let Ok(items) = value.try_iter() else {
        return refuse(path, "cannot be read as a list", "", problems);
    };
    let mut list = Vec::new();
    for (i, item) in items.enumerate() {
        match item {
            Ok(item) => list.push(json_at(&item, &join(path, &i.to_string()), problems, depth - 1)),
            Err(_) => return refuse(path, "cannot be read as a list", "", problems),
        }
    }
    Value::Array(list)
}

/// numpy scalars and arrays, paths, and whatever else can say itself as a plain value.
fn foreign(value: &Bound<'_, PyAny>, path: &str, problems: &mut Problems, depth: usize) -> Value {
    for method in ["tolist", "__fspath__", "__index__", "__float__"] {
        let is_type = value.is_instance_of::<pyo3::types::PyType>();
        if let (false, Ok(call)) = (is_type, value.getattr(method))
            && let Ok(plain) = call.call0()
            && !plain.is(value)
        {
            return json_at(&plain, path, problems, depth - 1);
        }
    }
    let name = value.get_type().name().map_or_else(|_| "object".to_string(), |n| n.to_string());
    let hint = "expected a number, text, a list, a dict or a spec";
    refuse(path, &format!("a value of type {name} does not fit here"), hint, problems)
}

pub fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_string() } else { format!("{path}.{part}") }
}
