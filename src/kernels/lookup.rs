//! The string-keyed lookup: one measured time, asked for by the names of a table's own columns.
//!
//! A grid point is answered verbatim, others as `kernels::off_grid` says. Keys may be left out where the rest says which row is meant;
//! `kernel_source` is chosen by the lane defaults (`kernels::lanes`). Anything that stays ambiguous
//! or unknown is an error that says what to give. For a few look-ups and for tests of the data;
//! a search compiles `Surface`s instead.
//!
//! Limit: times only as tables have them: no load, no overlap, no launch mode but that of the rows.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::db::KernelDb;
use super::evidence::Evidence;
use super::import::{canonical, ignored};
use super::lanes::{default_sources, is_axis, is_dependent, is_nongated, own_operator};
use super::off_grid::{Cache, TableLane};
use super::table::{Table, TableKey, Value};
use crate::error::{Error, Result, near};
use crate::units::MS;

/// What to look up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub system: String,
    pub framework: String,
    /// Parquet file stem; `_perf` may stand behind it.
    pub table: String,
    /// A version, or the name of an import; none: the default one.
    pub version: Option<String>,
    /// A measured column, or several joined by `+`; none: `latency`.
    pub measure: Option<String>,
    /// Key columns, one value each or one per answer.
    pub keys: Vec<(String, Vec<Value>)>,
}

/// A time with how well it is known and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    pub ms: f64,
    pub evidence: Evidence,
    /// Import (if any), framework, version, table and kernel source.
    pub source: String,
}

/// Looks up one time.
pub fn lookup(db: &KernelDb, query: &Query) -> Result<Latency> {
    let mut all = lookup_all(db, query)?;
    match all.len() {
        1 => Ok(all.remove(0)),
        n => Err(Error::spec("keys", format!("one answer was asked for, the keys give {n}"), "")),
    }
}

/// Looks up as many times as the longest key has values; keys with one value hold for all.
pub fn lookup_all(db: &KernelDb, query: &Query) -> Result<Vec<Latency>> {
    let table = db.table(&query.system, &query.framework, &query.table, query.version.as_deref())?;
    let measures = measures(&table, query.measure.as_deref())?;
    // A key without values makes an empty answer, as numpy would broadcast it.
    let count = query.keys.iter().map(|(_, v)| v.len()).find(|&n| n != 1).unwrap_or(1);
    for (name, values) in &query.keys {
        if values.len() != count && values.len() != 1 {
            return Err(Error::spec(name, format!("{} values where another key has {count}", values.len()), ""));
        }
    }
    let mut columns = Vec::new();
    for (name, values) in &query.keys {
        if let Some(k) = column(&table, name)? {
            columns.push((k, values));
        }
    }
    let asked = Asked {
        db,
        table: &table,
        measures,
        // Operators price `latency` of the default version; anything else stays within its rows.
        priced: query.measure.as_deref().is_none_or(|m| m.trim() == "latency"),
        versioned: query.version.is_some(),
        occurring: vec![OnceCell::new(); table.keys.len()],
    };
    let mut cache = Cache::new();
    (0..count)
        .map(|i| {
            let mut given = BTreeMap::new();
            for (k, values) in &columns {
                let value = &values[if values.len() == 1 { 0 } else { i }];
                given.insert(*k, coordinate(&table.keys[*k], value)?);
            }
            asked.one(&given, &mut cache)
        })
        .collect()
}

/// The measured columns to add up, each with its milliseconds per unit.
fn measures<'t>(table: &'t Table, measure: Option<&str>) -> Result<Vec<(&'t [f32], f64)>> {
    let times: Vec<&str> =
        table.measures.iter().map(|(n, _)| n.as_str()).filter(|n| table.unit(n).seconds().is_some()).collect();
    let Some(named) = measure else {
        return match (table.measure("latency"), table.unit("latency").seconds()) {
            (Some(values), Some(unit)) => Ok(vec![(values, unit / MS)]),
            _ => Err(Error::spec(
                "measure",
                format!("table '{}' has no 'latency'", table.name),
                format!("give measure= one of {}, or a sum as 'a+b'", times.join(", ")),
            )),
        };
    };
    named
        .split('+')
        .map(|part| {
            let part = part.trim();
            match (table.measure(part), table.unit(part).seconds()) {
                (Some(values), Some(unit)) => Ok((values, unit / MS)),
                (Some(_), None) => Err(Error::spec("measure", format!("'{part}' is not a time"), near(part, &times))),
                (None, _) => Err(Error::spec(
                    "measure",
                    format!("table '{}' has no measure '{part}'", table.name),
                    near(part, &times),
                )),
            }
        })
        .collect()
}

