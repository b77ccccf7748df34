//! The class in Python of every spec, from its declaration: typed attributes with their documentation, the
//! constructor with its signature, and what [`Record`] asks.
//!
//! Limit: declared fields only; methods that need other specs or tables stand in `disagg.specs`.

use std::hash::Hasher;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

use super::border::Border;
use super::class_table;
use super::construct::{Argument, construct};
use super::data::{Data, Record, Spec};
use super::errors::InternalError;
use super::made;
use crate::error::{Error, Problems};

/// What a class says of a field: name, type as an attribute, type as an argument, default, documentation.
pub struct Field<'py> {
    pub name: &'static str,
    pub gives: String,
    pub takes: String,
    pub default: Option<Bound<'py, PyAny>>,
    pub doc: Vec<&'static str>,
}

/// A class: what it is, and its fields in the order of the constructor.
pub struct Class<'py> {
    pub about: Vec<&'static str>,
    pub more: &'static str,
    pub fields: Vec<Field<'py>>,
}

/// Declares the module and the class of a spec. `plain`: the constructor takes the fields; `made`: it says more
/// ([`super::made`]).
macro_rules! class {
    ($module:ident $how:ident $kind:ident $name:literal $home:literal $more:literal;
        $record:ident [$($about:literal)*]
        $( $field:ident: $type:ty, [$($default:expr)?], [$($doc:literal)*]; )*
    ) => {
        pub mod $module {
            use crate::python::classes::*;
            #[allow(unused_imports)]
            use crate::spec::{*, assumptions::*};

            #[pyclass(name = $name, module = $home, extends = Spec, subclass, frozen)]
            pub struct Native;

            fn of<'a>(spec: &'a PyRef<'_, Native>) -> PyResult<&'a $record> {
                match spec.as_super().data() {
                    Data::$kind(data) => Ok(data),
                    other => Err(InternalError::new_err((format!("a {} in a {}", other.kind(), $name),))),
                }
            }

            #[pymethods]
            impl Native {
                #[new]
                #[pyo3(signature = (*args, **kwargs))]
                fn new(
                    args: &Bound<'_, PyTuple>,
                    kwargs: Option<&Bound<'_, PyDict>>,
                ) -> PyResult<PyClassInitializer<Self>> {
                    let spec = construct(stringify!($kind), args, kwargs, |py| arguments(py, stringify!($kind)))?;
                    Ok(PyClassInitializer::from(spec).add_subclass(Native))
                }

                $(
                    $(#[doc = $doc])*
                    #[getter]
                    fn $field<'py>(slf: PyRef<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                        of(&slf)?.$field.give(slf.py())
                    }
                )*
            }

            impl Record for $record {
                fn feed(&self, hasher: &mut dyn Hasher) {
                    $( Border::feed(&self.$field, hasher); )*
                }

                fn kinds_in(field: &str) -> &'static [&'static str] {
                    match field { $( stringify!($field) => <$type as Border>::kinds(), )* _ => &[] }
                }

                fn zeros(&self, at: &mut Vec<&'static str>, problems: &mut Problems) {
                    $(
                        at.push(stringify!($field));
                        Border::zeros(&self.$field, at, problems);
                        at.pop();
                    )*
                }

                class! { @$how $( $field: $type, [$($default)?]; )* }
            }

            #[allow(unused_variables)]
            pub fn class(py: Python<'_>) -> PyResult<Class<'_>> {
                Ok(Class {
                    about: vec![$($about),*],
                    more: $more,
                    fields: vec![$( Field {
                        name: stringify!($field),
                        gives: <$type>::gives(),
                        takes: <$type>::takes(),
                        default: class!(@default py, $type, $($default)?),
                        doc: vec![$($doc),*],
                    } ),*],
                })
            }
        }
    };
    (@plain $( $field:ident: $type:ty, [$($default:expr)?]; )*) => {
        fn make(given: &Bound<'_, PyDict>) -> PyResult<Option<Self>> {
            let mut used = 0;
            let made = Self { $(
                $field: match given.get_item(pyo3::intern!(given.py(), stringify!($field)))? {
                    Some(value) => {
                        used += 1;
                        match Border::take(&value) {
                            Some(taken) => taken,
                            None => return Ok(None),
                        }
                    }
                    None => class!(@or $($default)?),
                },
            )* };
            Ok((used == given.len()).then_some(made))
        }

        fn put(&mut self, name: &str, value: &Bound<'_, PyAny>) -> bool {
            match name {
                $( stringify!($field) => Border::take(value).map(|taken| self.$field = taken).is_some(), )*
                _ => false,
            }
        }
    };
    (@made $($rest:tt)*) => {};
    (@or) => { return Ok(None) };
    (@or $default:expr) => { $default };
    (@default $py:ident, $type:ty,) => { None };
    (@default $py:ident, $type:ty, $default:expr) => {{
        let default: $type = $default;
        Some(default.give($py)?)
    }};
}

