//! Rows looked through in blocks, side by side; what is found stands in their order.
//!
//! Limit: for work on rows that is alike for all of them; a few slow rows at one end hold up their block.

use rayon::prelude::*;

use super::row::Row;

/// Rows that one thread looks through at a time.
pub const BLOCK: usize = 8192;

/// `work` on blocks of rows with their numbers, side by side if there are several; in their order.
pub(crate) fn by_block<T: Send>(rows: &[Row], work: impl Fn((usize, &[Row])) -> T + Sync) -> Vec<T> {
    if rows.len() > BLOCK
        && let Ok(found) = crate::pool::install(|| rows.par_chunks(BLOCK).enumerate().map(&work).collect())
    {
        return found;
    }
    rows.chunks(BLOCK).enumerate().map(work).collect()
}

/// Indices of the rows that `keep` takes.
pub(crate) fn filter(rows: &[Row], keep: impl Fn(&Row) -> bool + Sync) -> Vec<usize> {
    let of_block = |(k, rows): (usize, &[Row])| -> Vec<usize> {
        rows.iter().enumerate().filter(|(_, r)| keep(r)).map(|(i, _)| k * BLOCK + i).collect()
    };
    by_block(rows, of_block).into_iter().flatten().collect()
}
