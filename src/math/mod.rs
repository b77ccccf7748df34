//! Small numerics that several floors need.

pub mod climb;
pub mod combinatorics;
pub mod figures;
pub mod nelder_mead;
pub mod normal;
pub mod pareto;