/// The key column of that name; none for one that does not matter.
fn column(table: &Table, name: &str) -> Result<Option<usize>> {
    match table.key_index(name) {
        Some(k) => Ok(Some(k)),
        None if ignored(&table.name).contains(&name) => Ok(None),
        None => {
            let known: Vec<&str> = table.keys.iter().map(TableKey::name).collect();
            Err(Error::spec(name, format!("table '{}' has no key column '{name}'", table.name), near(name, known)))
        }
    }
}

/// A value as a point of its column: a code for text (checked to exist), the number for numbers.
fn coordinate(key: &TableKey, value: &Value) -> Result<f64> {
    let name = key.name();
    match (key, value) {
        (TableKey::Text { labels, .. }, Value::Text(t)) => {
            let meant = canonical(name, t);
            match labels.binary_search_by(|l| l.as_str().cmp(meant)) {
                Ok(code) => Ok(code as f64),
                Err(_) => Err(Error::spec(name, format!("'{t}' was not measured"), near(t, labels))),
            }
        }
        (TableKey::Int { .. }, Value::Number(x)) if x.is_finite() => Ok(*x),
        (TableKey::Int { .. }, Value::Number(x)) => Err(Error::spec(name, format!("{x} is not a finite number"), "")),
        (TableKey::Int { .. }, Value::Text(t)) => Err(Error::spec(name, format!("expected a number, got '{t}'"), "")),
        (TableKey::Text { labels, .. }, Value::Number(x)) => {
            Err(Error::spec(name, format!("expected text, got {x}"), near("", labels)))
        }
    }
}

/// One table and measure of a query.
struct Asked<'a> {
    db: &'a KernelDb,
    table: &'a Table,
    measures: Vec<(&'a [f32], f64)>,
    priced: bool,
    versioned: bool,
    /// Codes of each key column, listed when a point off the grid first asks.
    occurring: Vec<OnceCell<Vec<i64>>>,
}

impl Asked<'_> {
    fn occurs(&self, k: usize, x: f64) -> bool {
        let codes = self.occurring[k].get_or_init(|| {
            let all: Vec<u32> = (0..self.table.rows() as u32).collect();
            self.table.distinct(k, &all)
        });
        x.fract() == 0.0 && codes.binary_search(&(x as i64)).is_ok()
    }

    fn ms(&self, row: u32) -> f64 {
        self.measures.iter().map(|(v, unit)| f64::from(v[row as usize]) * unit).sum()
    }

    fn one(&self, given: &BTreeMap<usize, f64>, cache: &mut Cache) -> Result<Latency> {
        let table = self.table;
        let whole = |x: f64| x.fract() == 0.0 && x.abs() < 9.0e15;
        if given.values().all(|&x| whole(x)) {
            let codes = given.iter().map(|(&k, &x)| (k, x as i64)).collect();
            let found = table.select(&codes);
            if !found.is_empty() {
                let rows = lane(table, found, given, &[])?;
                let source = source(table, &rows);
                return Ok(Latency { ms: self.ms(rows[0]), evidence: Evidence::Measured, source });
            }
        }

        // Off the grid: first along the axes whose value was never measured, then along all of them.
        let known = |k: usize, x: f64| self.occurs(k, x);
        let numbers: Vec<usize> = given.keys().copied().filter(|&k| !table.keys[k].is_text()).collect();
        if let Some(&k) = numbers.iter().find(|&&k| !is_axis(table.keys[k].name()) && !known(k, given[&k])) {
            let all: Vec<u32> = (0..table.rows() as u32).collect();
            return Err(not_measured(table, k, given[&k], &all));
        }
        let axes: Vec<usize> = numbers.iter().copied().filter(|&k| is_axis(table.keys[k].name())).collect();
        if let Some(&k) = axes.iter().find(|&&k| given[&k] < 0.0) {
            return Err(Error::spec(table.keys[k].name(), format!("{} is negative", given[&k]), ""));
        }
        let off: Vec<usize> = axes.iter().copied().filter(|&k| !known(k, given[&k])).collect();
        for free in [&off, &axes] {
            let fixed = given.iter().filter(|(k, _)| !free.contains(k)).map(|(&k, &x)| (k, x as i64)).collect();
            let found = if free.is_empty() { Vec::new() } else { table.select(&fixed) };
            if !found.is_empty() {
                let rows = lane(table, found, given, free)?;
                return self.off_grid(&TableLane { table, rows: &rows, free, given }, cache);
            }
        }
        Err(combination(table, given, &axes))
    }

    fn off_grid(&self, lane: &TableLane<'_>, cache: &mut Cache) -> Result<Latency> {
        if self.priced {
            let named = self.table.key_index("kernel_source").is_some_and(|k| lane.given.contains_key(&k));
            if let Some((reading, source)) = lane.by_operator(self.db, named || self.versioned, cache)? {
                return Ok(Latency { ms: reading.seconds / MS, evidence: reading.evidence, source });
            }
        }
        let seconds: Vec<f64> = lane.rows.iter().map(|&r| self.ms(r) * MS).collect();
        let reading = lane.by_rows(&seconds)?;
        Ok(Latency { ms: reading.seconds / MS, evidence: reading.evidence, source: source(self.table, lane.rows) })
    }
}