/// The classes: module of the declaration, kind, name, home in Python, and what its documentation says at the end.
macro_rules! classes {
    ($($declared:path, $module:ident $how:ident $kind:ident $name:literal $home:literal $more:literal;)*) => {
        $( $declared! { class $module $how $kind $name $home $more; } )*

        /// The native class of a kind.
        fn native<'py>(py: Python<'py>, kind: &str) -> PyResult<Bound<'py, PyType>> {
            match kind {
                $( stringify!($kind) => Ok(py.get_type::<$module::Native>()), )*
                "Distribution" => Ok(py.get_type::<AnyDistribution>()),
                _ => Err(Error::spec("kind", format!("'{kind}' is not a spec"), "").into()),
            }
        }

        fn class<'py>(py: Python<'py>, kind: &str) -> PyResult<Class<'py>> {
            match kind {
                $( stringify!($kind) => $module::class(py), )*
                _ => Ok(Class {
                    about: vec!["A distribution of token counts. Built by its named constructors."],
                    more: "",
                    fields: Vec::new(),
                }),
            }
        }
    };
}

classes! {
    crate::spec::plan::parallel, parallel plain Parallel "Parallel" "disagg.specs.plan" r#"
Notes
-----
``tp * dp * cp == ep * moe_tp``; a worker takes ``tp * dp * cp * pp`` GPUs.

Examples
--------
>>> import disagg as dg
>>> dg.Parallel(tp=1, dp=8)
Parallel(tp=1, dp=8, pp=1, cp=1, moe_tp=1)
"#;
    crate::spec::plan::workers, workers plain Workers "Workers" "disagg.specs.plan" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Workers(count=2, parallel=dg.Parallel(dp=8)).count
2
"#;
    crate::spec::plan::aggregated, aggregated plain Aggregated "Aggregated" "disagg._core" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Aggregated(parallel=dg.Parallel(dp=8), replicas=4).replicas
4
"#;
    crate::spec::plan::pool, pool plain Pool "Pool" "disagg.specs.plan" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Pool(gpus=112)
Pool(gpus=112, tp=1, moe_tp=1)
"#;
    crate::spec::plan::placement, placement plain Placement "Placement" "disagg.specs.plan" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Placement(attention=[0, 1], ffn=[2, 3]).ffn
[2, 3]
"#;
    crate::spec::plan::afd, afd plain AFD "AFD" "disagg._core" r#"
Notes
-----
One layer of a step, steps overlapped, full duplex, equal micro-batches (M of them, G groups; A, X, F, Y the
times of attention, A2F, FFN and F2A): ``max(M A, M X, M Y, G M F, G M ports, A + X + F + Y)``. A group's hops run
on its own ports; the FFN pool's ports are shared, for as long as the bytes keep them.

Examples
--------
>>> import disagg as dg
>>> plan = dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=112), microbatches=3)
>>> plan.ffn.gpus, plan.pipeline
(112, 'overlapped')
>>> dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=16), microbatches=1, attention_groups=2).attention_groups
2
"#;
    crate::spec::plan::pd, pd plain PD "PD" "disagg._core" r#"
Examples
--------
>>> import disagg as dg
>>> plan = dg.PD(
...     prefill=dg.Workers(count=2, parallel=dg.Parallel(dp=8)),
...     decode=dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=96)),
... )
>>> plan.decode.attention.gpus
16
"#;
    crate::spec::hardware::device, device plain Device "Device" "disagg._core" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Device.preset("b200_sxm").replace(hbm_bytes=288e9).hbm_bytes
288000000000.0
"#;
    crate::spec::hardware::fabric, fabric plain Fabric "Fabric" "disagg._core" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Fabric.preset("gb200").domain_gpus
72
"#;
    crate::spec::slo::slo, slo plain SLO "SLO" "disagg.specs.serving" r#"
Examples
--------
>>> import disagg as dg
>>> dg.SLO(ttft_ms=50, tpot_ms=15)
SLO(ttft_ms=50.0, tpot_ms=15.0)
"#;
    crate::spec::dtype::quant, quant plain Quant "Quant" "disagg.specs.serving" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Quant(moe="nvfp4", kv="fp8")
Quant(moe='nvfp4', kv='fp8')
"#;
    crate::spec::serving::serving, serving plain Serving "Serving" "disagg.specs.serving" r#"
Examples
--------
>>> import disagg as dg
>>> dg.Serving(mtp=1, acceptance=0.8).acceptance
0.8
"#;
    crate::spec::hardware::cluster, cluster made Cluster "Cluster" "disagg._core" "";
    crate::spec::workload::workload, workload made Workload "Workload" "disagg._core" "";
    crate::spec::model::model, model made Model "Model" "disagg._core" "";
    crate::spec::assumptions::assumptions, assumptions made Assumptions "Assumptions" "disagg._core" "";
}

/// A distribution: its fields are those of its kind.
#[pyclass(name = "Distribution", module = "disagg._core", extends = Spec, subclass, frozen)]
pub struct AnyDistribution;

