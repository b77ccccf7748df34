//! Reads specs, and says what is wrong with their fields: all of it, in the words of somebody who writes Python.
//!
//! Limit: one field at a time, so that values that clash with one another are only named once each is sound.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value, json};

use super::data::{Data, Spec};
use crate::error::{Error, Problems, Result, near};
use crate::spec::{self, catalog};

/// Reads a spec, or says everything that is wrong with it.
pub fn parse(kind: &str, value: &Value) -> Result<Data> {
    if !Data::KINDS.contains(&kind) {
        return Err(Error::spec("kind", format!("'{kind}' is not a spec"), near(kind, Data::KINDS)));
    }
    let value = untagged(kind, value)?;
    match Data::read(kind, &value) {
        Ok(data) => {
            data.check().into_result()?;
            Ok(data)
        }
        Err(first) => {
            let mut problems = Problems::new();
            diagnose(kind, &value, &mut problems);
            if problems.is_empty() {
                reword(first, &mut problems);
            }
            Err(Error::Spec(problems))
        }
    }
}

/// The value without its `kind` tag; a tag of another kind is refused.
fn untagged(kind: &str, value: &Value) -> Result<Value> {
    let tag = Data::tag(kind);
    let Some(map) = value.as_object() else {
        return Err(Error::spec("", format!("cannot make a {kind} of {}", short(value)), "give its fields"));
    };
    match map.get("kind") {
        Some(found) if !tag.is_empty() => {
            if found.as_str() != Some(tag) {
                let message = format!("{} is not a {kind}", short(found));
                return Err(Error::spec("kind", message, format!("expected '{tag}'")));
            }
            let mut map = map.clone();
            map.remove("kind");
            Ok(Value::Object(map))
        }
        _ => Ok(value.clone()),
    }
}

/// Goes through the fields one by one, so that every wrong one is named.
fn diagnose(kind: &str, value: &Value, problems: &mut Problems) {
    let (Some(given), Some(example)) = (value.as_object(), example(kind)) else {
        return;
    };
    for (field, item) in given {
        if !example.contains_key(field) {
            problems.push(field, format!("is not a field of {kind}"), near(field, example.keys()));
            continue;
        }
        let kinds = Data::kinds_in(kind, field);
        if let (false, Value::Object(map)) = (kinds.is_empty(), item) {
            let tag = map.get("kind").and_then(Value::as_str).unwrap_or("");
            let child = kinds.iter().find(|k| Data::tag(k) == tag).unwrap_or(&kinds[0]);
            if let Err(Error::Spec(inner)) = parse(child, item) {
                problems.nest(field, inner);
            }
            continue;
        }
        let mut probe = example.clone();
        probe.insert(field.clone(), item.clone());
        if let Err(error) = Data::read(kind, &Value::Object(probe)) {
            reword(error, problems);
        }
    }
    for field in example.keys().filter(|f| !given.contains_key(*f)) {
        let mut probe = example.clone();
        probe.remove(field);
        if Data::read(kind, &Value::Object(probe)).is_err() {
            problems.push(field, "is required", "");
        }
    }
}

/// A sound spec of the kind, as JSON: its keys are the fields. A distribution has none: its fields are those of its kind.
fn example(kind: &str) -> Option<Map<String, Value>> {
    let (model, system) = (catalog::models(), catalog::systems());
    let pool = json!({"gpus": 1});
    let data = match kind {
        "Model" => Data::Model(catalog::model(model.first()?).ok()?),
        "Device" => Data::Device(catalog::system(system.first()?).ok()?.0),
        "Fabric" => Data::Fabric(catalog::system(system.first()?).ok()?.1),
        "Cluster" => Data::Cluster(catalog::cluster(system.first()?, 1).ok()?),
        "Workload" => Data::Workload(spec::Workload::fixed("", 0.0, 1.0, 1.0)),
        "Workers" => Data::Workers(spec::Workers::default()),
        "Aggregated" => Data::Aggregated(spec::Aggregated::default()),
        "Pool" => Data::read(kind, &pool).ok()?,
        "AFD" => Data::read(kind, &json!({"attention": pool, "ffn": pool})).ok()?,
        "PD" => {
            let slot = Data::Workers(spec::Workers::default()).to_value();
            Data::read(kind, &json!({"prefill": slot, "decode": slot})).ok()?
        }
        // Every field has a default.
        _ => Data::read(kind, &json!({})).ok()?,
    };
    match data.plain() {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}

/// The reader's words in those of somebody who writes Python.
fn reword(error: Error, problems: &mut Problems) {
    let Error::Spec(found) = error else {
        return;
    };
    for p in found.0 {
        let path = p.path.trim_start_matches('.').to_string();
        let split = ["wrong type: ", "wrong value: "].iter().find_map(|start| p.message.strip_prefix(start));
        match split.and_then(|m| m.split_once(", expected ")) {
            Some((found, wanted)) => {
                problems.push(path, format!("{} does not fit", said(found)), format!("expected {}", wish(wanted)));
            }
            None => problems.push(path, p.message, p.hint),
        }
    }
}

fn said(found: &str) -> String {
    match found {
        "null" => "None".to_string(),
        "map" => "a dict".to_string(),
        "sequence" => "a list".to_string(),
        _ => found
            .replace("floating point", "the number")
            .replace("integer", "the number")
            .replace("string", "the text")
            .replace("boolean", "the truth value")
            .replace('`', "")
            .replace("true", "True")
            .replace("false", "False"),
    }
}

fn wish(wanted: &str) -> String {
    match wanted {
        "a whole number" => "a whole number, 0 or more".to_string(),
        "a boolean" => "True or False".to_string(),
        "a sequence" => "a list".to_string(),
        _ => wanted
            .strip_prefix("struct ")
            .map_or_else(|| wanted.to_string(), |name| format!("a {}", name.trim_end_matches("Plan"))),
    }
}

fn short(value: &Value) -> String {
    let mut text = match value {
        Value::Null => "None".to_string(),
        Value::String(s) => format!("'{s}'"),
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "a dict".to_string(),
        other => other.to_string(),
    };
    if text.chars().count() > 60 {
        text = text.chars().take(57).collect::<String>() + "...";
    }
    text
}

/// A spec of the wrong class in a field, said in the names of the classes.
pub fn wrong_children(kind: &str, fields: &Bound<'_, PyDict>, problems: &mut Problems) {
    for (name, value) in fields {
        let (Ok(name), Ok(spec)) = (name.extract::<String>(), value.cast::<Spec>()) else {
            continue;
        };
        let kinds = Data::kinds_in(kind, &name);
        let found = spec.get().data().kind();
        if !kinds.contains(&found) {
            let hint = if kinds.is_empty() { String::new() } else { format!("expected a {}", kinds.join(" or a ")) };
            problems.push(name, format!("a {found} does not fit here"), hint);
        }
    }
}
