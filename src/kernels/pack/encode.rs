//! The content of a frame of the pack, from a table: what [`super`] decodes, written.
//!
//! A key column is a code a row into its sorted values, a measure its bits or indices into its distinct bits, whichever
//! is smaller once compressed; the format stands in [`super`].
//!
//! Limit: nothing is compressed or written here, and rows must be distinct and sorted by key: a table made by hand is
//! taken as it is.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::kernels::table::{Table, TableKey};

/// Most rows of a run: lengths are two bytes.
const LONGEST: usize = 0xFFFF;

#[derive(Serialize)]
struct Header<'a> {
    rows: usize,
    keys: Vec<KeyHead<'a>>,
    measures: Vec<MeasureHead<'a>>,
}

#[derive(Serialize)]
struct KeyHead<'a> {
    name: &'a str,
    width: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    int: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<usize>,
}

#[derive(Serialize)]
struct MeasureHead<'a> {
    name: &'a str,
    coding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
}

impl Table {
    /// The content of the table's frame in a pack; `size` says how long bytes are once compressed.
    ///
    /// # Errors
    /// A key column with more than 65,536 distinct values, or what `size` says.
    pub fn frame(&self, mut size: impl FnMut(&[u8]) -> Result<usize>) -> Result<Vec<u8>> {
        let (mut keys, mut body) = (Vec::new(), Vec::new());
        for key in &self.keys {
            let (head, bytes) = coded(key)?;
            keys.push(head);
            body.extend(bytes);
        }
        let mut measures = Vec::new();
        for (name, values) in &self.measures {
            let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
            let plain = planes(&bits, 4);
            let (width, indexed) = dictionary(&bits);
            let smaller = size(&indexed)? < size(&plain)?;
            let coding = if smaller { "dict" } else { "plain" };
            measures.push(MeasureHead { name, coding, width: smaller.then_some(width) });
            body.extend(if smaller { indexed } else { plain });
        }
        let head = serde_json::to_vec(&Header { rows: self.rows(), keys, measures })
            .map_err(|e| Error::data("pack", format!("cannot write JSON: {e}")))?;
        Ok([&(head.len() as u32).to_le_bytes(), head.as_slice(), body.as_slice()].concat())
    }
}

fn coded(key: &TableKey) -> Result<(KeyHead<'_>, Vec<u8>)> {
    let name = key.name();
    let (codes, int, text): (Vec<usize>, _, _) = match key {
        TableKey::Int { values, .. } => {
            let mut distinct = values.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let code = |v| distinct.binary_search(v).unwrap_or_default();
            (values.iter().map(code).collect(), Some(distinct), None)
        }
        TableKey::Text { codes, labels, .. } => {
            (codes.iter().map(|c| usize::from(*c)).collect(), None, Some(labels.as_slice()))
        }
    };
    let count = int.as_ref().map_or(0, Vec::len).max(text.map_or(0, <[String]>::len));
    if count > 1 << 16 {
        return Err(Error::data(format!("pack, column '{name}'"), "more than 65536 distinct values"));
    }
    let width = if count == 1 { 0 } else { bytes_for(count) };
    let head = KeyHead { name, width, int, text, runs: None };
    if width == 0 {
        return Ok((head, Vec::new()));
    }
    // A run starts where the code changes, and after so many rows at the latest.
    let mut starts: Vec<usize> = Vec::new();
    for row in 0..codes.len() {
        if starts.last().is_none_or(|s| codes[row] != codes[row - 1] || row - s == LONGEST) {
            starts.push(row);
        }
    }
    if 4 * starts.len() > codes.len() {
        return Ok((head, differences(codes.iter().copied(), width)));
    }
    let ends = starts.iter().copied().skip(1).chain([codes.len()]);
    let lengths: Vec<u32> = starts.iter().zip(ends).map(|(a, b)| (b - a) as u32).collect();
    let mut bytes = differences(starts.iter().map(|s| codes[*s]), width);
    bytes.extend(planes(&lengths, 2));
    Ok((KeyHead { runs: Some(starts.len()), ..head }, bytes))
}

/// Each code less the one before, in so many bytes.
fn differences(codes: impl Iterator<Item = usize>, width: usize) -> Vec<u8> {
    let mut before = 0;
    let mut bytes = Vec::new();
    for code in codes {
        bytes.extend(&code.wrapping_sub(before).to_le_bytes()[..width]);
        before = code;
    }
    bytes
}

/// Bytes of an index, and: how many distinct words there are, these rising as differences, an index a word.
fn dictionary(words: &[u32]) -> (usize, Vec<u8>) {
    let mut distinct = words.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let width = bytes_for(distinct.len());
    let mut before = 0;
    let rises: Vec<u32> = distinct.iter().map(|w| w - std::mem::replace(&mut before, *w)).collect();
    let index: Vec<u32> = words.iter().map(|w| distinct.binary_search(w).unwrap_or_default() as u32).collect();
    (width, [(distinct.len() as u32).to_le_bytes().to_vec(), planes(&rises, 4), planes(&index, width)].concat())
}

/// Bytes that tell so many codes apart, one at least.
fn bytes_for(count: usize) -> usize {
    [1 << 8, 1 << 16].iter().filter(|most| count > **most).count() + 1
}

/// The lowest bytes of each word, byte planes one after the other.
fn planes(words: &[u32], width: usize) -> Vec<u8> {
    (0..width).flat_map(|p| words.iter().map(move |w| w.to_le_bytes()[p])).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{read_index, unpacked};
    use std::path::Path;

    /// Every shipped frame is written again to the bit; which coding is smaller is asked of the frame itself.
    #[test]
    fn shipped_frames_are_written_again_to_the_bit() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/disagg/data/kernels");
        let index = read_index(&dir).unwrap();
        let mut judged = 0;
        for entry in index.tables.iter().step_by(if cfg!(debug_assertions) { 9 } else { 1 }) {
            let payload = unpacked(&dir, entry).unwrap();
            let table = super::super::read_table(&dir, entry).unwrap();
            let held = |bytes: &[u8]| usize::from(!payload.windows(bytes.len()).any(|w| w == bytes));
            let written = table.frame(|bytes| Ok(held(bytes))).unwrap();
            assert!(written == payload, "{} {} {}", entry.system, entry.version, entry.table);
            judged += 1;
        }
        assert!(judged > 10, "{judged}");
    }
}
