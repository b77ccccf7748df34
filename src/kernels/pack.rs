//! The shipped pack: its index, and the decoding of one table; [`encode`] writes what is decoded here.
//!
//! A pack is one `<system>.pack` a system and one `index.json`. A pack is a sequence of zstd frames, one a table, found by
//! offset and length in the index. A frame unpacks to:
//!
//! - u32, little endian: the length of the header;
//! - the header, JSON: rows, keys, measures (how each column is coded);
//! - the columns, in the order of the header.
//!
//! A key column with one value has no bytes. Any other is a code a row (1 or 2 bytes) into its sorted values, each stored
//! as the difference to the row before (rows are sorted by key, so nearly all differences repeat). A column that changes
//! seldom has `runs`: one such difference a run of equal codes, then the lengths of the runs as u16 in byte planes. A
//! measure is f32, either `plain` (its four byte planes one after the other) or `dict`: a u32 count, the distinct bit
//! patterns in rising order as differences in byte planes, then one index a row in byte planes. Timers tick, so a table
//! repeats its numbers; the smaller coding is taken.
//!
//! The index is checked whole by its own CRC-32 and a frame by its length and CRC-32 before it is unpacked, and every
//! read while unpacking is bounds-checked, so a damaged file, and a pack beside the index of another, is an
//! error that names it and never a wrong number.
//!
//! Limit: CRCs find damage, not malice; one version of the format is read.

pub(crate) mod encode;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::crc::crc32;
use super::table::{Provenance, Table, TableKey};
use crate::error::{Error, Result};

const FORMAT: &str = "disagg-kernels";
const VERSION: u32 = 1;
/// A table is a few megabytes; more than this in an index is damage.
const LARGEST: usize = 1 << 30;

/// One table's line in the index.
#[derive(Clone, Debug, Deserialize)]
pub struct IndexEntry {
    pub system: String,
    pub framework: String,
    pub version: String,
    pub table: String,
    pub file: String,
    pub offset: u64,
    pub bytes: usize,
    pub unpacked: usize,
    pub crc32: u32,
    pub rows: usize,
    pub provenance: Provenance,
}

#[derive(Debug, Deserialize)]
pub struct Index {
    format: String,
    pack_version: u32,
    pub origin: String,
    pub tables: Vec<IndexEntry>,
}

/// Reads `index.json` in `dir`.
pub(crate) fn read_index(dir: &Path) -> Result<Index> {
    let path = dir.join("index.json");
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Error::data(&shown, format!("the kernel pack's index cannot be read: {e}")))?;
    sealed(&text).map_err(|e| Error::data(&shown, e))?;
    let index: Index =
        serde_json::from_str(&text).map_err(|e| Error::data(&shown, format!("not the index of a kernel pack: {e}")))?;
    if index.format != FORMAT {
        return Err(Error::data(&shown, format!("format is '{}', not '{FORMAT}'", index.format)));
    }
    if index.pack_version != VERSION {
        return Err(Error::data(
            &shown,
            format!("pack version {}, this build reads version {VERSION}", index.pack_version),
        ));
    }
    for e in &index.tables {
        if e.bytes > LARGEST
            || e.unpacked > LARGEST
            || e.rows > e.unpacked
            || Path::new(&e.file).components().count() != 1
        {
            return Err(Error::data(&shown, format!("the entry of table '{}' makes no sense", e.table)));
        }
    }
    Ok(index)
}

/// Where the index keeps the checksum of its own text, eight hexadecimal digits.
const SEAL: &str = "\"crc32\": \"";

/// Whether the text of an index is the one that was written: its checksum, its own digits read as zeros. Line ends do
/// not count.
fn sealed(text: &str) -> Decoded<()> {
    let missing =
        || "has no checksum of itself: not an index of a kernel pack, or that of an older version".to_string();
    let at = text.find(SEAL).ok_or_else(missing)? + SEAL.len();
    let digits = text.get(at..at + 8).ok_or_else(missing)?;
    let said = u32::from_str_radix(digits, 16).map_err(|_| missing())?;
    let plain = format!("{}00000000{}", &text[..at], &text[at + 8..]).replace('\r', "");
    let found = crc32(plain.as_bytes());
    if found != said {
        return Err(format!("checksum is {found:08x}, the file says {said:08x}: it is damaged or was edited"));
    }
    Ok(())
}

