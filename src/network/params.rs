//! The fitted parameters of the communication kernels, compiled in.
//!
//! `data/network/kernels.json` is written by `make calibrate` from the measured tables alone and
//! rebuilt bit for bit; every entry names its tables, the groups it was fitted on and its error there.
//!
//! Limit: six systems; a law says nothing of groups beyond those named beside it.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::law::{CollectiveLaw, ExchangeLaw};
use crate::error::Result;
use crate::spec::json;

const TEXT: &str = include_str!("../../python/disagg/data/network/kernels.json");

/// How far a law is from the rows it is held against: shares of the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Misfit {
    pub rows: usize,
    pub mape: f64,
    pub median: f64,
    pub p95: f64,
}

impl Misfit {
    /// Of (model, measured) pairs; none for no pairs.
    pub(crate) fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Misfit> {
        let mut errors: Vec<f64> = pairs.map(|(model, measured)| (model / measured - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let n = errors.len();
        let at = |q: f64| errors.get((n.saturating_sub(1) as f64 * q).round() as usize).copied();
        Some(Misfit { rows: n, mape: errors.iter().sum::<f64>() / n as f64, median: at(0.5)?, p95: at(0.95)? })
    }
}

/// Which measured table a law stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableId {
    pub system: String,
    pub framework: String,
    pub version: String,
    pub table: String,
    /// Operation or phase: `all_reduce`, `dispatch`, ...
    pub op: String,
    /// Element type, kernel and launch, as far as the table tells them apart.
    pub variant: String,
}

/// A fitted law with its provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted<L> {
    pub id: TableId,
    /// Group sizes of the rows it was fitted on; larger measured groups are check rows.
    pub ranks: Vec<u32>,
    pub fit: Misfit,
    pub law: L,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub source: String,
    pub collectives: Vec<Fitted<CollectiveLaw>>,
    pub exchanges: Vec<Fitted<ExchangeLaw>>,
}

impl Params {
    /// The shipped parameters.
    pub fn shipped() -> Result<&'static Params> {
        static PARAMS: OnceLock<Result<Params>> = OnceLock::new();
        PARAMS.get_or_init(|| Params::parse(TEXT)).as_ref().map_err(Clone::clone)
    }

    pub fn parse(text: &str) -> Result<Params> {
        json::parse(text, "network/kernels.json")
    }

    /// The law of a collective; of several versions the one that lookups prefer, which comes first.
    pub(crate) fn collective(&self, system: &str, framework: &str, op: &str, variant: &str) -> Option<&CollectiveLaw> {
        let wanted =
            |id: &TableId| id.system == system && id.framework == framework && id.op == op && id.variant == variant;
        self.collectives.iter().find(|f| wanted(&f.id)).map(|f| &f.law)
    }

    /// The law of an all-to-all; `across`: fitted on several nodes.
    pub(crate) fn exchange(&self, system: &str, variant: &str, op: &str, across: bool) -> Option<&ExchangeLaw> {
        let several = |f: &Fitted<ExchangeLaw>| f.law.per_log2_domains > 0.0 || f.law.step > 0.0;
        self.exchanges
            .iter()
            .find(|f| f.id.system == system && f.id.variant == variant && f.id.op == op && several(f) == across)
            .map(|f| &f.law)
    }
}
