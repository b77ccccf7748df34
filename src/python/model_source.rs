//! A model from what its constructor takes: a preset's name, an address on a hub, the path of a Hugging Face config, or the
//! content of one.
//!
//! Limit: files of at most 256 MB; nothing is downloaded, so that an address on a hub is good for presets only.

use std::path::{Path, PathBuf};

use pyo3::exceptions::{PyOSError, PyRecursionError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use serde_json::Value;

use super::convert;
use super::data::{Data, Spec};
use super::errors::guard;
use super::fields::{self, misfit, text_of};
use crate::error::{Error, Result};
use crate::spec::{Model, catalog};

/// The model of these arguments: `source` and `trust_fields`.
pub fn read(given: &Bound<'_, PyDict>) -> PyResult<Spec> {
    let py = given.py();
    let must = |name: &str| -> PyResult<Bound<'_, PyAny>> {
        given.get_item(name)?.ok_or_else(|| Error::spec(name, "is required", "").into())
    };
    let (source, trust) = (must("source")?, must("trust_fields")?);
    let Ok(trust) = trust.cast::<PyBool>() else { return Err(misfit("trust_fields", &trust, "bool").into()) };
    let trust = trust.is_true();
    if let Ok(config) = source.cast::<PyDict>() {
        if config.contains("layers")? && config.contains("attention")? {
            return fields::build("Model", config);
        }
        let config = convert::lenient(config.as_any())?;
        let name = text_of(&config, "_name_or_path").unwrap_or("custom").to_string();
        return whole(py, &Config { quant: None, index: None, config, name, source: "a dict".into() }, trust);
    }
    let named = source.cast::<PyString>().ok().map(|s| s.to_string_lossy().into_owned());
    if !named.as_ref().is_some_and(|name| name.contains("://"))
        && let Ok(path) = source.extract::<PathBuf>()
        && (named.is_none() || path.extension().is_some_and(|e| e == "json") || path.exists())
    {
        return whole(py, &Config::of_file(py, path)?, trust);
    }
    match named {
        Some(name) => guard(|| catalog::model(&name).map(|m| Spec::new(Data::Model(m)))),
        None => {
            let found = source.get_type().name()?;
            let hint = "expected a preset's name, the path of a config.json, or a dict";
            Err(Error::spec("source", format!("a value of type {found} does not fit"), hint).into())
        }
    }
}

/// A config and the index of a checkpoint are a few megabytes at the most.
const LARGEST: u64 = 256 << 20;

/// A config, and what stands beside it.
struct Config {
    config: Value,
    quant: Option<Value>,
    index: Option<Value>,
    name: String,
    source: String,
}

impl Config {
    fn of_file(py: Python<'_>, mut path: PathBuf) -> PyResult<Config> {
        if path.is_dir() {
            path.push("config.json");
        }
        let config = json(py, &path)?;
        let beside = |name: &str| {
            let file = path.with_file_name(name);
            file.exists().then(|| json(py, &file)).transpose()
        };
        let folder =
            path.canonicalize().ok().and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Config {
            quant: beside("hf_quant_config.json")?,
            index: beside("model.safetensors.index.json")?,
            name: text_of(&config, "_name_or_path").map(str::to_string).or(folder).unwrap_or(stem),
            source: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            config,
        })
    }
}

/// Reads the config, and says what may be wrong with the model.
fn whole(py: Python<'_>, from: &Config, trust: bool) -> PyResult<Spec> {
    let (model, remarks) = guard(|| -> Result<(Model, Vec<String>)> {
        let model = Model::from_hf_fields(&from.config, from.quant.as_ref(), &from.name, &from.source, trust)?;
        let remarks = model.remarks(&from.config, from.index.as_ref());
        Ok((model, remarks))
    })?;
    for remark in remarks {
        let text = std::ffi::CString::new(remark).unwrap_or_default();
        PyErr::warn(py, py.get_type::<PyUserWarning>().as_any(), &text, 1)?;
    }
    Ok(Spec::new(Data::Model(model)))
}

/// A file of JSON as Python reads it, numbers that JSON does not have included.
fn json(py: Python<'_>, path: &Path) -> PyResult<Value> {
    let told = |what: String| Error::data(path.to_string_lossy(), what);
    // A pipe would be waited for, a device read without end.
    if path.exists() && !path.is_file() {
        return Err(told("is not a file".into()).into());
    }
    if path.metadata().is_ok_and(|m| m.len() > LARGEST) {
        return Err(told(format!("has more than {} MiB: not a config", LARGEST >> 20)).into());
    }
    let file = py.import("pathlib")?.getattr("Path")?.call1((path,))?;
    let options = [("encoding", "utf-8")];
    let read = || -> PyResult<Bound<'_, PyAny>> {
        let text = file.call_method("read_text", (), Some(&pyo3::types::IntoPyDict::into_py_dict(options, py)?))?;
        py.import("json")?.call_method1("loads", (text,))
    };
    let found = read().map_err(|e| -> PyErr {
        if e.is_instance_of::<PyOSError>(py) {
            let why = e.value(py).getattr("strerror").and_then(|s| s.extract::<String>()).unwrap_or_default();
            told(format!("cannot be read: {why}")).into()
        } else if e.is_instance_of::<PyRecursionError>(py) {
            told("is nested too deep".into()).into()
        } else if e.is_instance_of::<PyValueError>(py) {
            told(format!("is not JSON: {}", e.value(py))).into()
        } else {
            e
        }
    })?;
    match found.cast::<PyDict>() {
        Ok(found) => convert::lenient(found.as_any()),
        Err(_) => Err(told("is not a JSON object".into()).into()),
    }
}
