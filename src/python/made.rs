//! Constructors that say more than the fields of their spec: what they take, what they make of it, and the call that makes
//! an equal one again.
//!
//! [`super::construct`] holds a call against the arguments; what is made stands in [`super::catalog`] and
//! [`super::model_source`].
//!
//! Limit: defaults are constants; what a constructor takes on top of its fields is never stored as it was said.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::catalog;
use super::class_table::wrap;
use super::data::{Data, Spec};
use super::model_source;
use crate::spec::{self, Distribution, catalog as presets};
use crate::units::GB;

/// What an argument is where it is left out.
#[derive(Clone, Copy)]
pub enum Left {
    Required,
    None,
    Flag(bool),
    Number(f64),
    Whole(i64),
    Text(&'static str),
    /// A tuple of names.
    Words(&'static [&'static str]),
}

impl Left {
    pub fn value(self, py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
        Ok(match self {
            Left::Required => None,
            Left::None => Some(py.None().into_bound(py)),
            Left::Flag(flag) => Some(flag.into_pyobject(py)?.to_owned().into_any()),
            Left::Number(x) => Some(x.into_pyobject(py)?.into_any()),
            Left::Whole(n) => Some(n.into_pyobject(py)?.into_any()),
            Left::Text(text) => Some(PyString::new(py, text).into_any()),
            Left::Words(words) => Some(PyTuple::new(py, words)?.into_any()),
        })
    }
}

