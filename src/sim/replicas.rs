//! Several simulations of one deployment side by side: other traces or other seeds, the same prices.
//!
//! Runs are independent, so each has the bits that it has alone, whatever the number of threads.
//!
//! Limit: runs share nothing but prices; what one leaves in a cache no other finds.

use rayon::prelude::*;

use super::{Deployment, Outcome, Requests, Settings, pricers, simulate_with};
use crate::control::Control;
use crate::error::Result;
use crate::pool;

/// Requests, and the seed of the router's draws.
pub type Job<'a> = (&'a Requests, u64);

/// What `then` makes of each run, in the order of the jobs. Progress counts the requests of a single run,
/// and whole runs of several.
///
/// # Errors
/// As [`simulate_with`]; the first in the order of the jobs.
pub fn each<T: Send>(
    deployment: &Deployment,
    jobs: &[Job<'_>],
    settings: &Settings,
    control: &Control,
    then: impl Fn(&Requests, &Outcome) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let prices = pool::install(|| pricers(deployment))?;
    let one = |(requests, seed): &Job<'_>, control: &Control| {
        let settings = Settings { seed: *seed, ..settings.clone() };
        then(requests, &simulate_with(&prices, deployment, requests, &settings, control)?)
    };
    if let [job] = jobs {
        return Ok(vec![one(job, control)?]);
    }
    control.set_total(jobs.len() as u64);
    let whole = |job: &Job<'_>| {
        let found = one(job, &control.part())?;
        control.advance(1);
        Ok(found)
    };
    let found: Vec<Result<T>> = pool::install(|| jobs.par_iter().map(whole).collect())?;
    found.into_iter().collect()
}
