//! What P/D rows of the sample ran, from the public configuration history of the benchmark that measured them.
//!
//! `validation/recipes.tsv.zst` (`tests/bench/build_recipes.py`): candidates by the row's id. Source:
//! SemiAnalysisAI/InferenceX, .github/configs and the recipes of srt-slurm (Apache-2.0). Half of the rows are there.
//! Limits: a row that several recipes fit is not told apart here, and what a name does not say (speculation without its
//! depth) is not guessed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::data::{self, Cells};
use crate::error::Result;
use crate::spec::Parallel;

static PACKED: &[u8] = include_bytes!("../../../python/disagg/data/validation/recipes.tsv.zst");
const PATH: &str = "validation/recipes.tsv.zst";
/// Unpacked size, with room to spare.
const UNPACKED: usize = 1 << 20;

/// GPUs over which an expert is cut at most: 2,048 columns in blocks of 128.
const WIDEST_CUT: u32 = 16;

/// One side of a deployment: a worker's layout, and how many there are.
pub type Side = (Parallel, u32);

/// A candidate of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub prefill: Side,
    pub decode: Side,
    /// Draft tokens a step; none: it drafts, and its name does not say how many.
    pub mtp: Option<u32>,
    /// Sequences that a decode rank takes at most, where the name says it.
    pub max_batch: Option<f64>,
    /// Expert slots in all, where experts are moved about; 0: they are not.
    pub slots: u32,
}

/// What is known of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    One(Recipe),
    /// Why none is chosen.
    Unclear(&'static str),
}

fn side(cells: &Cells<'_>, which: &str) -> Result<Option<Side>> {
    let number = |name: &str| cells.number::<u32>(&format!("{which}_{name}"));
    let (Some(count), Some(gpus)) = (number("workers")?, number("gpus")?) else { return Ok(None) };
    let ep = number("ep")?.unwrap_or(1).max(1);
    if gpus == 0 || !gpus.is_multiple_of(ep) {
        return Ok(None);
    }
    let (tp, dp) = if number("dp_attention")? == Some(1) { (1, gpus) } else { (gpus, 1) };
    // Experts are not cut over more than 16 GPUs: a wide worker whose EP is not said has all of them.
    let ep = if ep == 1 && gpus > WIDEST_CUT { gpus } else { ep };
    Ok(Some((Parallel { tp, dp, pp: 1, cp: 1, ep: Some(ep), moe_tp: gpus / ep }, count)))
}

fn read() -> Result<BTreeMap<String, Found>> {
    let text = data::unpack(PACKED, UNPACKED, PATH)?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split('\t').collect();
    let mut out = BTreeMap::new();
    for line in lines {
        let cells = Cells { names: &names, cells: line.split('\t').collect() };
        let found = match (cells.text("kind"), side(&cells, "prefill")?, side(&cells, "decode")?) {
            ("one", Some(prefill), Some(decode)) => Found::One(Recipe {
                prefill,
                decode,
                mtp: if cells.text("speculation") == "none" { Some(0) } else { cells.number("mtp_depth")? },
                max_batch: cells.number("max_batch")?,
                slots: cells.number("eplb_slots")?.unwrap_or(0),
            }),
            ("mtp unknown", ..) => Found::Unclear("mtp-unknown"),
            ("several", ..) => Found::Unclear("several-recipes"),
            _ => Found::Unclear("recipe-without-layout"),
        };
        out.insert(cells.text("id").to_string(), found);
    }
    Ok(out)
}

/// What is known of a row; none: nothing.
pub fn of(id: &str) -> Option<&'static Found> {
    static ALL: LazyLock<BTreeMap<String, Found>> = LazyLock::new(|| read().expect("compiled in, and read by a test"));
    ALL.get(id)
}
