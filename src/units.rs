//! Unit constants. Inside the crate everything is SI: seconds, bytes, FLOP, watts.
//!
//! Limit: plain factors: nothing keeps seconds from being added to bytes but names.

pub const US: f64 = 1e-6;
pub const MS: f64 = 1e-3;
/// Decimal gigabyte, as link speeds are written.
pub const GB: f64 = 1e9;
/// Binary gibibyte, as memory is written.
pub const GIB: f64 = 1_073_741_824.0;
pub const MIB: f64 = 1_048_576.0;
