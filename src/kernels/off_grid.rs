//! Points between and beyond the rows of a lane, for the string-keyed lookup.
//!
//! Tables that a layer program is priced from are asked through the very operators that price it
//! (`kernels::ops`), so a lookup and an engine never disagree. The rest (collectives, single MLA
//! kernels, quantisation) are interpolated as they are, over at most three axes: times linearly
//! inside, and beyond the last point of the first axis with the slope of its last octave.
//!
//! Limit: at most three free axes, and no interpolation between values of text.

use std::collections::BTreeMap;

use super::db::KernelDb;
use super::evidence::{Evidence, Reading};
use super::grid::Scale;
use super::grid::build::build;
use super::grid::lattice::{Floors, Recipe};
use super::grid::points::Points;
use super::ops::{self, ExpertShape, Source};
use super::roofline::{Roofline, Work};
use super::surface::Surface;
use super::table::{Table, TableKey};
use crate::error::{Error, Result};
use crate::spec::{Dtype, catalog};

/// One lane of a table around a point that is not in it.
pub(super) struct TableLane<'a> {
    pub table: &'a Table,
    /// Rows of the lane; they agree in every key column but the free ones.
    pub rows: &'a [u32],
    /// Key columns along which the point lies off the grid.
    pub free: &'a [usize],
    /// Coordinates by key column; codes for text.
    pub given: &'a BTreeMap<usize, f64>,
}

/// Surfaces compiled for earlier points of one batch, by what they were compiled for.
pub(super) type Cache = BTreeMap<String, Surface>;

