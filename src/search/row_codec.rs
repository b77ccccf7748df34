//! Rows as bytes, to cross from one process to another: every bit comes back.
//!
//! Eight bytes tell the format, then the rows follow as `postcard` writes them from the serde of their structs: a
//! count, then field by field without names, integers in as few bytes as they need, doubles as their eight bytes
//! (what kind of not-a-number one is included). Source: the wire format of `postcard` 1,
//! <https://postcard.jamesmunns.com/wire-format>.
//!
//! Limits: rows are read only by the version of the crate that wrote them, as another one prices otherwise. Bytes that
//! were cut or changed are refused or read as other rows, without a panic and without more memory than they need
//! themselves; a checksum they do not carry.

use super::row::Row;
use crate::error::{Error, Result};

/// Bytes before the rows: which format, of which version.
pub const HEADER: usize = 8;

/// Format and version, and the size of a row: a build in which rows have other fields has another one.
const FORMAT: u64 =
    fnv(concat!("disagg rows 5 ", env!("CARGO_PKG_VERSION")).as_bytes()) ^ (size_of::<Row>() as u64).rotate_left(32);

/// The hash FNV-1a.
const fn fnv(bytes: &[u8]) -> u64 {
    let (mut hash, mut i) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

/// Rows as bytes: header, count, row by row.
pub fn pack(rows: &[Row]) -> Result<Vec<u8>> {
    postcard::to_extend(rows, FORMAT.to_le_bytes().to_vec()).map_err(|e| broken(format!("cannot be written: {e}")))
}

/// The rows of `pack`.
pub fn unpack(bytes: &[u8]) -> Result<Vec<Row>> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(broken(format!("{} bytes are not even a header: {AGAIN}", bytes.len())));
    };
    if u64::from_le_bytes(*header) != FORMAT {
        let text = "come from another version of disagg: install the same on every worker";
        return Err(broken(format!("{text} (here {})", env!("CARGO_PKG_VERSION"))));
    }
    match postcard::take_from_bytes(body) {
        Ok((rows, [])) => Ok(rows),
        Ok((_, rest)) => Err(broken(format!("end {} bytes too early: {AGAIN}", rest.len()))),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(broken(format!("are cut: {AGAIN}"))),
        Err(e) => Err(broken(format!("are damaged ({e}): {AGAIN}"))),
    }
}

/// What to do about bytes that were harmed on their way.
const AGAIN: &str = "search the unit again, and hand its bytes on as they are";

fn broken(message: String) -> Error {
    Error::data("rows", message)
}
