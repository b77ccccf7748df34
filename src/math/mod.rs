//! Small numerics that several floors need.

pub mod climb;
pub mod combinatorics;
pub mod normal;
pub mod pareto;
pub mod simplex;
