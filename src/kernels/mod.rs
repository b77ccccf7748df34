//! Measured kernels: the pack, lookups with evidence, rooflines where nothing was measured.

pub mod grid;
pub mod ops;
pub mod roofline;
pub mod surface;
pub mod table;

pub use surface::{Evidence, Reading, Surface};
pub use table::{KernelDb, Table};
