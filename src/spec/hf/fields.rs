//! Reading loosely typed JSON field by field: every wrong field is noted, none stops the reading, and what was looked at
//! is remembered, so that what was not can be named.
//!
//! Limit: remembers names that were looked at, not what was made of them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::class::Class;
use crate::error::Problems;

/// One JSON object under inspection, and what was found wrong with it so far.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Put before every field name (`text_config.` for a nested config).
    prefix: &'a str,
    pub class: &'a Class,
    read: RefCell<BTreeSet<&'a str>>,
    pub problems: Problems,
}

/// What every config of its own says: the class's defaults stand in for them in nested configs only, which leave out
/// what equals a default.
const SIZES: &[&str] = &["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"];

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

/// A value that switches nothing on: null, false, zero, an empty list or object, all zeros.
pub(crate) fn off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Array(list) => list.iter().all(off),
        Value::Object(map) => map.is_empty() || map.get("use_sparse_attention") == Some(&Value::Bool(false)),
        Value::String(s) => s.is_empty(),
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>, prefix: &'a str, class: &'a Class) -> Self {
        Fields { object, prefix, class, read: RefCell::default(), problems: Problems::new() }
    }

    /// The field as the config spells it.
    pub(crate) fn path(&self, name: &str) -> String {
        let own = self.class.spellings(name).find(|s| self.at(s).is_some()).unwrap_or(name);
        format!("{}{own}", self.prefix)
    }

    pub(crate) fn wrong(&mut self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        let path = self.path(name);
        self.problems.push(path, message, hint);
    }

    /// A value by its spelling; a dot goes into an object.
    fn at(&self, spelling: &str) -> Option<&'a Value> {
        match spelling.split_once('.') {
            None => self.object.get(spelling),
            Some((outer, inner)) => self.object.get(outer)?.get(inner),
        }
    }

    /// What the config itself says, `null` included, under any spelling of the class.
    fn given(&self, name: &str) -> Option<&'a Value> {
        let mut found = None;
        for spelling in self.class.spellings(name) {
            let outer = spelling.split_once('.').map_or(spelling, |(outer, _)| outer);
            if let Some((key, _)) = self.object.get_key_value(outer) {
                self.read.borrow_mut().insert(key);
            }
            let Some(value) = self.at(spelling) else { continue };
            // Two spellings of one field: the one that says something.
            if found.is_none_or(Value::is_null) {
                found = Some(value);
            }
        }
        found
    }

    /// The value of a field, else the class's; `null` counts as absent, as in HF configs, and takes no default.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.first(&[name]).map(|(_, value)| value)
    }

    /// Whether the config itself says so, with a value.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.given(name).is_some_and(|v| !v.is_null())
    }

    /// The first of several names that is present, else the first for which the class has a default.
    pub(crate) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'a Value)> {
        let given: Vec<_> = names.iter().filter_map(|n| self.given(n).map(|v| (*n, v))).collect();
        if !given.is_empty() {
            return given.into_iter().find(|(_, v)| !v.is_null());
        }
        let whole = self.prefix.is_empty();
        let known = names.iter().filter(|n| !(whole && SIZES.contains(n)));
        known.filter_map(|n| self.class.usual(n).map(|v| (*n, v))).next()
    }

    /// Notes that a field was looked at.
    pub(crate) fn seen(&self, name: &str) {
        self.given(name);
    }

    /// What the config says and nobody looked at.
    pub(crate) fn unread(&self) -> Vec<(&'a str, &'a Value)> {
        let read = self.read.borrow();
        self.object.iter().filter(|(k, _)| !read.contains(k.as_str())).map(|(k, v)| (k.as_str(), v)).collect()
    }

    fn whole(&mut self, name: &str, value: &'a Value, low: u32, high: u32) -> Option<u32> {
        let number = match value {
            // Booleans are not numbers, and a string of digits is a slip worth naming.
            Value::Number(n) => n.as_f64(),
            // One number a layer.
            Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_number) => {
                if list.iter().any(|v| *v != list[0]) {
                    self.wrong(name, "differs from layer to layer: not supported", "");
                    return None;
                }
                list[0].as_f64()
            }
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

    /// A required whole number under any of its names.
    pub(crate) fn need(&mut self, names: &[&str], high: u32) -> Option<u32> {
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
    pub(crate) fn or(&mut self, names: &[&str], low: u32, high: u32, default: u32) -> Option<u32> {
        match self.first(names) {
            Some((name, value)) => self.whole(name, value, low, high),
            None => Some(default),
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.get(name) {
            None => None,
            Some(Value::Bool(b)) => Some(*b),
            Some(other) => {
                self.wrong(name, format!("must be true or false, is {}", kind(other)), "");
                None
            }
        }
    }

    /// A list with one entry a layer; `more`: entries for layers of MTP that may stand behind them.
    pub(crate) fn per_layer(&mut self, name: &str, layers: u32, more: u32) -> Option<&'a [Value]> {
        match self.get(name)? {
            Value::Array(list) if list.len() == layers as usize || list.len() == (layers + more) as usize => {
                Some(&list[..layers as usize])
            }
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

    /// Numbers of layers: a list, or a text with commas (`"3,4,5"`). None: not given, or a problem was noted.
    pub(crate) fn layer_numbers(&mut self, name: &str, layers: u32) -> Option<Vec<u32>> {
        let value = self.get(name)?;
        let numbers: Option<Vec<u32>> = match value {
            Value::String(text) if text.trim().is_empty() => Some(Vec::new()),
            Value::String(text) => text.split(',').map(|n| n.trim().parse().ok()).collect(),
            Value::Array(list) => list.iter().map(|v| v.as_u64().and_then(|n| u32::try_from(n).ok())).collect(),
            _ => None,
        };
        match numbers {
            Some(numbers) if numbers.iter().all(|n| *n < layers) => Some(numbers),
            Some(_) => {
                self.wrong(name, format!("names layers beyond the {layers} there are"), "");
                None
            }
            None => {
                self.wrong(name, format!("must be numbers of layers, is {}", kind(value)), "");
                None
            }
        }
    }
}