/// A constructor: its arguments as (name, type in Python, default), and how many need no name.
pub struct Made {
    pub arguments: &'static [(&'static str, &'static str, Left)],
    pub nameless: usize,
    /// What arguments of any other name are called; none: there are none.
    pub open: Option<&'static str>,
    /// The spec, of all arguments.
    pub build: fn(&Bound<'_, PyDict>) -> PyResult<Spec>,
    /// The parameters, errors and an example, for the documentation.
    pub about: &'static str,
}

const LENGTHS: &str = "float | specs.Distribution | None";

const CLUSTER: Made = Made {
    arguments: &[
        ("system", "str", Left::Required),
        ("gpus", "int", Left::Required),
        ("nic_gb_per_s", "float | None", Left::None),
        ("oversubscription", "float", Left::Number(1.0)),
        ("device", "specs.Device | None", Left::None),
        ("fabric", "specs.Fabric | Mapping[str, Any] | None", Left::None),
    ],
    nameless: 1,
    open: None,
    build: catalog::cluster,
    about: r#"
Parameters
----------
system
    A system preset: its kernel tables, device and fabric are used.
gpus
    The GPU budget.
nic_gb_per_s
    Scale-out bandwidth per GPU and direction, GB/s (50 is 400 Gb/s); None: the preset's.
oversubscription
    1: non-blocking; 2: half the bandwidth above the leaf.
device, fabric
    What-if hardware in place of the preset's. A device keeps the kernel tables of `system`, its times scaled by the
    ratio of the two rooflines (evidence ``scaled``), whatever it is called; only one that goes by another
    preset's name reads that preset's tables. Estimates and studies say so in their ``warnings``. Choose the
    system whose utilisations are most alike. A fabric may be a dict of the fields that differ, with
    bandwidths as ``nvlink_gb_per_s`` and ``nic_gb_per_s`` (GB/s per GPU and direction) if you like.

Raises
------
SpecError
    If the system is unknown or a figure does not fit.

Examples
--------
>>> import disagg as dg
>>> dg.Cluster("b200_sxm", gpus=128)
Cluster('b200_sxm', gpus=128, nic_gb_per_s=50.0, oversubscription=1.0)
>>> pods = dg.Cluster("b200_sxm", gpus=128, fabric={"domain_gpus": 32, "nic_gb_per_s": 100})
>>> pods.fabric.domain_gpus, pods.fabric.node_gpus, pods.nic_gb_per_s
(32, 8, 100.0)
"#,
};

const WORKLOAD: Made = Made {
    arguments: &[
        ("isl", LENGTHS, Left::None),
        ("osl", LENGTHS, Left::None),
        ("prefix", LENGTHS, Left::None),
        ("correlation", "float", Left::Number(0.0)),
        ("lengths", "Sequence[tuple[float, float, float]] | None", Left::None),
        ("prefix_scope", "Literal[\"request\", \"shared\"]", Left::Text("request")),
        ("prefix_home", "Literal[\"both\", \"prefill\", \"decode\"]", Left::Text("both")),
        ("strict_context", "bool", Left::Flag(false)),
        ("name", "str", Left::Text("custom")),
        ("source", "str", Left::Text("user")),
    ],
    nameless: 0,
    open: None,
    build: catalog::workload,
    about: r#"
Parameters
----------
isl, osl
    New prompt tokens and output tokens: a number or a `Distribution`.
prefix
    Cached tokens before the prompt.
correlation
    Pearson correlation of `isl` and `osl`, both of which keep their distribution: a share of the requests has
    the two rise together (or one rise as the other falls), the rest is independent.
lengths
    Joint samples ``(prefix, isl, osl)`` in place of the three.
prefix_scope
    ``"request"``: private KV per sequence (an agent's session); ``"shared"``: one copy per
    attention rank (a system prompt).
prefix_home
    Which side of a `PD` plan keeps the prefix: ``"both"``, ``"prefill"`` or ``"decode"``.
strict_context
    Whether a sequence longer than the model's context is an error rather than a warning.
name, source
    What it is called and where the lengths come from.

Raises
------
SpecError
    If a length does not fit, or no joint lengths have this correlation; every problem is named.

Examples
--------
>>> import disagg as dg
>>> dg.Workload(isl=512, osl=256, prefix=4096).theta
4735.5
>>> varied = {"isl": dg.Distribution.uniform(100, 900), "osl": dg.Distribution.geometric(mean=200)}
>>> round(dg.Workload(**varied, correlation=0.5).theta - dg.Workload(**varied).theta)
115
"#,
};

const DISTRIBUTION: Made = Made {
    arguments: &[("kind", "str", Left::Required)],
    nameless: 1,
    open: Some("values"),
    build: |fields| super::fields::build("Distribution", fields),
    about: r#"
Parameters
----------
kind
    ``"fixed"``, ``"uniform"``, ``"lognormal"``, ``"quantiles"`` or ``"geometric"``.
**values
    The values of that kind.

Examples
--------
>>> import disagg as dg
>>> dg.Distribution.uniform(100, 300).mean
200.0
"#,
};

const ASSUMPTIONS: Made = Made {
    arguments: &[("profile", "str", Left::Text("physical"))],
    nameless: 1,
    open: Some("switches"),
    build: catalog::assumptions,
    about: r#"
Start from a profile and replace single switches.

Parameters
----------
profile
    ``"physical"``, ``"paper"`` or ``"aiconfigurator-0.12"``.
**switches
    Switches that differ from it; `switches` lists them all.

Examples
--------
>>> import disagg as dg
>>> dg.Assumptions.physical().replace(kv_transfer="bulk")
Assumptions.physical().replace(kv_transfer='bulk')
"#,
};

const MODEL: Made = Made {
    arguments: &[
        ("source", "str | PathLike[str] | dict[str, Any]", Left::Required),
        ("trust_fields", "bool", Left::Flag(false)),
    ],
    nameless: 1,
    open: None,
    build: model_source::read,
    about: r#"
Parameters
----------
source
    A preset's name (with or without its organisation), its address on a hub, the path of a Hugging Face
    ``config.json`` (or of the directory that holds it), or a dict: the content of such a file, or what
    `to_dict` gave.
trust_fields
    Read a config whose ``model_type`` and ``architectures`` are not known by the fields that are known.
    Fields that look like structure and were not read are refused all the same.

Raises
------
SpecError
    If there is no such preset (near names are listed), the config is of no class that is known, or it does not
    describe a model that can be priced; every problem is named.
DataError
    If the file cannot be read.

Warns
-----
UserWarning
    If ``model.safetensors.index.json`` beside the config has other bytes than the model as it is read (more than
    3 % apart), or if the name speaks of a number format and the config of none.

Examples
--------
>>> import disagg as dg
>>> model = dg.Model("deepseek-ai/DeepSeek-V3.2")
>>> model.layers, model.experts
(61, 256)
"#,
};

/// The constructor of a kind, if it says more than the fields.
pub fn of(kind: &str) -> Option<&'static Made> {
    match kind {
        "Cluster" => Some(&CLUSTER),
        "Workload" => Some(&WORKLOAD),
        "Distribution" => Some(&DISTRIBUTION),
        "Assumptions" => Some(&ASSUMPTIONS),
        "Model" => Some(&MODEL),
        _ => None,
    }
}

/// The arguments of a call that makes an equal spec.
pub fn args<'py>(py: Python<'py>, data: &Data) -> PyResult<Option<Bound<'py, PyDict>>> {
    let args = PyDict::new(py);
    match data {
        Data::Model(_) | Data::Distribution(_) => {
            return Ok(Some(super::give::to_python(py, &data.to_value())?.cast_into()?));
        }
        Data::Workload(w) => {
            for (name, one) in [("isl", &w.isl), ("osl", &w.osl), ("prefix", &w.prefix)] {
                match (w.lengths.is_empty(), one) {
                    (false, _) => args.set_item(name, py.None())?,
                    (true, Distribution::Fixed { value }) => args.set_item(name, value)?,
                    (true, _) => args.set_item(name, wrap(py, Data::Distribution(one.clone()))?)?,
                }
            }
            args.set_item("correlation", w.correlation)?;
            let rows: Vec<(f64, f64, f64)> = w.lengths.iter().map(|[p, i, o]| (*p, *i, *o)).collect();
            args.set_item("lengths", if rows.is_empty() { None } else { Some(rows) })?;
            args.set_item("prefix_scope", w.prefix_scope.name())?;
            args.set_item("prefix_home", w.prefix_home.name())?;
            args.set_item("strict_context", w.strict_context)?;
            args.set_item("name", &w.name)?;
            args.set_item("source", &w.source)?;
        }
        Data::Cluster(c) => {
            args.set_item("system", &c.system)?;
            args.set_item("gpus", c.gpus)?;
            args.set_item("nic_gb_per_s", c.fabric.nic_bytes_per_s / GB)?;
            args.set_item("oversubscription", c.fabric.oversubscription)?;
            let (device, _) = presets::system(&c.system)?;
            if c.device != device {
                args.set_item("device", wrap(py, Data::Device(c.device.clone()))?)?;
            }
            if let Data::Cluster(again) = (CLUSTER.build)(&with_defaults(&CLUSTER, &args)?)?.data()
                && again.fabric != c.fabric
            {
                args.set_item("fabric", wrap(py, Data::Fabric(c.fabric.clone()))?)?;
            }
        }
        Data::Assumptions(a) => {
            args.set_item("profile", &a.profile)?;
            for switch in a.switches() {
                args.set_item(switch.name, super::give::to_python(py, &switch.value)?)?;
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(args))
}

/// The arguments of a call, those that are left out filled in.
pub fn with_defaults<'py>(made: &Made, given: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let (py, whole) = (given.py(), given.copy()?);
    for (name, _, left) in made.arguments {
        if let (false, Some(value)) = (given.contains(name)?, left.value(py)?) {
            whole.set_item(name, value)?;
        }
    }
    Ok(whole)
}

