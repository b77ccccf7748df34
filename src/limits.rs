//! Bounds on what an input may ask for, so that a slip of the pen is an error and no machine without memory.
//!
//! Each has a default far above what a study needs and is raised, or lowered, by an environment variable that the error
//! names. Limit: memory that is free is not looked at.

use std::fmt;

use crate::error::{Error, Result};

/// One bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted, in the plural.
    what: &'static str,
    /// The environment variable that sets another.
    variable: &'static str,
    most: u64,
}

/// Worker threads of the process.
pub const THREADS: Limit = Limit { what: "worker threads", variable: "DISAGG_MOST_THREADS", most: 1024 };

/// Distinct states that constraints of a space may leave while its points are counted (about 100 bytes each).
pub const STATES: Limit = Limit { what: "states of the constraints", variable: "DISAGG_MOST_STATES", most: 10_000_000 };

impl Limit {
    /// The bound in force: the environment variable where it holds a whole number, else the default.
    pub fn most(self) -> u64 {
        std::env::var(self.variable).ok().and_then(|v| v.parse().ok()).unwrap_or(self.most)
    }

    /// The error of what asked for more; `hint`: another cure than a higher bound.
    pub fn exceeded(self, path: &str, asked: impl fmt::Display, hint: &str) -> Error {
        let message = format!("{asked} {} are more than {}", self.what, self.most());
        let raise = format!("set {} to allow more", self.variable);
        Error::spec(path, message, if hint.is_empty() { raise } else { format!("{hint}, or {raise}") })
    }

    /// # Errors
    /// If `n` is beyond the bound.
    pub fn hold(self, path: &str, n: u64) -> Result<()> {
        if n > self.most() { Err(self.exceeded(path, n, "")) } else { Ok(()) }
    }
}
