//! Names of prompt blocks: read, and held against the lengths of their prompts.
//!
//! A prompt of n tokens has floor(n / b) full blocks of b tokens, and ceil(n / b) with the last one begun. What nearly
//! all rows agree on is the size; a row that names more than its prompt has room for is refused, for it would hit
//! tokens that it does not have. Names of text are hashed to 64 bits.
//!
//! Limit: one size of block a trace; names that are hashed may meet by a chance of 2^-64 a pair.

use std::hash::Hasher;

use serde_json::Value;

use super::Said;
use super::rows::{Reader, TraceRow};
use crate::error::{Error, Result};
use crate::sim::kv::Mix;

/// Tokens of a block in Mooncake's own traces.
pub(super) const MOONCAKE: u32 = 512;
/// Tokens of a block that servers and traces use; the likelier first.
const SIZES: [u32; 13] = [MOONCAKE, 16, 32, 64, 128, 256, 1024, 2048, 4096, 8, 4, 2, 1];
/// Share of the rows that must agree on a size.
const MOST: f64 = 0.95;

fn name(x: &Value) -> Option<u64> {
    match x {
        Value::String(text) => {
            let mut h = Mix::default();
            h.write(text.as_bytes());
            Some(h.finish())
        }
        // Signed hashes of 64 bits are names too.
        _ => x.as_u64().or_else(|| x.as_i64().map(i64::cast_unsigned)),
    }
}

/// Names as a list of them.
pub(super) fn ids(cell: &Value) -> Said<Vec<u64>> {
    let bad = || "block names are no list of whole numbers or texts".to_string();
    match cell {
        Value::Null => Ok(Vec::new()),
        Value::Array(all) => all.iter().map(|x| name(x).ok_or_else(bad)).collect(),
        // A list that a CSV file holds in one cell.
        Value::String(text) => {
            let list: Value = serde_json::from_str(&text.replace('\'', "\"")).map_err(|_| bad())?;
            if list.is_array() { ids(&list) } else { Err(bad()) }
        }
        _ => Err(bad()),
    }
}

/// Names as runs `[start, length]` of rising numbers.
pub(super) fn runs(cell: &Value) -> Said<Vec<u64>> {
    let bad = || "block names are no runs [start, length]".to_string();
    let mut out: Vec<u64> = Vec::new();
    if cell.is_null() {
        return Ok(out);
    }
    for run in cell.as_array().ok_or_else(bad)? {
        let at = |i: usize| run.get(i).and_then(Value::as_u64).ok_or_else(bad);
        let (start, len) = (at(0)?, at(1)?);
        if len + out.len() as u64 > 1 << 24 {
            return Err("more than 2^24 blocks".into());
        }
        out.extend((0..len).map(|k| start.wrapping_add(k)));
    }
    Ok(out)
}

fn fits(row: &TraceRow, size: u32) -> bool {
    let (k, b) = (row.blocks.len() as u64, u64::from(size));
    k == row.isl / b || k == row.isl.div_ceil(b)
}

fn over(row: &TraceRow, size: u32) -> bool {
    row.blocks.len() as u64 > row.isl.div_ceil(u64::from(size))
}

/// Tokens of a block: what the caller says, else `usual`, else what the rows agree on.
pub(super) fn size(reader: &mut Reader, said: Option<u32>, usual: u32) -> Result<u32> {
    let named: Vec<&TraceRow> = reader.rows.iter().filter(|r| !r.blocks.is_empty()).collect();
    let n = named.len().max(1) as f64;
    let share = |size: u32| named.iter().filter(|r| fits(r, size)).count() as f64 / n;
    let first = said.unwrap_or(usual);
    let mut size = first;
    if !named.is_empty() && share(first) < MOST {
        let other = SIZES.into_iter().find(|s| share(*s) >= MOST);
        let odd = named.iter().find(|r| !fits(r, first)).copied().unwrap_or(named[0]);
        let says = format!("{} block names for {} tokens", odd.blocks.len(), odd.isl);
        let place = format!("{}:{}", reader.place, odd.line);
        match (said, other) {
            (None, Some(found)) => {
                reader.notes.push(format!("blocks of {found} tokens (by the numbers of names)"));
                size = found;
            }
            (Some(_), Some(found)) if share(first) < 0.5 => {
                let text = format!("{says} do not fit blocks of {first}: say block_tokens={found}");
                return Err(Error::data(place, text));
            }
            // A few prompts named in part are no sign of another size; many that are named too often are.
            (None, None) | (Some(_), _) => {
                let above = named.iter().filter(|r| over(r, first)).count() as f64 / n;
                if above > 1.0 - MOST && said.is_none() {
                    let text =
                        format!("{says} do not fit blocks of {first}, nor the others one size: say block_tokens=");
                    return Err(Error::data(place, text));
                }
            }
        }
    }
    reader.sift(|row| {
        let most = row.isl.div_ceil(u64::from(size));
        over(row, size).then(|| {
            format!("{} block names for {} tokens: blocks of {size} tokens make {most}", row.blocks.len(), row.isl)
        })
    })?;
    Ok(size)
}
