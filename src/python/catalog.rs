//! Presets, Hugging Face configs, and specs whose constructor says more than their fields.
//!
//! Limit: presets of the build; a file of one's own comes in through its constructor.

use super::give::{Facts, Rows};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value, json};

use super::class_table::wrap;
use super::convert;
use super::data::{Data, Spec};
use super::diagnose::{self, wrong_children};
use super::errors::guard;
use super::fields::text_argument;
use super::give;

use crate::error::{Error, Problems, Result, near};
use crate::spec::{self as specs, catalog, json};
use crate::units::GB;

/// Names of the model presets.
#[pyfunction]
pub fn preset_models() -> Vec<String> {
    catalog::models()
}

/// List the system presets: the machines whose kernels were measured.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> "b200_sxm" in dg.systems()
/// True
#[pyfunction]
pub fn preset_systems() -> Vec<String> {
    catalog::systems()
}

/// List the devices that are known by their data sheets alone; none of their kernels was measured.
///
/// ``Cluster("h20", gpus=8)`` takes the measured rows of the nearest relative, scaled by the ratio of the two rooflines,
/// and says so; error bars are wider by what that costs between Hopper and Blackwell. ``Device.preset("h20").source``
/// says what is from a data sheet, what was announced and what is assumed.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> dg.Cluster("h20", gpus=8).system
/// 'h200_sxm'
/// >>> "rubin" in dg.devices()
/// True
#[pyfunction]
pub fn preset_devices() -> Vec<String> {
    catalog::devices()
}

/// List the workload presets.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> "paper-chat" in dg.workloads()
/// True
#[pyfunction]
pub fn preset_workloads() -> Vec<String> {
    catalog::workloads()
}

/// Give a preset: the paper's cases and measured ones, with their sources.
///
/// Raises
/// ------
/// SpecError
///     If there is no such preset; near names are listed.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> dg.Workload.preset("paper-chat").osl
/// Distribution.fixed(value=256.0)
#[pyfunction]
#[pyo3(signature = (name) -> "specs.Workload")]
pub fn preset_workload<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    wrap(py, guard(|| catalog::workload(name).map(Data::Workload))?)
}

/// Give the device of a system preset, or one known by its data sheet, with its sources.
///
/// Raises
/// ------
/// SpecError
///     If there is no such system; near names are listed.
#[pyfunction]
#[pyo3(signature = (system) -> "specs.Device")]
pub fn preset_device<'py>(py: Python<'py>, system: &str) -> PyResult<Bound<'py, PyAny>> {
    wrap(py, guard(|| Ok(Data::Device(catalog::system(system)?.0)))?)
}

/// Give the fabric of a system preset, with its sources.
///
/// Raises
/// ------
/// SpecError
///     If there is no such system; near names are listed.
#[pyfunction]
#[pyo3(signature = (system) -> "specs.Fabric")]
pub fn preset_fabric<'py>(py: Python<'py>, system: &str) -> PyResult<Bound<'py, PyAny>> {
    wrap(py, guard(|| Ok(Data::Fabric(catalog::system(system)?.1)))?)
}

/// Sizes of a model in the formats of `quant` (none: the checkpoint's).
#[pyfunction]
pub fn model_facts<'py>(py: Python<'py>, model: &Spec, quant: Option<&Spec>) -> PyResult<Facts<'py>> {
    let facts = guard(|| {
        let (Data::Model(model), wanted) = (model.data(), quant.map(|q| q.data())) else {
            return Err(Error::spec("model", "is not a Model", ""));
        };
        let wanted = match wanted {
            None => specs::Quant::default(),
            Some(Data::Quant(quant)) => *quant,
            Some(_) => return Err(Error::spec("quant", "is not a Quant", "")),
        };
        let quant = wanted.resolve(&model.quant);
        let kv = model.formats(&quant).kv;
        Ok(json!({
            "kv_bytes_per_token": model.kv_bytes_per_token(kv),
            "state_bytes_per_sequence": model.state_bytes_per_sequence(),
            "weight_bytes": model.weight_bytes(&quant),
            "parameters": model.parameters(),
            "active_parameters": model.active_parameters(),
            "mixers": model.mixes(),
        }))
    })?;
    give::facts(py, &facts)
}

/// A cluster from what its constructor takes: `system gpus nic_gb_per_s oversubscription device fabric`.
pub fn cluster(fields: &Bound<'_, PyDict>) -> PyResult<Spec> {
    let mut problems = Problems::new();
    let given = object("Cluster", fields, &mut problems);
    guard(|| build_cluster(&given, problems).map(Spec::new))
}

