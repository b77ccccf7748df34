//! Small numerics that several floors need.
//!
//! Limit: what one floor alone needs stands on that floor.

pub mod climb;
pub mod combinatorics;
pub mod figures;
pub mod nelder_mead;
pub mod normal;
pub mod pareto;
