//! The base of all specs in Python: frozen, compared and hashed by value, exact in JSON and pickle. The classes stand
//! in [`super::classes`]; those of `disagg.specs` that say more in Python than their fields derive from them.
//!
//! Limit: frozen: a spec is changed by `replace` alone, and two of different kinds are never equal.

use std::hash::{DefaultHasher, Hasher};

use super::give::Facts;
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use serde_json::Value;

use super::class_table::{self, adopt};
use super::classes;
use super::data::{Data, Spec};
use super::diagnose;
use super::errors::{SpecError, guard};
use super::fields;
use super::give;
use super::made::{self, Call};
use crate::error::Error;

impl Spec {
    fn frozen(&self, name: &str, cure: &str) -> PyErr {
        PyAttributeError::new_err(format!("{} is frozen; {cure}", self.data().kind()).replace("{name}", name))
    }
}

fn kind_of(class: &Bound<'_, PyType>) -> PyResult<String> {
    class.getattr("_kind")?.extract()
}

#[pymethods]
impl Spec {
    /// Name of the class in Python.
    #[getter]
    fn _kind(&self) -> &'static str {
        self.data().kind()
    }

    /// Notes the class in Python that stands for a kind.
    #[classmethod]
    fn __init_subclass__(cls: &Bound<'_, PyType>) -> PyResult<()> {
        if cls.module()?.to_str()?.starts_with("disagg.") {
            class_table::derive(cls.name()?.to_str()?, cls);
        }
        Ok(())
    }

    /// Give the spec as JSON text; `from_json` gives an equal spec back, to the last bit.
    fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// Read a spec back from the text that `to_json` gave.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     If it is not JSON or not a spec of this class.
    #[classmethod]
    #[pyo3(signature = (text: "str") -> "Self")]
    fn from_json<'py>(cls: &Bound<'py, PyType>, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let text = expected::<PyString>("text", text, "str")?;
        let kind = kind_of(cls)?;
        let data = guard(|| {
            let value: Value = serde_json::from_str(&text.to_string_lossy())
                .map_err(|e| Error::spec("json", format!("is not JSON: {e}"), "give the text that to_json() gave"))?;
            diagnose::parse(&kind, &value)
        })?;
        adopt(cls, Spec::new(data))
    }

    /// Give the spec as plain dicts, lists and numbers.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Facts<'py>> {
        give::facts(py, &self.to_value())
    }

    /// Build a spec from what `to_dict` gave.
    #[classmethod]
    #[pyo3(signature = (fields: "dict[str, Any]") -> "Self")]
    fn from_dict<'py>(cls: &Bound<'py, PyType>, fields: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let fields = expected::<PyDict>("fields", fields, "dict")?;
        adopt(cls, fields::build(&kind_of(cls)?, fields)?)
    }

    /// Give a copy with some arguments changed.
    ///
    /// Parameters
    /// ----------
    /// **changes
    ///     Arguments of the constructor.
    ///
    /// Returns
    /// -------
    /// Spec
    ///     A new spec of the same class, checked.
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     If an argument is unknown or its value does not fit.
    #[pyo3(signature = (**changes: "Any") -> "Self")]
    fn replace<'py>(slf: &Bound<'py, Self>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        let class = slf.get_type();
        let none = PyDict::new(slf.py());
        let changes = changes.unwrap_or(&none);
        let mut data = slf.get().data().clone();
        let mut plain = true;
        for (name, value) in changes {
            plain = plain && data.put(&name.cast::<PyString>()?.to_string_lossy(), &value);
        }
        if plain && !changes.is_empty() && data.check().is_empty() {
            return adopt(&class, Spec::new(data));
        }
        if let Some(args) = made::replaced(slf.get().data(), changes)? {
            return match slf.get().data() {
                Data::Model(_) => adopt(&class, fields::build("Model", &args)?),
                _ => class.call((), Some(&args)),
            };
        }
        let args = slf.call_method0("_args")?.cast_into::<PyDict>()?;
        args.update(changes.as_mapping())?;
        class.call((), Some(&args))
    }

    /// Support ``copy.replace`` (Python 3.13).
    #[pyo3(signature = (**changes: "Any") -> "Self")]
    fn __replace__<'py>(slf: &Bound<'py, Self>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method("replace", (), changes)
    }

    /// Constructor arguments that make an equal spec.
    fn _args<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        if let Some(args) = made::args(slf.py(), slf.get().data())? {
            return Ok(args);
        }
        let args = PyDict::new(slf.py());
        for (name, _) in classes::arguments(slf.py(), slf.get().data().kind())? {
            args.set_item(name, slf.getattr(name)?)?;
        }
        Ok(args)
    }

    /// Class or constructor name, and the arguments worth showing as (name, text).
    fn _call(slf: &Bound<'_, Self>) -> PyResult<Call> {
        if let Some(call) = made::call(slf.py(), slf.get().data())? {
            return Ok(call);
        }
        let mut shown = Vec::new();
        for (name, value) in slf.call_method0("_args")?.cast_into::<PyDict>()? {
            if !value.is_none() {
                shown.push((name.extract()?, value.repr()?.extract()?));
            }
        }
        Ok((slf.get().data().kind().to_string(), shown))
    }

    /// One line that evaluates to an equal spec.
    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (name, args): (String, Vec<(String, String)>) = slf.call_method0("_call")?.extract()?;
        let args: Vec<String> =
            args.into_iter().map(|(key, text)| if key.is_empty() { text } else { format!("{key}={text}") }).collect();
        Ok(format!("{name}({})", args.join(", ")))
    }

    #[pyo3(signature = () -> "str")]
    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (name, args): (String, Vec<(String, String)>) = slf.call_method0("_call")?.extract()?;
        let rows: Vec<[String; 2]> = args.into_iter().map(|(key, text)| [key, text]).collect();
        slf.py().import("disagg._html")?.call_method1("table", (name, Vec::<String>::new(), rows))
    }

    fn __richcmp__<'py>(
        slf: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let equal = match other.cast::<Spec>() {
            Ok(other) if slf.get_type().is(other.get_type()) => slf.get().data() == other.get().data(),
            _ => return Ok(py.NotImplemented().into_bound(py)),
        };
        Ok(match op {
            CompareOp::Eq => equal.into_pyobject(py)?.to_owned().into_any(),
            CompareOp::Ne => (!equal).into_pyobject(py)?.to_owned().into_any(),
            _ => py.NotImplemented().into_bound(py),
        })
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.data().feed(&mut hasher);
        hasher.finish()
    }

    fn __setattr__(&self, name: &str, _value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(self.frozen(name, "use .replace({name}=...)"))
    }

    fn __delattr__(&self, name: &str) -> PyResult<()> {
        Err(self.frozen(name, "{name} stays"))
    }

    /// Pickle by JSON, which keeps every bit.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let rebuild = py.import("disagg.specs._base")?.getattr("_rebuild")?;
        Ok((rebuild, (slf.get_type(), slf.get().to_json()).into_pyobject(py)?))
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }
}

/// The argument as what it must be.
fn expected<'a, 'py, T: pyo3::PyTypeCheck>(
    name: &str,
    value: &'a Bound<'py, PyAny>,
    wanted: &str,
) -> PyResult<&'a Bound<'py, T>> {
    value.cast::<T>().map_err(|_| {
        let found = value.get_type().name().map_or_else(|_| "object".to_string(), |n| n.to_string());
        let row = (name.to_string(), format!("a {found} does not fit here"), format!("expected a {wanted}"));
        SpecError::new_err((vec![row],))
    })
}
