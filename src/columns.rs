//! The one bulk result type: named columns of equal length, moved to numpy without a copy.
//!
//! Limit: one axis, four kinds of column, no missing numbers: not-a-number stands for "none" in a column of floats.

use std::collections::BTreeMap;

/// One column. Strings that repeat are codes into labels; a code of -1 is "none".
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    F64(Vec<f64>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Cat { codes: Vec<i32>, labels: Vec<String> },
}

impl Column {
    pub(crate) fn len(&self) -> usize {
        match self {
            Column::F64(v) => v.len(),
            Column::I64(v) => v.len(),
            Column::Bool(v) => v.len(),
            Column::Cat { codes, .. } => codes.len(),
        }
    }

    /// Codes of strings in order of first appearance.
    pub(crate) fn from_strings<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Column {
        let mut labels: Vec<String> = Vec::new();
        let mut index: BTreeMap<String, i32> = BTreeMap::new();
        let mut codes = Vec::new();
        for v in values {
            let s = v.as_ref();
            let code = match index.get(s) {
                Some(&c) => c,
                None => {
                    let c = labels.len() as i32;
                    labels.push(s.to_string());
                    index.insert(s.to_string(), c);
                    c
                }
            };
            codes.push(code);
        }
        Column::Cat { codes, labels }
    }
}

/// Columns in order, with attributes (spec, seed, version ...) as JSON strings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    pub names: Vec<String>,
    pub columns: Vec<Column>,
    pub attrs: BTreeMap<String, String>,
}

impl Columns {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a column; all columns must have the same length.
    pub(crate) fn push(&mut self, name: impl Into<String>, column: Column) {
        debug_assert!(self.columns.first().is_none_or(|c| c.len() == column.len()));
        self.names.push(name.into());
        self.columns.push(column);
    }

    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    pub fn get(&self, name: &str) -> Option<&Column> {
        self.names.iter().position(|n| n == name).map(|i| &self.columns[i])
    }
}
