//! The text of a file: unpacked (gzip, zstd), decoded (UTF-8, UTF-16, else Latin-1), byte-order marks off.
//!
//! What is no text is refused with what would do. Limit: 8 GiB of plain bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// Plain bytes that a file may hold.
const MOST: u64 = 8 << 30;

/// First bytes of what is no table of text, and what to do with it.
const FOREIGN: [(&[u8], &str); 8] = [
    (b"PAR1", "is a Parquet file: Trace.read of Python takes it (pip install pyarrow)"),
    (b"ARROW1", "is an Arrow file: give Trace.read the DataFrame, e.g. pandas.read_feather(path)"),
    (b"PK\x03\x04", "is a zip archive or an Excel file: unpack it, or save the sheet as CSV"),
    (b"BZh", "is packed with bzip2: unpack it, or pack it with gzip or zstd"),
    (b"\xfd7zXZ", "is packed with xz: unpack it, or pack it with gzip or zstd"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it"),
    (b"SQLite format 3", "is an SQLite database: give Trace.read the DataFrame of a query"),
    (b"\x89HDF", "is an HDF5 file: give Trace.read the DataFrame"),
];

fn unpacked(from: impl Read, path: &Path) -> Result<Vec<u8>> {
    let name = || path.display().to_string();
    let mut plain = Vec::new();
    from.take(MOST + 1).read_to_end(&mut plain).map_err(|e| Error::data(name(), format!("cannot be read: {e}")))?;
    if plain.len() as u64 > MOST {
        return Err(Error::data(name(), "holds more than 8 GiB: split it"));
    }
    Ok(plain)
}

/// What a file holds, unpacked.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::data(path.display().to_string(), e.to_string());
    let bytes = unpacked(File::open(path).map_err(fail)?, path)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return unpacked(MultiGzDecoder::new(bytes.as_slice()), path);
    }
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let stream = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice());
        let stream = stream.map_err(|e| Error::data(path.display().to_string(), format!("is not zstd: {e}")))?;
        return unpacked(stream, path);
    }
    Ok(bytes)
}

fn wide(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|b| unit([b[0], b[1]]));
    let text: String = char::decode_utf16(units).collect::<std::result::Result<_, _>>().ok()?;
    Some(text.trim_start_matches('\u{feff}').to_string())
}

/// The text of a file, and how it was come by where that is not plain UTF-8.
pub(super) fn text(path: &Path) -> Result<(String, Option<&'static str>)> {
    let bytes = bytes(path)?;
    decode(bytes).map_err(|why| Error::data(path.display().to_string(), why))
}

pub(super) fn decode(bytes: Vec<u8>) -> std::result::Result<(String, Option<&'static str>), &'static str> {
    if let Some((_, what)) = FOREIGN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(what);
    }
    let zero = |i: usize| bytes.get(i) == Some(&0) && bytes.get(i + 2) == Some(&0);
    let (little, big) = (bytes.starts_with(&[0xff, 0xfe]), bytes.starts_with(&[0xfe, 0xff]));
    if little || big || zero(0) || zero(1) {
        let order = if big || zero(0) { u16::from_be_bytes } else { u16::from_le_bytes };
        let text = wide(&bytes, order).filter(|t| !t.contains('\0'));
        return text.map(|t| (t, Some("read as UTF-16"))).ok_or("is not text, nor UTF-16: save it as UTF-8");
    }
    if bytes.contains(&0) {
        return Err("is not text: save it as CSV or JSON lines");
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.starts_with('\u{feff}') => Ok((text.trim_start_matches('\u{feff}').to_string(), None)),
        Ok(text) => Ok((text, None)),
        Err(e) => {
            let text = e.as_bytes().iter().map(|b| char::from(*b)).collect();
            Ok((text, Some("not UTF-8: read as Latin-1")))
        }
    }
}