/// A fabric of the user's own: what is not said is as in the preset; bandwidths in bytes/s or GB/s.
fn on_preset(own: Value, preset: Value, system: &str, problems: &mut Problems) -> Value {
    let (Value::Object(own), Value::Object(mut whole)) = (own.clone(), preset) else { return own };
    let fields: Vec<String> = whole.keys().cloned().chain(["nvlink_gb_per_s".into(), "nic_gb_per_s".into()]).collect();
    whole.insert("source".into(), format!("user, on the fabric of {system}").into());
    for (name, value) in own {
        let path = format!("fabric.{name}");
        match (name.as_str(), value.as_f64()) {
            ("nvlink_gb_per_s", Some(gb)) => whole.insert("nvlink_bytes_per_s".into(), (gb * GB).into()),
            ("nic_gb_per_s", Some(gb)) => whole.insert("nic_bytes_per_s".into(), (gb * GB).into()),
            ("nvlink_gb_per_s" | "nic_gb_per_s", None) => {
                problems.push(path, "is not a bandwidth", "a number above 0, GB/s per GPU and direction");
                None
            }
            _ if fields.contains(&name) => whole.insert(name, value),
            _ => {
                problems.push(path, "is not a field of Fabric", near(&name, fields.iter().map(String::as_str)));
                None
            }
        };
    }
    Value::Object(whole)
}

fn build_cluster(given: &Map<String, Value>, mut problems: Problems) -> Result<Data> {
    let field = |name: &str| given.get(name).filter(|v| !v.is_null()).cloned();
    let mut whole = Map::new();
    whole.insert("gpus".into(), given.get("gpus").cloned().unwrap_or_default());
    let mut wanted = "b200_sxm".to_string();
    match field("system") {
        Some(Value::String(name)) => match catalog::system_name(&name) {
            Ok(_) => wanted = name,
            Err(Error::Spec(found)) => problems.0.extend(found.0),
            Err(other) => return Err(other),
        },
        _ => problems.push("system", "is not the name of a system", near("", catalog::systems())),
    }
    // Of a device known by its data sheet: the system whose tables stand for it.
    let system = catalog::system_name(&wanted)?;
    let (device, fabric) = catalog::system(&wanted)?;
    let own_fabric = field("fabric").is_some();
    whole.insert("system".into(), system.clone().into());
    whole.insert("device".into(), field("device").unwrap_or(Data::Device(device).to_value()));
    let preset = Data::Fabric(fabric).to_value();
    let mut fabric = match field("fabric") {
        Some(own) => on_preset(own, preset, &system, &mut problems),
        None => preset,
    };
    if let Some(fabric) = fabric.as_object_mut() {
        match field("nic_gb_per_s").map(|v| v.as_f64()) {
            Some(Some(gb)) if gb > 0.0 => {
                fabric.insert("nic_bytes_per_s".into(), (gb * GB).into());
            }
            Some(_) => problems.push("nic_gb_per_s", "is not a bandwidth", "a number above 0, GB/s per GPU"),
            None => {}
        }
        match field("oversubscription").map(|v| v.as_f64()) {
            // A fabric of the user's own keeps its own figure unless another than the default is given.
            Some(Some(by)) if !(own_fabric && by == 1.0) => {
                fabric.insert("oversubscription".into(), by.into());
            }
            Some(None) => problems.push("oversubscription", "is not a number", "1 is a non-blocking fabric"),
            _ => {}
        }
    }
    whole.insert("fabric".into(), fabric);
    finish("Cluster", whole, problems, |path| match path {
        "fabric.nic_bytes_per_s" if field("nic_gb_per_s").is_some() => "nic_gb_per_s".to_string(),
        "fabric.oversubscription" if !own_fabric => "oversubscription".to_string(),
        _ => path.to_string(),
    })
}

/// A workload from what its constructor takes: lengths as numbers or distributions, or joint samples.
pub fn workload(fields: &Bound<'_, PyDict>) -> PyResult<Spec> {
    let mut problems = Problems::new();
    let given = object("Workload", fields, &mut problems);
    guard(|| build_workload(given, problems).map(Spec::new))
}

fn build_workload(mut given: Map<String, Value>, mut problems: Problems) -> Result<Data> {
    let joint = given.get("lengths").is_some_and(|v| !v.is_null());
    if joint {
        for (i, name) in ["prefix", "isl", "osl"].iter().enumerate() {
            if given.get(*name).is_some_and(|v| !v.is_null()) {
                problems.push(*name, "stands beside lengths, which say it all", "leave one of the two out");
            }
            let column = |sample: &Value| sample.get(i).and_then(Value::as_f64);
            let values: Vec<f64> =
                given.get("lengths").and_then(Value::as_array).into_iter().flatten().filter_map(column).collect();
            let mean = if values.is_empty() { 1.0 } else { values.iter().sum::<f64>() / values.len() as f64 };
            given.insert((*name).into(), mean.into());
        }
        if given.get("lengths").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            problems.push("lengths", "is empty", "give (prefix, isl, osl) of at least one request");
        }
    } else {
        given.remove("lengths");
    }
    for name in ["prefix", "isl", "osl"] {
        match given.get(name) {
            Some(Value::Number(n)) => {
                let fixed = json!({"kind": "fixed", "value": n.as_f64()});
                given.insert(name.into(), fixed);
            }
            None | Some(Value::Null) if name == "prefix" => {
                given.insert(name.into(), json!({"kind": "fixed", "value": 0.0}));
            }
            None | Some(Value::Null) => {
                if !problems.0.iter().any(|p| p.path == name) {
                    problems.push(name, "is required", "tokens, a number or a Distribution");
                }
                given.insert(name.into(), json!({"kind": "fixed", "value": 1.0}));
            }
            Some(Value::Object(_)) => {}
            Some(_) => {
                problems.push(name, "is neither a number of tokens nor a Distribution", "");
                given.insert(name.into(), json!({"kind": "fixed", "value": 1.0}));
            }
        }
    }
    finish("Workload", given, problems, |path| path.trim_end_matches(".value").to_string())
}