/// What an error of this table says before what is wrong.
fn named(entry: &IndexEntry) -> String {
    format!("table {}/{}/{}", entry.framework, entry.version, entry.table)
}

/// Reads, checks and decodes one table.
pub(crate) fn read_table(dir: &Path, entry: &IndexEntry) -> Result<Table> {
    let path = dir.join(&entry.file);
    decode(&unpacked(dir, entry)?, entry)
        .map_err(|message| Error::data(path.display().to_string(), format!("{}: {message}", named(entry))))
}

/// The checked content of a table's frame.
fn unpacked(dir: &Path, entry: &IndexEntry) -> Result<Vec<u8>> {
    let path = dir.join(&entry.file);
    let bad = |message: String| Error::data(path.display().to_string(), format!("{}: {message}", named(entry)));

    let mut file = File::open(&path).map_err(|e| bad(format!("cannot be opened: {e}")))?;
    let held = file.metadata().map_err(|e| bad(format!("cannot be read: {e}")))?.len();
    if entry.offset.checked_add(entry.bytes as u64).is_none_or(|end| end > held) {
        return Err(bad(format!(
            "truncated: needs bytes {} to {}, the file has {held}",
            entry.offset,
            entry.offset.saturating_add(entry.bytes as u64)
        )));
    }
    let mut frame = vec![0; entry.bytes];
    file.seek(SeekFrom::Start(entry.offset))
        .and_then(|_| file.read_exact(&mut frame))
        .map_err(|e| bad(format!("cannot be read: {e}")))?;
    let found = crc32(&frame);
    if found != entry.crc32 {
        return Err(bad(format!("checksum is {found:08x}, the index says {:08x}: the file is damaged", entry.crc32)));
    }
    let mut payload = Vec::with_capacity(entry.unpacked);
    ruzstd::decoding::FrameDecoder::new()
        .decode_all_to_vec(&frame, &mut payload)
        .map_err(|e| bad(format!("cannot be unpacked: {e}")))?;
    Ok(payload)
}

#[derive(Deserialize)]
struct Header {
    rows: usize,
    keys: Vec<KeyHead>,
    measures: Vec<MeasureHead>,
}

#[derive(Deserialize)]
struct KeyHead {
    name: String,
    width: usize,
    /// Number of runs of equal codes, for a column that is stored as runs.
    #[serde(default)]
    runs: Option<usize>,
    #[serde(default)]
    int: Option<Vec<i64>>,
    #[serde(default)]
    text: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct MeasureHead {
    name: String,
    coding: String,
    #[serde(default)]
    width: usize,
}

type Decoded<T> = std::result::Result<T, String>;

/// Takes the next `n` bytes.
fn take<'a>(rest: &mut &'a [u8], n: usize) -> Decoded<&'a [u8]> {
    if n > rest.len() {
        return Err(format!("a column needs {n} bytes where {} are left", rest.len()));
    }
    let (head, tail) = rest.split_at(n);
    *rest = tail;
    Ok(head)
}

fn take_u32(rest: &mut &[u8]) -> Decoded<usize> {
    Ok(take(rest, 4)?.iter().rev().fold(0, |x, &b| x << 8 | usize::from(b)))
}

fn decode(payload: &[u8], entry: &IndexEntry) -> Decoded<Table> {
    let mut rest = payload;
    let length = take_u32(&mut rest)?;
    let header: Header =
        serde_json::from_slice(take(&mut rest, length)?).map_err(|e| format!("its header makes no sense: {e}"))?;
    let n = header.rows;
    if n != entry.rows || n == 0 || header.keys.is_empty() {
        return Err(format!("its header has {n} rows, the index {}", entry.rows));
    }
    let keys = header.keys.into_iter().map(|k| decode_key(&mut rest, k, n)).collect::<Decoded<Vec<TableKey>>>()?;
    let measures = header
        .measures
        .into_iter()
        .map(|m| Ok((m.name.clone(), decode_measure(&mut rest, &m, n)?)))
        .collect::<Decoded<Vec<_>>>()?;
    if !rest.is_empty() {
        return Err(format!("{} bytes are left over", rest.len()));
    }
    Ok(Table {
        system: entry.system.clone(),
        framework: entry.framework.clone(),
        version: entry.version.clone(),
        name: entry.table.clone(),
        keys,
        measures,
        provenance: entry.provenance.clone(),
        ..Table::default()
    })
}

