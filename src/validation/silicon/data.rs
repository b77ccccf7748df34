//! The silicon sample as it was published: 5,221 rows, nothing corrected.
//!
//! `silicon_sample.csv` of aiconfigurator-core 0.12.0 (Apache-2.0), packed by
//! `tests/bench/build_silicon.py`.
//!
//! Limit: labels as published, wrong ones included; they are read by rules in `labels`.

use crate::error::{Error, Result};
use crate::spec::Framework;

static PACKED: &[u8] = include_bytes!("../../../python/disagg/data/validation/silicon.tsv.zst");
const PATH: &str = "validation/silicon.tsv.zst";
/// Unpacked size, with room to spare.
const UNPACKED: usize = 2 << 20;

/// Sizes of one worker as labelled; empty cells are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub tp: Option<u32>,
    pub pp: Option<u32>,
    pub dp: Option<u32>,
    pub moe_tp: Option<u32>,
    pub moe_ep: Option<u32>,
}

/// One measured point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    pub id: String,
    /// Requests in flight, where the source states them.
    pub concurrency: Option<f64>,
    /// Whether it comes from an InferenceX export (else: another benchmark client).
    pub inferencex: bool,
    pub framework: Framework,
    /// As the image names it; empty where it does not.
    pub version: String,
    /// Day of the measurement, as 2026-02-07; empty where it is not said.
    pub measured: String,
    pub model: String,
    pub system: String,
    pub precision: String,
    pub disagg: bool,
    pub isl: f64,
    pub osl: f64,
    pub gemm: String,
    pub batch: Option<f64>,
    pub sizes: Sizes,
    pub prefill_workers: Option<u32>,
    pub prefill: Sizes,
    pub decode_workers: Option<u32>,
    pub decode: Sizes,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

pub(super) struct Cells<'a> {
    pub names: &'a [&'a str],
    pub cells: Vec<&'a str>,
}

impl<'a> Cells<'a> {
    pub(crate) fn text(&self, name: &str) -> &'a str {
        self.names.iter().position(|n| *n == name).and_then(|i| self.cells.get(i)).copied().unwrap_or("")
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let cell = self.text(name);
        if cell.is_empty() {
            return Ok(None);
        }
        cell.parse().map(Some).map_err(|_| Error::data(PATH, format!("'{cell}' is no number ({name})")))
    }

    fn must<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        self.number(name)?.ok_or_else(|| Error::data(PATH, format!("a row without {name}")))
    }

    fn sizes(&self, prefix: &str) -> Result<Sizes> {
        let size = |name: &str| self.number(&format!("{prefix}{name}"));
        Ok(Sizes {
            tp: size("tp_size")?,
            pp: size("pp_size")?,
            dp: size("attention_dp_size")?,
            moe_tp: size("moe_tp_size")?,
            moe_ep: size("moe_ep_size")?,
        })
    }

    fn row(&self) -> Result<Raw> {
        Ok(Raw {
            id: self.text("id").into(),
            concurrency: self.number("concurrency")?,
            inferencex: self.text("collection") == "inferencex",
            framework: Framework::asked(self.text("backend"), "backend")?,
            version: self.text("backend_version").into(),
            measured: self.text("measured").into(),
            model: self.text("model_path").into(),
            system: self.text("system").into(),
            precision: self.text("precision").into(),
            disagg: self.text("mode") == "disagg",
            isl: self.must("isl")?,
            osl: self.must("osl")?,
            gemm: self.text("gemm_quant_mode").into(),
            batch: self.number("batch_size")?,
            sizes: self.sizes("")?,
            prefill_workers: self.number("prefill_num_workers")?,
            prefill: self.sizes("prefill_")?,
            decode_workers: self.number("decode_num_workers")?,
            decode: self.sizes("decode_")?,
            ttft_ms: self.must("silicon_ttft_ms")?,
            tpot_ms: self.must("silicon_tpot_ms")?,
        })
    }
}

/// The text of a table that was packed.
pub(super) fn unpack(packed: &[u8], room: usize, path: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(room);
    ruzstd::decoding::FrameDecoder::new()
        .decode_all_to_vec(packed, &mut bytes)
        .map_err(|e| Error::data(path, format!("cannot be unpacked: {e}")))?;
    String::from_utf8(bytes).map_err(|_| Error::data(path, "is not text"))
}

/// Every row, in the order of the file.
pub fn load() -> Result<Vec<Raw>> {
    let text = unpack(PACKED, UNPACKED, PATH)?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split('\t').collect();
    lines.map(|l| Cells { names: &names, cells: l.split('\t').collect() }.row()).collect()
}