/// Facts of a workload: means, and the stationary KV load of a decode slot.
#[pyfunction]
pub fn workload_facts<'py>(py: Python<'py>, workload: &Spec) -> PyResult<Facts<'py>> {
    let facts = guard(|| match workload.data() {
        Data::Workload(w) => Ok(json!({"mean": w.means(), "theta": w.theta(), "theta_std": w.slot_load_std()})),
        _ => Err(Error::spec("workload", "is not a Workload", "")),
    })?;
    give::facts(py, &facts)
}

/// The value below which a share `q` of a distribution lies, and its mean.
#[pyfunction]
pub fn distribution_facts(distribution: &Spec, q: f64) -> PyResult<(f64, f64)> {
    guard(|| match distribution.data() {
        Data::Distribution(_) if !(0.0..=1.0).contains(&q) => {
            Err(Error::spec("q", format!("{q} is not a share"), "from 0 to 1"))
        }
        Data::Distribution(d) => Ok((d.mean(), d.quantile(q))),
        _ => Err(Error::spec("distribution", "is not a Distribution", "")),
    })
}

/// The assumptions of a named profile, with some switches changed.
pub fn assumptions(fields: &Bound<'_, PyDict>) -> PyResult<Spec> {
    let mut problems = Problems::new();
    let mut switches = object("Assumptions", fields, &mut problems);
    guard(|| {
        let profile = text_argument(fields, "profile")?;
        switches.remove("profile");
        let made = specs::Assumptions::profile(&profile)?.with(&switches);
        if let Err(Error::Spec(found)) = &made {
            problems.0.extend(found.0.iter().cloned());
        }
        for p in &mut problems.0 {
            p.path = p.path.trim_start_matches("assumptions.").to_string();
        }
        problems.into_result()?;
        made.map(|made| Spec::new(Data::Assumptions(made)))
    })
}

/// Every switch of a set of assumptions: name, value, allowed values, meaning, source.
#[pyfunction]
pub fn switches<'py>(py: Python<'py>, assumptions: &Spec) -> PyResult<Rows<'py>> {
    let rows = guard(|| match assumptions.data() {
        Data::Assumptions(a) => json::to_value(&a.switches(), "assumptions"),
        _ => Err(Error::spec("assumptions", "is not a set of assumptions", "")),
    })?;
    give::rows(py, &rows)
}

/// Level and GPUs of a plan.
#[pyfunction]
pub fn plan_facts(plan: &Spec) -> PyResult<(&'static str, u32)> {
    guard(|| {
        let plan = plan.data().plan().ok_or_else(|| not_a_plan(plan))?;
        Ok((plan.level().name(), plan.gpus()))
    })
}

pub(super) fn not_a_plan(found: &Spec) -> Error {
    let hint = "expected Aggregated, PD or AFD";
    Error::spec("plan", format!("a {} is not a plan", found.data().kind()), hint)
}

/// The fields as JSON; a spec of a class that does not belong in its field is a problem, and left out.
fn object(kind: &str, fields: &Bound<'_, PyDict>, problems: &mut Problems) -> Map<String, Value> {
    let Value::Object(mut map) = convert::to_json(fields.as_any(), "", problems) else {
        return Map::new();
    };
    let before = problems.0.len();
    wrong_children(kind, fields, problems);
    for p in &problems.0[before..] {
        map.insert(p.path.clone(), Value::Null);
    }
    map
}

/// Parses the whole, adds what was wrong before, and says all of it in the user's own paths.
fn finish(
    kind: &str,
    whole: Map<String, Value>,
    mut problems: Problems,
    path: impl Fn(&str) -> String,
) -> Result<Data> {
    let top = |path: &str| path.split('.').next().unwrap_or_default().to_string();
    match diagnose::parse(kind, &Value::Object(whole)) {
        Ok(data) => problems.into_result().map(|()| data),
        Err(Error::Spec(found)) => {
            let named: Vec<String> = problems.0.iter().map(|p| top(&p.path)).collect();
            for mut p in found.0 {
                p.path = path(&p.path);
                if !named.contains(&top(&p.path)) {
                    problems.0.push(p);
                }
            }
            Err(Error::Spec(problems))
        }
        Err(other) => Err(other),
    }
}
