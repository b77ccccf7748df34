//! Tables of measured rows: repeated rows collapsed to their median, provenance kept.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;

/// A key column of a table.
#[derive(Clone, Debug)]
pub enum Key {
    Int { name: String, values: Vec<i64> },
    Text { name: String, codes: Vec<u16>, labels: Vec<String> },
}

/// One measured table: every row has a distinct key; measures are medians of repeats in seconds.
#[derive(Clone, Debug)]
pub struct Table {
    pub system: String,
    pub framework: String,
    pub version: String,
    /// Parquet file stem without `_perf`.
    pub name: String,
    pub keys: Vec<Key>,
    /// (name, values in milliseconds as measured, f32) per measured column.
    pub measures: Vec<(String, Vec<f32>)>,
}

/// All tables of the pack and of imported directories; tables are decoded on first use.
#[derive(Debug)]
pub struct KernelDb {
    _private: (),
}

impl KernelDb {
    /// Opens the pack in `dir`; nothing but the index is read.
    pub fn open(dir: &Path) -> Result<Arc<KernelDb>> {
        let _ = dir;
        todo!()
    }

    /// The table of that name; `version` none: the framework's current one, else the newest that has it.
    pub fn table(&self, system: &str, framework: &str, name: &str, version: Option<&str>) -> Result<Arc<Table>> {
        let _ = (system, framework, name, version);
        todo!()
    }
}