/// A name to call, and its arguments as (name, text).
pub type Call = (String, Vec<(String, String)>);

/// How a spec that goes by a preset's name, or by a profile's, is called; none: by its arguments.
pub fn call(py: Python<'_>, data: &Data) -> PyResult<Option<Call>> {
    let text = |value: &Bound<'_, PyAny>| value.repr()?.extract::<String>();
    let preset = |name: &str| text(PyString::new(py, name).as_any());
    Ok(match data {
        Data::Distribution(_) => {
            let Some(args) = args(py, data)? else { return Ok(None) };
            let kind: String = args.get_item("kind")?.map_or(Ok(String::new()), |k| k.extract())?;
            args.del_item("kind")?;
            let shown = args.iter().map(|(n, v)| Ok((n.extract()?, text(&v)?))).collect::<PyResult<_>>()?;
            Some((format!("Distribution.{kind}"), shown))
        }
        Data::Cluster(_) => {
            let Some(args) = args(py, data)? else { return Ok(None) };
            let named = |(i, (n, v)): (usize, (Bound<'_, PyAny>, Bound<'_, PyAny>))| {
                Ok((if i == 0 { String::new() } else { n.extract()? }, text(&v)?))
            };
            Some(("Cluster".to_string(), args.iter().enumerate().map(named).collect::<PyResult<_>>()?))
        }
        Data::Assumptions(a) => {
            let profile = a.profile.trim_end_matches('*').to_string();
            let base = Data::Assumptions(spec::Assumptions::profile(&profile)?);
            let changed: Vec<_> = differing(py, data, &base)?.into_iter().filter(|(n, _)| n != "profile").collect();
            let name = format!("Assumptions.{}", profile.trim_end_matches("-0.12"));
            Some((if changed.is_empty() { name } else { format!("{name}().replace") }, changed))
        }
        Data::Model(m) if presets::models().contains(&m.name) => {
            let changed = differing(py, data, &Data::Model(presets::model(&m.name)?))?;
            let name = preset(&m.name)?;
            Some(match changed.is_empty() {
                true => ("Model".to_string(), vec![(String::new(), name)]),
                false => (format!("Model({name}).replace"), changed),
            })
        }
        Data::Model(_) => {
            let whole = super::give::to_python(py, &data.to_value())?;
            Some(("Model".to_string(), vec![(String::new(), text(&whole)?)]))
        }
        Data::Workload(w) if presets::workloads().contains(&w.name) => {
            of_preset(py, "Workload", &w.name, data, &Data::Workload(presets::workload(&w.name)?))?
        }
        Data::Device(d) if presets::systems().contains(&d.name) => {
            of_preset(py, "Device", &d.name, data, &Data::Device(presets::system(&d.name)?.0))?
        }
        _ => None,
    })
}

