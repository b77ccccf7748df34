//! Fits to the measured tables, and to the log of a server.
//!
//! Everything here is serial inside one fit and ordered across fits, and numbers are kept to six
//! digits, so that the parameter file is the same for any number of threads.
//!
//! Limit: what has no measured table (KV on its way from prefill to decode, say) is not fitted here.

pub mod collectives;
mod digits;
pub mod exchanges;
pub mod least;
pub mod served;

use rayon::prelude::*;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::network::params::Params;
use crate::network::samples;
use crate::pool;

/// Fits every communication table of the pack.
pub fn network(db: &KernelDb, control: &Control) -> Result<Params> {
    let (collectives, exchanges) = (samples::collectives(db)?, samples::exchanges(db)?);
    let fits = pool::install(|| {
        rayon::join(
            || {
                let fit = |t| control.check().map(|()| collectives::fit(t));
                collectives.par_iter().map(fit).collect::<Result<Vec<_>>>()
            },
            || {
                let fit = |t| control.check().map(|()| exchanges::fit(t));
                exchanges.par_iter().map(fit).collect::<Result<Vec<_>>>()
            },
        )
    })?;
    Ok(Params {
        source: db.origin().to_string(),
        collectives: fits.0?.into_iter().flatten().collect(),
        exchanges: fits.1?.into_iter().flatten().collect(),
    })
}

/// The parameter file, one fit a line.
pub fn to_text(params: &Params) -> Result<String> {
    let failed = |e: serde_json::Error| Error::data("network/kernels.json", e.to_string());
    let line = |fit: serde_json::Result<String>| fit.map(|f| format!("    {f}")).map_err(failed);
    let collectives: Result<Vec<String>> = params.collectives.iter().map(|f| line(serde_json::to_string(f))).collect();
    let exchanges: Result<Vec<String>> = params.exchanges.iter().map(|f| line(serde_json::to_string(f))).collect();
    Ok(format!(
        "{{\n  \"source\": {},\n  \"collectives\": [\n{}\n  ],\n  \"exchanges\": [\n{}\n  ]\n}}\n",
        serde_json::to_string(&params.source).map_err(failed)?,
        collectives?.join(",\n"),
        exchanges?.join(",\n")
    ))
}
