//! Reading loosely typed JSON field by field: every wrong field is noted, none stops the reading.

use serde_json::{Map, Value};

use crate::error::Problems;

/// One JSON object under inspection, and what was found wrong with it so far.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Put before every field name (`text_config.` for a nested config).
    prefix: &'a str,
    pub problems: Problems,
}

/// What a value is, in words a user of JSON would use.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => format!("{b}"),
        Value::Number(n) => format!("{n}"),
        Value::String(s) => format!("the string {s:?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

impl<'a> Fields<'a> {
    pub fn new(object: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Fields { object, prefix, problems: Problems::new() }
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn wrong(&mut self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        let path = self.path(name);
        self.problems.push(path, message, hint);
    }

    /// The value of a field; `null` counts as absent, as in HF configs.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|v| !v.is_null())
    }

    /// The first of several spellings that is present.
    pub fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'a Value)> {
        names.iter().find_map(|n| self.get(n).map(|v| (*n, v)))
    }

    fn whole(&mut self, name: &str, value: &Value, low: u32, high: u32) -> Option<u32> {
        let number = match value {
            // Booleans are not numbers, and a string of digits is a slip worth naming.
            Value::Number(n) => n.as_f64(),
            _ => None,
        };
        let Some(x) = number.filter(|x| x.is_finite()) else {
            self.wrong(name, format!("must be a whole number, is {}", kind(value)), "");
            return None;
        };
        if x.fract() != 0.0 || x < f64::from(low) || x > f64::from(high) {
            self.wrong(name, format!("must be a whole number from {low} to {high}, is {}", kind(value)), "");
            return None;
        }
        Some(x as u32)
    }

    /// A required whole number under any of its spellings.
    pub fn need(&mut self, names: &[&str], high: u32) -> Option<u32> {
        match self.first(names) {
            Some((name, value)) => self.whole(name, value, 1, high),
            None => {
                let also =
                    if names.len() > 1 { format!("also read: {}", names[1..].join(", ")) } else { String::new() };
                self.wrong(names[0], "is missing", also);
                None
            }
        }
    }

    /// An optional whole number with a default.
    pub fn or(&mut self, names: &[&str], low: u32, high: u32, default: u32) -> Option<u32> {
        match self.first(names) {
            Some((name, value)) => self.whole(name, value, low, high),
            None => Some(default),
        }
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.get(name) {
            None => None,
            Some(Value::Bool(b)) => Some(*b),
            Some(other) => {
                self.wrong(name, format!("must be true or false, is {}", kind(other)), "");
                None
            }
        }
    }

    /// A list with one entry a layer.
    pub fn per_layer(&mut self, name: &str, layers: u32) -> Option<&'a Vec<Value>> {
        match self.get(name)? {
            Value::Array(list) if list.len() == layers as usize => Some(list),
            Value::Array(list) => {
                self.wrong(name, format!("has {} entries for {layers} layers", list.len()), "");
                None
            }
            other => {
                self.wrong(name, format!("must be a list, is {}", kind(other)), "");
                None
            }
        }
    }
}
