//! Any table of a person as named columns and rows: CSV by any separator, JSON lines, one JSON value, columns in memory.
//!
//! CSV: the separator (`,` `;` tab `|`) is the one that stands most often in the line of names; cells may be quoted;
//! with `;` or tab a comma may be the point of a number. JSON: an object a line, a list of objects, or an object of
//! columns (lists, or objects by row as pandas writes them); parts of objects inside are columns `outer.inner`.
//!
//! Limit: one table a file, text in UTF-8, no column types but what each cell looks like.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use csv::StringRecord;
use serde_json::{Map, Value};

use super::Said;
use crate::error::{Error, Result};

/// Rows of JSON lines whose names are looked through before the first is read.
const LOOKED: usize = 2000;

/// A column in memory.
#[derive(Clone, Debug)]
pub enum Column {
    Whole(Vec<i64>),
    Numbers(Vec<f64>),
    Any(Vec<Value>),
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Column::Whole(v) => v.len(),
            Column::Numbers(v) => v.len(),
            Column::Any(v) => v.len(),
        }
    }

    fn at(&self, i: usize) -> Cow<'_, Value> {
        match self {
            Column::Whole(v) => Cow::Owned(v[i].into()),
            Column::Numbers(v) => Cow::Owned(v[i].into()),
            Column::Any(v) => Cow::Borrowed(&v[i]),
        }
    }
}

enum Rows {
    /// Text from the line of names on, the number of that line, the separator.
    Csv {
        text: String,
        first: usize,
        separator: u8,
    },
    Lines(String),
    Values(Vec<Value>),
    Columns(Vec<Column>),
}

/// Named columns and rows.
pub struct Table {
    /// Where it comes from, for errors.
    pub(super) place: String,
    pub(super) names: Vec<String>,
    rows: Rows,
    /// What was taken for granted while reading it.
    pub(super) notes: Vec<String>,
    /// Whether a comma may be the point of a number.
    pub(super) comma: bool,
}

/// One row.
pub(super) enum Row<'a> {
    Cells(&'a StringRecord),
    Object(&'a Value, &'a [String]),
    Columns(&'a [Column], usize),
}

impl Row<'_> {
    /// The cell of a column; nothing where the row has none.
    pub fn at(&self, column: usize) -> Cow<'_, Value> {
        const NULL: &Value = &Value::Null;
        match self {
            Row::Cells(cells) => match cells.get(column).map(str::trim) {
                None | Some("") => Cow::Borrowed(NULL),
                Some(text) => Cow::Owned(Value::String(text.to_string())),
            },
            Row::Object(v, names) => Cow::Borrowed(inside(v, &names[column]).unwrap_or(NULL)),
            Row::Columns(c, i) => c[column].at(*i),
        }
    }
}

fn inside<'v>(v: &'v Value, name: &str) -> Option<&'v Value> {
    v.get(name).or_else(|| {
        let (outer, inner) = name.split_once('.')?;
        inside(v.get(outer)?, inner)
    })
}

fn named(object: &Map<String, Value>, front: &str, depth: u32, into: &mut BTreeSet<String>) {
    for (key, v) in object {
        let name = format!("{front}{key}");
        match v {
            Value::Object(inner) if depth > 0 => named(inner, &format!("{name}."), depth - 1, into),
            _ => {
                into.insert(name);
            }
        }
    }
}

fn names_of<'v>(rows: impl Iterator<Item = &'v Value>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for object in rows.filter_map(Value::as_object) {
        named(object, "", 2, &mut names);
    }
    names.into_iter().collect()
}

/// The separator that stands most often outside of quotes, and how often.
fn separator(line: &str) -> (u8, usize) {
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0), (b'|', 0)];
    for b in line.bytes() {
        quoted ^= b == b'"';
        if let Some(c) = counts.iter_mut().find(|c| c.0 == b && !quoted) {
            c.1 += 1;
        }
    }
    counts.into_iter().rev().max_by_key(|c| c.1).unwrap_or((b',', 0))
}