impl TableLane<'_> {
    fn number(&self, column: &str) -> Option<f64> {
        let k = self.table.key_index(column)?;
        match self.given.get(&k) {
            Some(&x) => Some(x),
            None if self.free.contains(&k) => None,
            None => self.rows.first().map(|&r| self.table.keys[k].code(r as usize) as f64),
        }
    }

    fn whole(&self, column: &str) -> Option<u32> {
        self.number(column).filter(|x| x.fract() == 0.0 && (0.0..4e9).contains(x)).map(|x| x as u32)
    }

    fn text(&self, column: &str) -> Option<&str> {
        let k = self.table.key_index(column)?;
        match &self.table.keys[k] {
            TableKey::Text { codes, labels, .. } => Some(&labels[usize::from(codes[*self.rows.first()? as usize])]),
            TableKey::Int { .. } => None,
        }
    }

    fn dtype(&self, column: &str) -> Option<Dtype> {
        let label = self.text(column)?;
        Dtype::named(label)
    }

    /// The answer of the operator this table belongs to; none where there is none, or where the
    /// system has no data sheet.
    ///
    /// `only`: the operator must not look at other rows of this table than those of the lane's text
    /// keys (a kernel source or version was named).
    pub(super) fn by_operator(
        &self,
        db: &KernelDb,
        only: bool,
        cache: &mut Cache,
    ) -> Result<Option<(Reading, String)>> {
        let Some((label, x)) = self.shape() else { return Ok(None) };
        if let Some(surface) = cache.get(&label) {
            return Ok(Some((surface.at(&x), surface.source().to_string())));
        }
        let Ok((device, _)) = catalog::system(&self.table.system) else { return Ok(None) };
        let source = Source {
            db: db.overlaid(if only { vec![self.same_texts()] } else { Vec::new() }),
            system: self.table.system.clone(),
            framework: self.table.framework.clone(),
            device,
            graph: false,
            by_rule: false,
        };
        let Some(surface) = self.compile(&source)? else { return Ok(None) };
        let answer = (surface.at(&x), surface.source().to_string());
        cache.insert(label, surface);
        Ok(Some(answer))
    }

    /// What an operator is compiled for, and the point on its axes.
    fn shape(&self) -> Option<(String, Vec<f64>)> {
        let axes: &[(&str, f64)] = match self.table.name.as_str() {
            "gemm" => &[("m", 0.0)],
            "moe" | "wideep_context_moe" | "wideep_generation_moe" => &[("num_tokens", 0.0)],
            "context_attention" | "mla_context_module" | "dsa_context_module" => {
                &[("batch_size", 0.0), ("isl", 0.0), ("step", 0.0)]
            }
            // The new token sees itself, the tables count the tokens before it.
            "generation_attention" => &[("batch_size", 0.0), ("step", 1.0)],
            "mla_generation_module" | "dsa_generation_module" => &[("batch_size", 0.0), ("step", 0.0)],
            _ => return None,
        };
        if self.text("op_name").is_some_and(|op| op.ends_with("_skip_indexer")) {
            return None;
        }
        let x = axes.iter().map(|(name, shift)| Some(self.number(name)? + shift)).collect::<Option<Vec<f64>>>()?;
        let rest: Vec<String> = (0..self.table.keys.len())
            .filter(|&k| !axes.iter().any(|(a, _)| *a == self.table.keys[k].name()))
            .map(|k| match (&self.table.keys[k], self.given.get(&k)) {
                (key @ TableKey::Int { .. }, None) => {
                    self.rows.first().map(|&r| key.code(r as usize)).unwrap_or(0).to_string()
                }
                (TableKey::Int { .. }, Some(x)) => x.to_string(),
                (key, _) => self.text(key.name()).unwrap_or_default().to_string(),
            })
            .collect();
        Some((rest.join("/"), x))
    }

    fn compile(&self, source: &Source) -> Result<Option<Surface>> {
        let compiled = match self.table.name.as_str() {
            "gemm" => match (self.dtype("gemm_dtype"), self.whole("n"), self.whole("k")) {
                (Some(dtype), Some(n), Some(k)) => Some(ops::gemm(source, dtype, n, k)?),
                _ => None,
            },
            "context_attention" | "generation_attention" => self.attention(source)?,
            "moe" | "wideep_context_moe" | "wideep_generation_moe" => self.experts(source)?,
            _ => self.module(source)?,
        };
        Ok(compiled)
    }

    fn attention(&self, source: &Source) -> Result<Option<Surface>> {
        let size = ["num_heads", "num_key_value_heads", "head_dim", "window_size"].map(|c| self.whole(c));
        let ([Some(heads), Some(kv_heads), Some(head_dim), Some(window)], Some(kv)) =
            (size, self.dtype("kv_cache_dtype"))
        else {
            return Ok(None);
        };
        if self.table.name == "generation_attention" {
            return ops::generation_attention(source, heads, kv_heads, head_dim, window, kv).map(Some);
        }
        let Some(attention) = self.dtype("attn_dtype") else { return Ok(None) };
        ops::context_attention(source, heads, kv_heads, head_dim, window, attention, kv).map(Some)
    }

    fn experts(&self, source: &Source) -> Result<Option<Surface>> {
        let size =
            ["hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"].map(|c| self.whole(c));
        let [Some(hidden), Some(intermediate), Some(topk), Some(experts), Some(moe_tp), Some(ep)] = size else {
            return Ok(None);
        };
        let gated = !self.text("kernel_source").is_some_and(|k| k.contains("nongated"));
        let (Some(dtype), Some(load)) = (self.dtype("moe_dtype"), self.text("distribution")) else { return Ok(None) };
        let shape = ExpertShape { hidden, intermediate, topk, experts, moe_tp, ep, gated };
        match self.table.name.as_str() {
            "moe" => ops::moe(source, shape, dtype, load).map(Some),
            name => ops::grouped_moe(source, shape, dtype, load, name == "wideep_generation_moe"),
        }
    }

    /// Whole attention blocks, of the preset model that has the architecture.
    fn module(&self, source: &Source) -> Result<Option<Surface>> {
        let model = match self.text("architecture") {
            Some("DeepseekV32ForCausalLM") => catalog::model("deepseek-ai/DeepSeek-V3.2")?,
            Some("GlmMoeDsaForCausalLM") => catalog::model("zai-org/GLM-5")?,
            Some("DeepseekV3ForCausalLM") => catalog::model("deepseek-ai/DeepSeek-V3")?,
            _ => return Ok(None),
        };
        let (Some(heads), Some(gemm), Some(kv)) =
            (self.whole("num_heads"), self.dtype("gemm_type"), self.dtype("kv_cache_dtype"))
        else {
            return Ok(None);
        };
        if self.table.name.contains("generation") {
            ops::mla_generation(source, &model, heads, gemm, kv).map(Some)
        } else {
            ops::mla_context(source, &model, heads, gemm, kv).map(Some)
        }
    }

    /// The table with only the rows that share the lane's text keys.
    fn same_texts(&self) -> Table {
        let first = self.rows.first().map_or(0, |&r| r as usize);
        let source = self.table.key_index("kernel_source");
        let codes = (0..self.table.keys.len())
            // A lane may hold two kernels along its axis unless one was named.
            .filter(|k| self.table.keys[*k].is_text() && (Some(*k) != source || self.given.contains_key(k)))
            .map(|k| (k, self.table.keys[k].code(first)))
            .collect();
        self.table.subset(&self.table.select(&codes))
    }

    /// Interpolates the rows as they are; `seconds` holds the time of each.
    pub(super) fn by_rows(&self, seconds: &[f64]) -> Result<Reading> {
        let mut axes: Vec<usize> = self.free.to_vec();
        let beyond = |k: usize| self.table.distinct(k, self.rows).last().is_some_and(|&l| self.given[&k] > l as f64);
        // The slope goes on along the first axis only.
        axes.sort_by_key(|&k| !beyond(k));
        let last = axes.first().and_then(|&k| self.table.distinct(k, self.rows).pop());
        let (Some(last), true) = (last, axes.len() <= 3) else { return Err(self.not_a_grid_point()) };
        let place = |at: &dyn Fn(usize) -> f64| {
            let mut x = [0.0; 3];
            for (to, &k) in x.iter_mut().zip(&axes) {
                *to = at(k);
            }
            x
        };
        let mut points = Points::default();
        for (&r, &s) in self.rows.iter().zip(seconds) {
            points.insert(place(&|k| self.table.keys[k].code(r as usize) as f64), s, Evidence::Measured);
        }
        // No data sheet to compare with: an affine yardstick, flat within the first half of the axis.
        let unit = 1e-18;
        let work = Work::Linear { math: 0.0, memory0: unit * 0.5 * (last as f64).max(1.0), memory: unit };
        let recipe = Recipe {
            scales: vec![Scale::Linear; axes.len()],
            roofline: Roofline { work, launch: 0.0 },
            floors: Floors::None,
        };
        match build(&points, &recipe) {
            Some((grid, _)) => Ok(grid.eval(&place(&|k| self.given[&k]))),
            None => Err(self.not_a_grid_point()),
        }
    }

    fn not_a_grid_point(&self) -> Error {
        let keys = &self.table.keys;
        let at: Vec<String> = self.free.iter().map(|&k| format!("{}={}", keys[k].name(), self.given[&k])).collect();
        let why = format!("not a row of table '{}', which is interpolated over at most three keys", self.table.name);
        Error::spec(at.join(", "), why, "give measured values for some of them")
    }
}
