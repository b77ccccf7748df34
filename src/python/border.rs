//! How the value of a field crosses the border, by its type: to Python, back, its name in a signature, its hash.
//!
//! Taking is quick and quiet: what is not plainly of the type gives none, and the slow way through JSON
//! ([`super::construct`]) takes it or says what is wrong with it.
//!
//! Limit: quick only for plain values; numpy's numbers and whatever else turns into a number go the slow way.

use std::hash::Hasher;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::Serialize;
use serde_json::Value;

use super::class_table::wrap;
use super::data::{Data, Record, Spec};
use super::give;
use crate::error::Problems;
use crate::spec::{self, assumptions as switch, *};

/// A field's type at the border.
pub trait Border: Sized {
    /// As a plain Python value, or a spec.
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;

    /// From a Python value that is plainly one.
    fn take(_value: &Bound<'_, PyAny>) -> Option<Self> {
        None
    }

    /// What an attribute of this type is in Python.
    fn gives() -> String;

    /// What a constructor takes for it.
    fn takes() -> String {
        Self::gives()
    }

    /// Kinds of spec that it may be; none: it is no spec.
    fn kinds() -> &'static [&'static str] {
        &[]
    }

    /// What a list of them is in Python.
    fn gives_list() -> String {
        format!("list[{}]", Self::gives())
    }

    /// A list of them as a Python value.
    fn give_list<'py>(list: &[Self], py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let given = PyList::empty(py);
        list.iter().try_for_each(|item| given.append(item.give(py)?))?;
        Ok(given.into_any())
    }

    /// Equal values feed a hasher the same.
    fn feed(&self, hasher: &mut dyn Hasher);

    /// Counts that are zero where none may be; `at` is the path to the value.
    fn zeros(&self, _at: &mut Vec<&'static str>, _problems: &mut Problems) {}
}

impl Border for u32 {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.into_pyobject(py)?.into_any())
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        value.cast_exact::<PyInt>().ok()?.extract().ok()
    }
    fn gives() -> String {
        "int".into()
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        hasher.write_u32(*self);
    }
    fn zeros(&self, at: &mut Vec<&'static str>, problems: &mut Problems) {
        if *self == 0 {
            problems.push(at.join("."), "must be at least 1, got 0", "");
        }
    }
}

impl Border for f64 {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyFloat::new(py, *self).into_any())
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        match value.cast_exact::<PyFloat>() {
            Ok(number) => Some(number.value()).filter(|x| x.is_finite()),
            // Larger whole numbers are read, and refused, the slow way.
            Err(_) => Some(f64::from(value.cast_exact::<PyInt>().ok()?.extract::<i32>().ok()?)),
        }
    }
    fn gives() -> String {
        "float".into()
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        // The two zeros are equal.
        hasher.write_u64((*self + 0.0).to_bits());
    }
}

impl Border for bool {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBool::new(py, *self).to_owned().into_any())
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        Some(value.cast_exact::<PyBool>().ok()?.is_true())
    }
    fn gives() -> String {
        "bool".into()
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        hasher.write_u8((*self).into());
    }
}

impl Border for String {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyString::new(py, self).into_any())
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        Some(value.cast_exact::<PyString>().ok()?.to_str().ok()?.to_string())
    }
    fn gives() -> String {
        "str".into()
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        hasher.write(self.as_bytes());
        hasher.write_u8(0xff);
    }
}

impl<T: Border> Border for Option<T> {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_ref().map_or_else(|| Ok(py.None().into_bound(py)), |inner| inner.give(py))
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        if value.is_none() { Some(None) } else { T::take(value).map(Some) }
    }
    fn gives() -> String {
        format!("{} | None", T::gives())
    }
    fn takes() -> String {
        format!("{} | None", T::takes())
    }
    fn kinds() -> &'static [&'static str] {
        T::kinds()
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        hasher.write_u8(self.is_some().into());
        self.iter().for_each(|inner| inner.feed(hasher));
    }
    fn zeros(&self, at: &mut Vec<&'static str>, problems: &mut Problems) {
        self.iter().for_each(|inner| inner.zeros(at, problems));
    }
}

impl<T: Border> Border for Vec<T> {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        T::give_list(self, py)
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        if let Ok(list) = value.cast_exact::<PyList>() {
            return list.iter().map(|item| T::take(&item)).collect();
        }
        value.cast_exact::<PyTuple>().ok()?.iter().map(|item| T::take(&item)).collect()
    }
    fn gives() -> String {
        T::gives_list()
    }
    fn takes() -> String {
        format!("Sequence[{}]", T::takes())
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        hasher.write_usize(self.len());
        self.iter().for_each(|item| item.feed(hasher));
    }
}

/// A request's prefix, isl and osl; a workload without joint lengths has no list of them.
impl Border for [f64; 3] {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyTuple::new(py, self)?.into_any())
    }
    fn gives() -> String {
        "tuple[float, float, float]".into()
    }
    fn gives_list() -> String {
        format!("list[{}] | None", Self::gives())
    }
    fn give_list<'py>(list: &[Self], py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if list.is_empty() {
            return Ok(py.None().into_bound(py));
        }
        let rows = list.iter().map(|row| PyTuple::new(py, row)).collect::<PyResult<Vec<_>>>()?;
        Ok(PyList::new(py, rows)?.into_any())
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        self.iter().for_each(|x| x.feed(hasher));
    }
}