fn csv_of(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    // A row that is too short is refused by its line, not by the reader.
    let mut how = csv::ReaderBuilder::new();
    how.flexible(true).trim(csv::Trim::All).delimiter(separator).from_reader(text.as_bytes())
}

impl Table {
    /// The table that a text is.
    pub(super) fn of(path: &Path, text: String) -> Result<Table> {
        let place = path.display().to_string();
        let fail = |line: usize, what: String| Error::data(format!("{place}:{line}"), what);
        let head = text.trim_start();
        let mut notes = Vec::new();
        if head.is_empty() {
            return Err(Error::data(place, "holds no request"));
        }
        if head.starts_with(['{', '[']) {
            if let Some(rows) = whole(&text) {
                let rows = rows.map_err(|why| Error::data(&place, why))?;
                let names = names_of(rows.iter());
                return Ok(Table { place, names, rows: Rows::Values(rows), notes, comma: false });
            }
            let first = text.lines().filter(|l| !l.trim().is_empty()).take(LOOKED);
            let looked: Vec<Value> = first.filter_map(|l| serde_json::from_str(l).ok()).collect();
            let names = names_of(looked.iter());
            return Ok(Table { place, names, rows: Rows::Lines(text), notes, comma: false });
        }
        // Remarks, empty lines and Excel's `sep=;` before the names.
        let mut at = 0;
        let mut first = 1;
        let mut said = None;
        for line in text.split_inclusive('\n') {
            let l = line.trim();
            let excel = l.trim_matches('"').strip_prefix("sep=").filter(|s| s.len() == 1);
            said = excel.map(|s| s.as_bytes()[0]).or(said);
            if !l.is_empty() && !l.starts_with('#') && excel.is_none() {
                break;
            }
            at += line.len();
            first += 1;
        }
        let text = text[at..].to_string();
        let line = text.lines().next().unwrap_or("");
        let (separator, count) = said.map_or_else(|| separator(line), |s| (s, line.matches(char::from(s)).count()));
        if separator != b',' && count > 0 {
            let name = if separator == b'\t' { "tabs".to_string() } else { format!("'{}'", char::from(separator)) };
            notes.push(format!("columns separated by {name}"));
        }
        let mut reader = csv_of(&text, separator);
        let names = reader.headers().map_err(|e| fail(first, e.to_string()))?;
        let names: Vec<String> = names.iter().map(str::to_string).collect();
        if names.iter().all(|n| n.is_empty() || n.parse::<f64>().is_ok()) {
            return Err(fail(first, "has no names of columns: put a line like 'arrival_s,isl,osl' first".into()));
        }
        let comma = matches!(separator, b';' | b'\t' | b'|');
        Ok(Table { place, names, rows: Rows::Csv { text, first, separator }, notes, comma })
    }

    /// Columns in memory, of equal length.
    pub fn columns(place: &str, columns: Vec<(String, Column)>) -> Result<Table> {
        let (names, columns): (Vec<String>, Vec<Column>) = columns.into_iter().unzip();
        let n = columns.first().map_or(0, Column::len);
        if let Some(i) = columns.iter().position(|c| c.len() != n) {
            let text = format!("column '{}' has {} rows, '{}' has {n}", names[i], columns[i].len(), names[0]);
            return Err(Error::data(place, text));
        }
        let (place, notes) = (place.to_string(), Vec::new());
        Ok(Table { place, names, rows: Rows::Columns(columns), notes, comma: false })
    }

    /// Hands every row that is not empty to `take`, with the number of its line.
    pub(super) fn each(&self, mut take: impl FnMut(usize, Said<Row<'_>>) -> Result<()>) -> Result<()> {
        match &self.rows {
            Rows::Csv { text, first, separator } => self.cells(text, *first, *separator, &mut take),
            Rows::Lines(text) => {
                for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                    match serde_json::from_str::<Value>(line) {
                        Ok(v) if v.is_object() => take(i + 1, Ok(Row::Object(&v, &self.names)))?,
                        Ok(_) => take(i + 1, Err("is no JSON object".into()))?,
                        Err(e) => take(i + 1, Err(format!("is not JSON: {e}")))?,
                    }
                }
                Ok(())
            }
            Rows::Values(rows) => {
                rows.iter().enumerate().try_for_each(|(i, v)| take(i + 1, Ok(Row::Object(v, &self.names))))
            }
            Rows::Columns(c) => {
                let n = c.first().map_or(0, Column::len);
                (0..n).try_for_each(|i| take(i + 1, Ok(Row::Columns(c, i))))
            }
        }
    }

