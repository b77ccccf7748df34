//! What a study optimises: more of it is better.
//!
//! Limit: three rates of tokens; money and energy are told of a plan, never optimised here.

use crate::error::{Error, Result, near};
use crate::serving::SteadyState;
use crate::spec::choices;

choices! {
    /// What a study optimises.
    Objective {
        /// Output tokens a second of the deployment.
        TokensPerS = "tokens_per_s",
        /// The same a GPU of the budget.
        TokensPerSPerGpu = "tokens_per_s_per_gpu",
        /// Output tokens a second of one request, once it decodes.
        TokensPerSPerUser = "tokens_per_s_per_user",
    }
}

impl Objective {
    /// The objective of a name.
    ///
    /// # Errors
    /// If there is none of that name, with the nearest one.
    pub fn parse(name: &str) -> Result<Objective> {
        let known = || near(name, Objective::NAMES);
        let found = Objective::named(name);
        found.ok_or_else(|| Error::spec("objective", format!("'{name}' is not an objective"), known()))
    }

    /// What plans of one budget are compared by: the rate of requests stands for both rates of tokens.
    pub(crate) fn gain(self, p: &SteadyState) -> f64 {
        self.gain_of(p.requests_per_s, p.tpot_s)
    }

    /// The same of a rate of requests and a time between tokens.
    pub(crate) fn gain_of(self, requests_per_s: f64, tpot_s: f64) -> f64 {
        match self {
            Objective::TokensPerSPerUser => 1.0 / tpot_s.max(1e-12),
            Objective::TokensPerS | Objective::TokensPerSPerGpu => requests_per_s,
        }
    }

    /// In its own unit.
    pub(crate) fn value(self, p: &SteadyState, osl: f64, gpus: f64) -> f64 {
        match self {
            Objective::TokensPerS => p.requests_per_s * osl,
            Objective::TokensPerSPerGpu => p.requests_per_s * osl / gpus,
            Objective::TokensPerSPerUser => self.gain(p),
        }
    }
}