/// Enums that are names in Python.
macro_rules! names {
    ($($name:ty),* $(,)?) => { $(
        impl Border for $name {
            fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                Ok(PyString::intern(py, self.name()).into_any())
            }
            fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
                Self::named(value.cast_exact::<PyString>().ok()?.to_str().ok()?)
            }
            fn gives() -> String {
                "str".into()
            }
            fn takes() -> String {
                let names: Vec<String> = Self::NAMES.iter().map(|n| format!("\"{n}\"")).collect();
                format!("Literal[{}]", names.join(", "))
            }
            fn feed(&self, hasher: &mut dyn Hasher) {
                hasher.write_u8(*self as u8);
            }
        }
    )* };
}

names! {
    Side, Duplex, PipelineMode, Dtype, PrefixScope, PrefixHome, MatrixPart, Launch,
    switch::LaunchFloors, switch::DenseLayers, switch::Exchange, switch::Collectives, switch::GatherFormat, switch::Lanes,
    switch::BeyondTables, switch::AllReduceRows, switch::AttentionElementwise, switch::SharedExpertSplit,
    switch::MixedAttention, switch::WideAttention, switch::GroupRouting, switch::FarExchange, switch::WideEpDecode,
    switch::MissingFormats, switch::ListedNorms, switch::PrefillSync, switch::MixedSteps, switch::FirstToken,
    switch::KvTransfer, switch::KvReserve, switch::Copies, switch::AfdWire, switch::FfnPool,
    switch::PipelineFormula, switch::MicrobatchSplit, switch::PrefillSplit, switch::SparseAttentionMemory,
    switch::Activations, switch::OutOfMemory, switch::TtftQueue, switch::RequestPath, switch::WorkerCorrections,
}

/// Structures without a class of their own: plain Python values, as in JSON.
macro_rules! plain {
    ($($ty:ty: $gives:literal, $takes:literal;)*) => { $(
        impl Border for $ty {
            fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                give::to_python(py, &json_of(self))
            }
            fn gives() -> String {
                $gives.into()
            }
            fn takes() -> String {
                $takes.into()
            }
            fn feed(&self, hasher: &mut dyn Hasher) {
                feed_json(&json_of(self), hasher);
            }
        }
    )* };
}

plain! {
    Attention: "dict[str, Any]", "dict[str, Any]";
    Moe: "dict[str, Any]", "dict[str, Any]";
    LayerMixer: "dict[str, Any]", "dict[str, Any]";
    PartFormat: "dict[str, Any]", "dict[str, Any]";
    Imbalance: "str | float | list[float]", "str | float | Sequence[float]";
}

fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn feed_json(value: &Value, hasher: &mut dyn Hasher) {
    match value {
        Value::Null => hasher.write_u8(0),
        Value::Bool(b) => b.feed(hasher),
        Value::Number(n) => n.as_f64().unwrap_or(0.0).feed(hasher),
        Value::String(s) => s.feed(hasher),
        Value::Array(items) => items.iter().for_each(|item| feed_json(item, hasher)),
        Value::Object(map) => map.values().for_each(|item| feed_json(item, hasher)),
    }
}

/// Specs inside specs. Counts are not looked for in devices, whose check is their own.
macro_rules! specs {
    ($($ty:ty: $class:ident $(, $counts:ident)?;)*) => { $(
        impl Border for $ty {
            fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                wrap(py, Data::$class(self.clone()))
            }
            fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
                match value.cast::<Spec>().ok()?.get().data() {
                    Data::$class(inner) => Some(inner.clone()),
                    _ => None,
                }
            }
            fn gives() -> String {
                concat!("specs.", stringify!($class)).into()
            }
            fn kinds() -> &'static [&'static str] {
                &[stringify!($class)]
            }
            fn feed(&self, hasher: &mut dyn Hasher) {
                Record::feed(self, hasher);
            }
            $(fn zeros(&self, at: &mut Vec<&'static str>, problems: &mut Problems) {
                Record::$counts(self, at, problems);
            })?
        }
    )* };
}

specs! {
    Parallel: Parallel, zeros;
    PoolPlan: Pool, zeros;
    Placement: Placement;
    Device: Device;
    Fabric: Fabric;
    Distribution: Distribution;
    Quant: Quant;
}

impl Border for Slot {
    fn give<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wrap(
            py,
            match self {
                Slot::Workers(inner) => Data::Workers(inner.clone()),
                Slot::Afd(inner) => Data::AFD(inner.clone()),
            },
        )
    }
    fn take(value: &Bound<'_, PyAny>) -> Option<Self> {
        match value.cast::<Spec>().ok()?.get().data() {
            Data::Workers(inner) => Some(Slot::Workers(inner.clone())),
            Data::AFD(inner) => Some(Slot::Afd(inner.clone())),
            _ => None,
        }
    }
    fn gives() -> String {
        "specs.Workers | specs.AFD".into()
    }
    fn kinds() -> &'static [&'static str] {
        &["Workers", "AFD"]
    }
    fn feed(&self, hasher: &mut dyn Hasher) {
        match self {
            Slot::Workers(inner) => Record::feed(inner, hasher),
            Slot::Afd(inner) => Record::feed(inner, hasher),
        }
    }
    fn zeros(&self, at: &mut Vec<&'static str>, problems: &mut Problems) {
        match self {
            Slot::Workers(inner) => Record::zeros(inner, at, problems),
            Slot::Afd(inner) => Record::zeros(inner, at, problems),
        }
    }
}

impl Record for spec::Distribution {
    fn feed(&self, hasher: &mut dyn Hasher) {
        feed_json(&json_of(self), hasher);
    }
}