fn decode_key(rest: &mut &[u8], head: KeyHead, n: usize) -> Decoded<TableKey> {
    let stored = Stored { name: &head.name, width: head.width, runs: head.runs };
    match (head.int, head.text) {
        (Some(values), None) => {
            let values = decode_codes(rest, &stored, n, values.len(), |c| values[c])?;
            Ok(TableKey::Int { name: head.name, values })
        }
        (None, Some(labels)) => {
            let codes = decode_codes(rest, &stored, n, labels.len(), |c| c as u16)?;
            Ok(TableKey::Text { name: head.name, codes, labels })
        }
        _ => Err(format!("key column '{}' is neither integers nor text", head.name)),
    }
}

/// How the codes of a key column are stored.
struct Stored<'a> {
    name: &'a str,
    width: usize,
    runs: Option<usize>,
}

/// The values of `n` codes; `value` is only asked for codes below `count`.
fn decode_codes<T: Copy>(
    rest: &mut &[u8],
    stored: &Stored<'_>,
    n: usize,
    count: usize,
    value: impl Fn(usize) -> T,
) -> Decoded<Vec<T>> {
    let name = stored.name;
    let beyond = || format!("key column '{name}' has a code beyond its {count} values");
    let mut out = Vec::with_capacity(n);
    let width = stored.width;
    if width == 0 {
        if count != 1 {
            return Err(beyond());
        }
        out.resize(n, value(0));
        return Ok(out);
    }
    if width > 2 {
        return Err(format!("key column '{name}' has width {width}"));
    }
    let parts = stored.runs.unwrap_or(n);
    if parts > n {
        return Err(format!("key column '{name}' has {parts} runs in {n} rows"));
    }
    let differences = take(rest, width * parts)?;
    let lengths = if stored.runs.is_some() { Some(take(rest, 2 * parts)?) } else { None };
    let mask = if width == 1 { 0xFF } else { 0xFFFF };
    let mut code = 0usize;
    for i in 0..parts {
        let difference = match width {
            1 => usize::from(differences[i]),
            _ => usize::from(u16::from_le_bytes([differences[2 * i], differences[2 * i + 1]])),
        };
        code = (code + difference) & mask;
        if code >= count {
            return Err(beyond());
        }
        match lengths {
            None => out.push(value(code)),
            Some(planes) => {
                let end = out.len() + word(planes, parts, 2, i) as usize;
                if end > n {
                    return Err(format!("key column '{name}' has more than {n} rows"));
                }
                out.resize(end, value(code));
            }
        }
    }
    if out.len() != n {
        return Err(format!("key column '{name}' has {} rows, the table {n}", out.len()));
    }
    Ok(out)
}

fn decode_measure(rest: &mut &[u8], head: &MeasureHead, n: usize) -> Decoded<Vec<f32>> {
    if head.coding == "plain" {
        let planes = take(rest, 4 * n)?;
        return Ok((0..n).map(|i| f32::from_bits(word(planes, n, 4, i))).collect());
    }
    if head.coding != "dict" || !(1..=3).contains(&head.width) {
        return Err(format!("measure '{}' has coding '{}' of width {}", head.name, head.coding, head.width));
    }
    let count = take_u32(rest)?;
    let planes = take(rest, count.saturating_mul(4))?;
    let mut bits = 0u32;
    let distinct: Vec<f32> = (0..count)
        .map(|i| {
            bits = bits.wrapping_add(word(planes, count, 4, i));
            f32::from_bits(bits)
        })
        .collect();
    let planes = take(rest, head.width * n)?;
    let mut out = Vec::with_capacity(n);
    for i in 0..n {
        match distinct.get(word(planes, n, head.width, i) as usize) {
            Some(&v) => out.push(v),
            None => return Err(format!("measure '{}' has an index beyond its {count} values", head.name)),
        }
    }
    Ok(out)
}

/// Word `i` of `n` little-endian words of `width` bytes, stored as byte planes.
fn word(planes: &[u8], n: usize, width: usize, i: usize) -> u32 {
    (0..width).fold(0, |w, p| w | u32::from(planes[p * n + i]) << (8 * p))
}
