//! JSON in and out, with errors that name the field, and floats kept to the last bit.
//!
//! Limit: one error a text, the first that serde meets; 128 levels deep.

use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;

use crate::error::{Error, Problems, Result, near};

/// Stands between an inner path and its message while an error climbs through serde, which can
/// carry text only. No JSON text reaches a message unescaped with this character.
const MARK: char = '\u{1f}';

/// Parses a spec; `root` is what the user calls it (`plan`).
pub(crate) fn parse<T: DeserializeOwned>(text: &str, root: &str) -> Result<T> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| Error::spec(root, format!("is not valid JSON: {e}"), "NaN and Infinity are not JSON"))?;
    from_value(value, root)
}

/// Reads a spec from parsed JSON.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value, root: &str) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let (path, message) = locate(&e);
        let path = join(root, &path);
        let (path, message, hint) = explain(path, &message);
        Error::spec(path, message, hint)
    })
}

/// Writes a spec; reading the text back gives the same bits.
pub(crate) fn to_json<T: Serialize>(spec: &T, root: &str) -> Result<String> {
    serde_json::to_string(spec).map_err(|e| Error::spec(root, format!("cannot be written as JSON: {e}"), ""))
}

/// As `to_json`, but a finite number in every field is the caller's promise to keep: JSON has no
/// NaN, and serde_json would write `null`.
pub(crate) fn to_value<T: Serialize>(spec: &T, root: &str) -> Result<Value> {
    serde_json::to_value(spec).map_err(|e| Error::spec(root, format!("cannot be written as JSON: {e}"), ""))
}

fn join(root: &str, path: &str) -> String {
    match (root, path) {
        ("", p) => p.to_string(),
        (r, "" | ".") => r.to_string(),
        (r, p) if p.starts_with('[') => format!("{r}{p}"),
        (r, p) => format!("{r}.{p}"),
    }
}

/// Path and message of an error, with the path of a tagged enum's inside joined on.
pub(crate) fn locate(error: &serde_path_to_error::Error<serde_json::Error>) -> (String, String) {
    let outer = error.path().to_string();
    let message = error.inner().to_string();
    match message.split_once(MARK) {
        Some((inner, rest)) => (join(if outer == "." { "" } else { &outer }, inner), rest.to_string()),
        None => (if outer == "." { String::new() } else { outer }, message),
    }
}

/// Turns serde's words into ours.
fn explain(path: String, message: &str) -> (String, String, String) {
    let quoted = |s: &str| s.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let names = quoted(message);
    if message.starts_with("unknown field") && !names.is_empty() {
        let hint = if names.len() > 1 { near(&names[0], &names[1..]) } else { String::new() };
        // serde's path already ends with the unknown field where it can tell.
        let path = if path.ends_with(&names[0]) { path } else { format!("{path}.{}", names[0]) };
        return (path, "unknown field".into(), hint);
    }
    if message.starts_with("unknown variant") && !names.is_empty() {
        let hint = if names.len() > 1 { near(&names[0], &names[1..]) } else { String::new() };
        return (path, format!("unknown value '{}'", names[0]), hint);
    }
    if message.starts_with("missing field") && !names.is_empty() {
        return (format!("{path}.{}", names[0]), "is missing".into(), String::new());
    }
    let plain = message
        .replace("expected u32", "expected a whole number")
        .replace("expected usize", "expected a whole number")
        .replace("expected f64", "expected a number")
        .replace("invalid type: ", "wrong type: ")
        .replace("invalid value: ", "wrong value: ");
    (path, plain, String::new())
}

/// The inside of a `{"kind": ..., ...}` object, so that errors in it keep their path: serde's own
/// internally tagged enums lose it. `known` lists the kinds.
pub(crate) fn tagged<'de, D: Deserializer<'de>>(
    deserializer: D,
    known: &[&str],
) -> std::result::Result<(String, Value), D::Error> {
    use serde::Deserialize;
    let value = Value::deserialize(deserializer)?;
    let Value::Object(mut map) = value else {
        return Err(D::Error::custom(format!(
            "wrong type: expected an object with a `kind`, one of {}",
            known.join(", ")
        )));
    };
    match map.remove("kind") {
        Some(Value::String(kind)) if known.contains(&kind.as_str()) => Ok((kind, Value::Object(map))),
        Some(Value::String(kind)) => Err(nested("kind", &format!("unknown value '{kind}'; {}", near(&kind, known)))),
        Some(_) => Err(nested("kind", &format!("must be one of {}", known.join(", ")))),
        None => Err(nested("kind", &format!("is missing; one of {}", known.join(", ")))),
    }
}

/// Reads the inside of a tagged object.
pub(crate) fn inside<T: DeserializeOwned, E: serde::de::Error>(value: Value) -> std::result::Result<T, E> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let (path, message) = locate(&e);
        nested(&path, &message)
    })
}

pub(crate) fn nested<E: serde::de::Error>(path: &str, message: &str) -> E {
    E::custom(format!("{path}{MARK}{message}"))
}

/// Gives specs `from_json`, `from_value` and `to_json`; stands beside the struct, with what the user calls it.
macro_rules! json_methods {
    ($($spec:ty => $root:literal),+ $(,)?) => { $(
        impl $spec {
            /// Reads the spec from JSON; an error names the field. Run `check` on the result.
            pub fn from_json(text: &str) -> crate::error::Result<Self> {
                crate::spec::json::parse(text, $root)
            }

            /// Reads the spec from parsed JSON.
            pub fn from_value(value: serde_json::Value) -> crate::error::Result<Self> {
                crate::spec::json::from_value(value, $root)
            }

            /// Writes the spec as JSON; reading it back gives the same bits.
            pub fn to_json(&self) -> crate::error::Result<String> {
                crate::spec::json::to_json(self, $root)
            }
        }
    )+ };
}

pub(crate) use json_methods;

/// Takes all problems or the value.
pub(crate) fn checked<T>(spec: T, problems: Problems) -> Result<T> {
    problems.into_result().map(|()| spec)
}