/// Narrows rows to one lane by the defaults; an error where more than one is left.
fn lane(table: &Table, found: Vec<u32>, given: &BTreeMap<usize, f64>, free: &[usize]) -> Result<Vec<u32>> {
    let source = table.key_index("kernel_source");
    let mut rows = found;
    own_operator(table, &mut rows);
    if let Some(k) = source
        && !given.contains_key(&k)
    {
        let before = table.distinct(k, &rows);
        default_sources(table, &mut rows);
        if rows.is_empty() {
            let names: Vec<String> = before.iter().map(|&c| table.keys[k].show(c)).collect();
            debug_assert!(names.iter().all(|n| is_nongated(n)));
            return Err(Error::spec(
                "kernel_source",
                format!("only a kernel for experts without a gate was measured: {}", names.join(", ")),
                "name it with kernel_source= if that is meant",
            ));
        }
    }
    let mut missing = Vec::new();
    for (k, key) in table.keys.iter().enumerate() {
        if free.contains(&k) || given.contains_key(&k) || (!free.is_empty() && is_dependent(key.name())) {
            continue;
        }
        let codes = table.distinct(k, &rows);
        // Off the grid a lane may change its kernel along an axis (trtllm's low-latency experts).
        let changes = Some(k) == source && !free.is_empty() && sources_partition(table, k, &rows, free);
        if codes.len() > 1 && !changes {
            missing.push((k, codes));
        }
    }
    if missing.is_empty() {
        return Ok(rows);
    }
    let mut problems = crate::error::Problems::new();
    for (k, codes) in missing {
        let name = table.keys[k].name();
        let shown: Vec<String> = codes.iter().take(24).map(|&c| table.keys[k].show(c)).collect();
        let more = if codes.len() > 24 { ", ..." } else { "" };
        let what = if Some(k) == source { "several kernels measured this" } else { "several rows match" };
        problems.push(name, format!("{what}: {}{more}", shown.join(", ")), format!("give {name}="));
    }
    Err(Error::Spec(problems))
}

/// Whether no two kernels share a point of the free axes.
fn sources_partition(table: &Table, source: usize, rows: &[u32], free: &[usize]) -> bool {
    let mut seen: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    rows.iter().all(|&r| {
        let point = free.iter().map(|&k| table.keys[k].code(r as usize)).collect();
        let code = table.keys[source].code(r as usize);
        *seen.entry(point).or_insert(code) == code
    })
}

/// `[import: ]system framework version table [kernel sources]`, as surfaces name their lanes.
fn source(table: &Table, rows: &[u32]) -> String {
    let mut text = table.named(rows);
    if let Some(k) = table.key_index("kernel_source") {
        let mut names: Vec<String> = table.distinct(k, rows).iter().map(|&c| table.keys[k].show(c)).collect();
        names.retain(|n| !n.is_empty());
        if !names.is_empty() {
            text = format!("{text} [{}]", names.join(", "));
        }
    }
    text
}

fn not_measured(table: &Table, k: usize, x: f64, among: &[u32]) -> Error {
    let key = &table.keys[k];
    let codes = table.distinct(k, among);
    let shown: Vec<String> = codes.iter().take(24).map(|&c| key.show(c)).collect();
    let more = if codes.len() > 24 { ", ..." } else { "" };
    let asked = if key.is_text() { format!("'{}'", key.show(x as i64)) } else { x.to_string() };
    Error::spec(key.name(), format!("{asked} was not measured"), format!("measured: {}{more}", shown.join(", ")))
}

/// Every value exists but not together: names the key whose change would do.
fn combination(table: &Table, given: &BTreeMap<usize, f64>, axes: &[usize]) -> Error {
    let fixed: BTreeMap<usize, i64> =
        given.iter().filter(|(k, _)| !axes.contains(k)).map(|(&k, &x)| (k, x as i64)).collect();
    for &k in fixed.keys() {
        let mut others = fixed.clone();
        others.remove(&k);
        let rows = table.select(&others);
        if !rows.is_empty() {
            let Error::Spec(mut problems) = not_measured(table, k, given[&k], &rows) else { continue };
            problems.0[0].message += " with the other keys";
            return Error::Spec(problems);
        }
    }
    Error::spec("keys", format!("table '{}' has no row with these keys together", table.name), "")
}
