//! Measured kernels: the pack, lookups with evidence, rooflines where nothing was measured.
//!
//! Limit: one GPU's kernels and measured collectives; what lies between nodes is the network's (`network`).

mod crc;
pub mod db;
pub mod evidence;
pub mod grid;
pub mod import;
mod known;
pub mod lanes;
pub mod lookup;
mod off_grid;
pub mod ops;
pub mod overlay;
pub mod pack;
pub mod report;
pub mod roofline;
pub mod surface;
pub mod table;
mod versions;

pub use db::{KernelDb, TableInfo};
pub use evidence::{CLASSES, Evidence, Reading};
pub use known::{known, newest_with};
pub use lookup::{Latency, Query, lookup};
pub use surface::Surface;
pub use table::Table;