#[pymethods]
impl AnyDistribution {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<PyClassInitializer<Self>> {
        let spec = construct("Distribution", args, kwargs, |_| Ok(Vec::new()))?;
        Ok(PyClassInitializer::from(spec).add_subclass(AnyDistribution))
    }

    /// Which distribution it is.
    #[getter]
    fn kind(slf: PyRef<'_, Self>) -> Option<String> {
        slf.as_super().to_value().get("kind").and_then(|k| k.as_str()).map(str::to_string)
    }
}

/// The arguments of a constructor: what is required first, where the figures come from last.
pub fn arguments<'py>(py: Python<'py>, kind: &str) -> PyResult<Vec<Argument<'py>>> {
    Ok(ordered(class(py, kind)?.fields).into_iter().map(|f| (f.name, f.default)).collect())
}

fn ordered(mut fields: Vec<Field<'_>>) -> Vec<Field<'_>> {
    fields.sort_by_key(|f| (f.default.is_some(), f.name == "source"));
    fields
}

/// Exports the classes, each with its kind, documentation and signature.
pub fn export(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let inspect = py.import("inspect")?;
    let (signature, parameter) = (inspect.getattr("Signature")?, inspect.getattr("Parameter")?);
    for kind in Data::KINDS {
        let native = native(py, kind)?;
        class_table::declare(kind, &native);
        native.setattr("_kind", kind)?;
        let class = class(py, kind)?;
        let arguments = taken(py, kind)?;
        native.setattr(
            "__doc__",
            match made::of(kind) {
                Some(made) => paragraph(&class.about) + made.about,
                None => documentation(&class.about, &ordered(class.fields), class.more),
            },
        )?;
        let parameters = PyList::empty(py);
        for Taken { name, takes, default, how } in &arguments {
            let options = PyDict::new(py);
            options.set_item("annotation", takes)?;
            if let Some(default) = default {
                // An empty list is not to be changed by anybody.
                let list = default.is_instance_of::<PyList>();
                options.set_item("default", if list { PyTuple::empty(py).into_any() } else { default.clone() })?;
            }
            parameters.append(parameter.call((*name, parameter.getattr(*how)?), Some(&options))?)?;
        }
        native.setattr("__signature__", signature.call1((parameters,))?)?;
        module.add(*kind, native)?;
    }
    Ok(())
}

/// An argument of a constructor: its name, its type in Python, what it is where it is left out, and how it is given.
struct Taken<'py> {
    name: &'static str,
    takes: String,
    default: Option<Bound<'py, PyAny>>,
    how: &'static str,
}

/// What the constructor of a kind takes, in order.
fn taken<'py>(py: Python<'py>, kind: &str) -> PyResult<Vec<Taken<'py>>> {
    let Some(made) = made::of(kind) else {
        let one = |f: Field<'py>| Taken { name: f.name, takes: f.takes, default: f.default, how: "KEYWORD_ONLY" };
        return Ok(ordered(class(py, kind)?.fields).into_iter().map(one).collect());
    };
    let mut out = Vec::new();
    for (i, (name, takes, left)) in made.arguments.iter().enumerate() {
        let how = if i < made.nameless { "POSITIONAL_OR_KEYWORD" } else { "KEYWORD_ONLY" };
        out.push(Taken { name, takes: (*takes).to_string(), default: left.value(py)?, how });
    }
    let open = |name| Taken { name, takes: "Any".to_string(), default: None, how: "VAR_KEYWORD" };
    out.extend(made.open.map(open));
    Ok(out)
}

fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|l| format!("{}\n", l.trim())).collect()
}

fn documentation(about: &[&str], fields: &[Field<'_>], more: &str) -> String {
    let line = |text: &&str| match text.trim() {
        "" => "\n".to_string(),
        text => format!("    {text}\n"),
    };
    let mut text = paragraph(about);
    text += "\nParameters\n----------\n";
    for field in fields {
        text += field.name;
        text += "\n";
        text.extend(field.doc.iter().map(line));
    }
    text + more
}

/// What the stub says of a class: its name, its attributes as (name, type), and the arguments of its constructor as (name,
/// type, default as text, kind of parameter).
type Said = (&'static str, Vec<(&'static str, String)>, Vec<(&'static str, String, Option<String>, &'static str)>);

/// What the stub says of the classes.
#[pyfunction]
pub fn _fields(py: Python<'_>) -> PyResult<Vec<Said>> {
    let mut out = Vec::new();
    for kind in Data::KINDS {
        let attributes = ordered(class(py, kind)?.fields).into_iter().map(|f| (f.name, f.gives)).collect();
        let mut arguments = Vec::new();
        for Taken { name, takes, default, how } in taken(py, kind)? {
            arguments.push((name, takes, default.map(|d| d.repr()?.extract()).transpose()?, how));
        }
        out.push((*kind, attributes, arguments));
    }
    Ok(out)
}
