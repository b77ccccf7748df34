//! Any spec as one value: its kind, its JSON form, its check; and the base of all specs in Python, which holds one.
//!
//! Limit: plans are checked for counts only; what they need of a model and a cluster is asked by `check_plan`.

use std::hash::Hasher;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;

use crate::error::{Error, Problems, Result, near};
use crate::spec::{self, json};

/// What a declared spec can do at the border; written by [`super::classes`] from its declaration.
pub trait Record: Sized {
    /// Equal records feed a hasher the same.
    fn feed(&self, hasher: &mut dyn Hasher);

    /// Which kinds of spec may stand in a field; none where it is no spec.
    fn kinds_in(_field: &str) -> &'static [&'static str] {
        &[]
    }

    /// Counts that are zero; `at` is the path to the record.
    fn zeros(&self, _at: &mut Vec<&'static str>, _problems: &mut Problems) {}

    /// From keyword arguments that are plainly what the fields are.
    fn make(_given: &Bound<'_, PyDict>) -> PyResult<Option<Self>> {
        Ok(None)
    }

    /// Sets a field, if the value plainly is one of it.
    fn put(&mut self, _name: &str, _value: &Bound<'_, PyAny>) -> bool {
        false
    }
}

/// Declares the kinds of spec: name in Python, type, and the `kind` tag its JSON carries ("" for none).
macro_rules! kinds {
    ($($name:ident($ty:ty) $tag:literal),* $(,)?) => {
        /// Any spec; always behind an `Arc`, so that its size does not matter. The names are the field's own.
        #[allow(clippy::large_enum_variant, clippy::upper_case_acronyms)]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Data { $($name($ty)),* }

        impl Data {
            pub const KINDS: &'static [&'static str] = &[$(stringify!($name)),*];

            pub fn kind(&self) -> &'static str {
                match self { $(Data::$name(_) => stringify!($name)),* }
            }

            /// Equal specs feed a hasher the same.
            pub fn feed(&self, hasher: &mut dyn Hasher) {
                match self { $(Data::$name(data) => Record::feed(data, hasher)),* }
            }

            /// Which kinds may stand in a field of a kind; none where it is no spec.
            pub fn kinds_in(kind: &str, field: &str) -> &'static [&'static str] {
                match kind { $(stringify!($name) => <$ty as Record>::kinds_in(field),)* _ => &[] }
            }

            fn zeros(&self, problems: &mut Problems) {
                match self { $(Data::$name(data) => Record::zeros(data, &mut Vec::new(), problems)),* }
            }

            /// From keyword arguments that are plainly what the fields are.
            pub fn make(kind: &str, given: &Bound<'_, PyDict>) -> PyResult<Option<Data>> {
                Ok(match kind { $(stringify!($name) => <$ty as Record>::make(given)?.map(Data::$name),)* _ => None })
            }

            /// Sets a field, if the value plainly is one of it.
            pub fn put(&mut self, name: &str, value: &Bound<'_, PyAny>) -> bool {
                match self { $(Data::$name(data) => Record::put(data, name, value)),* }
            }

            /// The serde form, without a tag.
            pub fn plain(&self) -> serde_json::Result<Value> {
                match self { $(Data::$name(data) => serde_json::to_value(data)),* }
            }

            /// Deserialises; the error names the first wrong field.
            pub fn read(kind: &str, value: &Value) -> Result<Data> {
                match kind {
                    $(stringify!($name) => json::from_value::<$ty>(value.clone(), "").map(Data::$name),)*
                    _ => Err(Error::spec("kind", format!("'{kind}' is not a spec"), near(kind, Data::KINDS))),
                }
            }

            pub fn tag(kind: &str) -> &'static str {
                match kind { $(stringify!($name) => $tag,)* _ => "" }
            }
        }
    };
}

kinds! {
    Model(spec::Model) "",
    Cluster(spec::Cluster) "",
    Device(spec::Device) "",
    Fabric(spec::Fabric) "",
    Workload(spec::Workload) "",
    Distribution(spec::Distribution) "",
    SLO(spec::Slo) "",
    Quant(spec::Quant) "",
    Serving(spec::Serving) "",
    Parallel(spec::Parallel) "",
    Workers(spec::Workers) "workers",
    Aggregated(spec::Aggregated) "aggregated",
    PD(spec::PdPlan) "pd",
    AFD(spec::AfdPlan) "afd",
    Pool(spec::PoolPlan) "",
    Placement(spec::Placement) "",
    Assumptions(spec::Assumptions) "",
}

impl Data {
    /// The JSON form; plans and the fillers of a P/D slot say their kind.
    pub fn to_value(&self) -> Value {
        let mut value = self.plain().unwrap_or(Value::Null);
        let tag = Data::tag(self.kind());
        if let (false, Some(map)) = (tag.is_empty(), value.as_object_mut()) {
            map.insert("kind".into(), tag.into());
        }
        value
    }

    /// What the spec's own check finds, with paths from the spec itself.
    pub fn check(&self) -> Problems {
        let (root, mut problems) = match self {
            Data::Model(s) => ("model", s.check()),
            Data::Cluster(s) => ("cluster", s.check()),
            Data::Device(s) => ("device", s.check()),
            Data::Fabric(s) => ("fabric", s.check()),
            Data::Workload(s) => ("workload", s.check()),
            Data::Distribution(s) => {
                let mut probe = spec::Workload::fixed("", 0.0, 1.0, 1.0);
                probe.prefix = s.clone();
                ("workload.prefix", probe.check())
            }
            Data::SLO(s) => ("slo", s.check()),
            Data::Quant(s) => ("quant", s.check()),
            Data::Serving(s) => ("serving", s.check()),
            Data::Assumptions(s) => ("assumptions", s.check()),
            // A plan is checked against a model and a cluster; alone, it must only count from one.
            _ => {
                let mut problems = Problems::new();
                self.zeros(&mut problems);
                ("", problems)
            }
        };
        for p in &mut problems.0 {
            for part in root.split('.') {
                if let Some(rest) = p.path.strip_prefix(part)
                    && (rest.is_empty() || rest.starts_with('.'))
                {
                    p.path = rest.trim_start_matches('.').to_string();
                }
            }
            // Inside a workload a fixed length is the plain number; alone it has a name.
            if p.path.is_empty() && matches!(self, Data::Distribution(_)) {
                p.path = "value".to_string();
            }
        }
        problems
    }

    /// The plan that this is, if it is one.
    pub fn plan(&self) -> Option<spec::Plan> {
        match self {
            Data::Aggregated(a) => Some(spec::Plan::Aggregated(a.clone())),
            Data::PD(p) => Some(spec::Plan::Pd(p.clone())),
            Data::AFD(a) => Some(spec::Plan::Afd(a.clone())),
            _ => None,
        }
    }
}

/// The base of all specs in Python (its methods: [`super::spec`]); bare only between the core and the classes.
#[pyclass(frozen, subclass, module = "disagg.specs")]
#[derive(Clone)]
pub struct Spec {
    data: Arc<Data>,
}

impl Spec {
    pub fn new(data: Data) -> Self {
        Spec { data: Arc::new(data) }
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub fn to_value(&self) -> Value {
        self.data.to_value()
    }
}