fn of_preset(py: Python<'_>, class: &str, name: &str, data: &Data, base: &Data) -> PyResult<Option<Call>> {
    let changed = differing(py, data, base)?;
    let name: String = PyString::new(py, name).repr()?.extract()?;
    Ok(Some(match changed.is_empty() {
        true => (format!("{class}.preset"), vec![(String::new(), name)]),
        false => (format!("{class}.preset({name}).replace"), changed),
    }))
}

/// The arguments in which a spec differs from another of its kind, as text.
fn differing(py: Python<'_>, data: &Data, base: &Data) -> PyResult<Vec<(String, String)>> {
    let all = |data: &Data| -> PyResult<Bound<'_, PyDict>> {
        match args(py, data)? {
            Some(args) => Ok(args),
            None => wrap(py, data.clone())?.call_method0("_args")?.cast_into::<PyDict>().map_err(PyErr::from),
        }
    };
    let (mine, theirs) = (all(data)?, all(base)?);
    let mut changed = Vec::new();
    for (name, value) in mine {
        if !theirs.get_item(&name)?.is_some_and(|other| value.eq(other).unwrap_or(false)) {
            changed.push((name.extract()?, value.repr()?.extract()?));
        }
    }
    Ok(changed)
}

/// The arguments of `replace`, where some do not carry over or are merged; none: all carry over.
pub fn replaced<'py>(data: &Data, changes: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let py = changes.py();
    let Some(args) = args(py, data)? else { return Ok(None) };
    match data {
        Data::Cluster(_) => {
            let given = |name: &str| changes.contains(name);
            let drop: &[&str] = if given("fabric")? || given("system")? {
                // Figures of the old fabric do not carry over unless they were asked for again.
                &["nic_gb_per_s", "oversubscription", "device", "fabric"]
            } else if args.contains("fabric")? && (given("nic_gb_per_s")? || given("oversubscription")?) {
                &["nic_gb_per_s", "oversubscription"]
            } else {
                &[]
            };
            for name in drop.iter().filter(|n| args.contains(**n).unwrap_or(false)) {
                args.del_item(name)?;
            }
            args.update(changes.as_mapping())?;
        }
        Data::Model(_) => {
            for (name, value) in changes {
                match (args.get_item(&name)?.map(|old| old.cast_into::<PyDict>()), value.cast::<PyDict>()) {
                    // The fields that are named change, the others stay.
                    (Some(Ok(old)), Ok(new)) => old.update(new.as_mapping())?,
                    _ => args.set_item(name, value)?,
                }
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(args))
}
