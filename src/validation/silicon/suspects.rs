//! Rows whose own neighbours in the sample contradict their label. Only measured values are looked
//! at; a suspect keeps its prediction and is counted apart. The two rules were written after large
//! errors had been seen, so the figure to quote is that of all rows.
//!
//! `unlabelled-mtp`: a model with MTP heads, and a row with the same label that is a third slower:
//! speculation is not flagged anywhere in the sample. `faster-under-load`: fewer milliseconds a token
//! than every row of the same deployment at an eighth to half of the load, by a fifth: TPOT cannot fall so.
//!
//! Limit: two rules, written after large errors had been seen: quote the figure of all rows.

use std::collections::BTreeMap;

use super::point::Point;

/// A row below this share of the slowest row of its label is taken for speculative decoding.
const MTP_SHARE: f64 = 0.75;
/// A row below this share of every row at an eighth to half of its load.
const LOAD_SHARE: f64 = 0.8;

fn family(model: &str) -> &str {
    // R1 and V3 are one architecture, and served alike.
    if model.contains("DeepSeek") { "DeepSeek" } else { model }
}

fn has_mtp(model: &str) -> bool {
    model.contains("DeepSeek") || model.contains("GLM")
}

/// Everything of the label but the load; `None` for rows whose layout is not known.
fn label(p: &Point) -> Option<(String, u64)> {
    let (load, layout) = p.note.split(',').next()?.strip_prefix('c')?.split_once(' ')?;
    let r = &p.raw;
    let key = format!("{} {} {} {} {layout} {} {}", family(&r.model), r.system, r.framework, r.precision, r.isl, r.osl);
    Some((key, load.parse::<f64>().ok()? as u64))
}

/// Changes the status of rows that their neighbours contradict.
pub(crate) fn mark(points: &mut [Point]) {
    let mut by_label: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for p in points.iter() {
        if let Some((key, load)) = label(p) {
            by_label.entry(key).or_default().push((load, p.raw.tpot_ms));
        }
    }
    for p in points.iter_mut().filter(|p| p.tpot_ms.is_finite()) {
        let Some((key, load)) = label(p) else { continue };
        let Some(all) = by_label.get(&key) else { continue };
        let tpot = p.raw.tpot_ms;
        let slowest = all.iter().filter(|r| r.0 == load).map(|r| r.1).fold(0.0, f64::max);
        let lighter =
            all.iter().filter(|r| 2 * r.0 <= load && 8 * r.0 >= load).map(|r| r.1).fold(f64::INFINITY, f64::min);
        if has_mtp(&p.raw.model) && tpot < MTP_SHARE * slowest {
            p.status = "suspect:unlabelled-mtp".into();
        } else if lighter.is_finite() && tpot < LOAD_SHARE * lighter {
            p.status = "suspect:faster-under-load".into();
        }
    }
}