    fn cells(
        &self,
        text: &str,
        first: usize,
        separator: u8,
        take: &mut impl FnMut(usize, Said<Row<'_>>) -> Result<()>,
    ) -> Result<()> {
        let mut line = first;
        for row in csv_of(text, separator).into_records() {
            match row {
                Ok(cells) => {
                    line = cells.position().map_or(line + 1, |p| p.line() as usize + first - 1);
                    // The reader takes a quote that stays open for text of many lines: nothing of those may be lost.
                    if cells.iter().any(|c| c.contains('\n')) {
                        let place = format!("{}:{line}", self.place);
                        return Err(Error::data(place, "a quote opens on this line and does not close on it"));
                    }
                    // Files put together repeat the names.
                    let again = cells.len() == self.names.len() && cells.iter().zip(&self.names).all(|(c, n)| c == n);
                    if !again && (cells.len() > 1 || cells.get(0).is_some_and(|c| !c.is_empty())) {
                        take(line, Ok(Row::Cells(&cells)))?;
                    }
                }
                Err(e) => take(line + 1, Err(e.to_string()))?,
            }
        }
        Ok(())
    }

    /// The rows of JSON as values: for formats that are no tables.
    pub(super) fn no_columns(&self, what: &str) -> Error {
        let some: Vec<&str> = self.names.iter().take(30).map(String::as_str).collect();
        Error::data(&self.place, format!("{what} in: {}", some.join(", ")))
    }
}

/// The rows of a text that is one JSON value: a list of objects, an object that holds one, or an object of columns.
fn whole(text: &str) -> Option<std::result::Result<Vec<Value>, String>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let v = <Value as serde::Deserialize>::deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match v {
        Value::Array(rows) if rows.iter().all(Value::is_object) => Some(Ok(rows)),
        Value::Array(_) => Some(Err("is a list of something else than objects".into())),
        Value::Object(mut o) => {
            let rows = |v: &Value| v.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(Value::is_object));
            let lists: Vec<String> = o.iter().filter(|(_, v)| rows(v)).map(|(k, _)| k.clone()).collect();
            if let [only] = &lists[..] {
                let found = o.remove(only);
                return Some(Ok(found.and_then(|v| v.as_array().cloned()).unwrap_or_default()));
            }
            columns(&o).or_else(|| Some(Ok(vec![Value::Object(o)])))
        }
        _ => None,
    }
}

/// An object of columns as rows: lists of equal length, or objects by the name of the row.
fn columns(o: &Map<String, Value>) -> Option<std::result::Result<Vec<Value>, String>> {
    let lists: Vec<(&String, Vec<&Value>)> = o
        .iter()
        .filter_map(|(k, v)| match v {
            Value::Array(a) => Some((k, a.iter().collect())),
            Value::Object(m) if m.keys().all(|k| k.parse::<u64>().is_ok()) => {
                let mut rows: Vec<(u64, &Value)> = m.iter().filter_map(|(k, v)| Some((k.parse().ok()?, v))).collect();
                rows.sort_by_key(|r| r.0);
                Some((k, rows.into_iter().map(|r| r.1).collect()))
            }
            _ => None,
        })
        .collect();
    let n = lists.iter().map(|l| l.1.len()).max()?;
    let same: Vec<&(&String, Vec<&Value>)> = lists.iter().filter(|l| l.1.len() == n).collect();
    if same.len() < 2 {
        return None;
    }
    let row = |i: usize| Value::Object(same.iter().map(|(k, v)| ((*k).clone(), v[i].clone())).collect());
    Some(Ok((0..n).map(row).collect()))
}
