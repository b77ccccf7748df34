//! The surfaces that mixers are made from: products, attention kernels of a rank, elementwise work.
//!
//! Limit: a surface is of one rank and of one format as the tables name it.

use std::sync::Arc;

use super::{Library, SurfaceKey};
use crate::cost::program::{Heads, Make, Surfaces};
use crate::cost::published;
use crate::error::{Error, Result};
use crate::kernels::Surface;
use crate::kernels::ops::{self, Source};
use crate::spec::assumptions::{BeyondTables, WideAttention};
use crate::spec::dtype::Formats;
use crate::spec::{Assumptions, Attention, Dtype, Model, OwnMixer, Quant};

impl Surfaces for Library {
    fn model(&self) -> &Model {
        &self.model
    }

    fn formats(&self) -> &Formats {
        &self.formats
    }

    fn quant(&self) -> &Quant {
        &self.quant
    }

    fn assumptions(&self) -> &Assumptions {
        &self.assumptions
    }

    fn gemm(&self, decode: bool, dtype: Dtype, n: u32, k: u32) -> Result<Arc<Surface>> {
        let graph = self.graph(decode);
        self.kernel(SurfaceKey::Gemm { graph, dtype, n, k }, graph, |source| ops::gemm(source, dtype, n, k))
    }

    fn generation(&self, tp: u32, window: u32) -> Result<Arc<Surface>> {
        self.kernel(SurfaceKey::Generation { tp, window }, self.graph(true), |source| match &self.model.attention {
            Attention::Gqa { heads, kv_heads, head_dim, .. } => ops::generation_attention(
                source,
                heads / tp,
                (kv_heads / tp).max(1),
                *head_dim,
                window,
                self.formats.kv,
            ),
            Attention::Mla { heads, .. } => {
                let (heads, gemm, kv) = (heads / tp, self.formats.attention_gemm, self.formats.kv);
                let work = |h: f64| published::sparse_decode_work(&source.device, &self.model, gemm, kv, h);
                match (self.assumptions.beyond_tables, work(1.0)) {
                    (BeyondTables::Utilisation, Some(one)) => {
                        let work = |h: f64| work(h).unwrap_or(one);
                        ops::sparse_generation_held(source, &self.model, heads, gemm, kv, &work)
                    }
                    _ => ops::mla_generation(source, &self.model, heads, gemm, kv),
                }
            }
            Attention::Own(own) => Err(not_softmax(own)),
        })
    }

    fn context(&self, tp: u32, window: u32) -> Result<Arc<Surface>> {
        let graph = self.graph(false);
        self.kernel(SurfaceKey::Context { tp, window, graph }, graph, |source| match &self.model.attention {
            Attention::Gqa { heads, kv_heads, head_dim, .. } => ops::context_attention(
                source,
                heads / tp,
                (kv_heads / tp).max(1),
                *head_dim,
                window,
                self.formats.attention,
                self.formats.kv,
            ),
            Attention::Mla { heads, .. }
                if self.assumptions.wide_attention == WideAttention::WideEp
                    && self.formats.attention == Dtype::Fp8Block =>
            {
                ops::mla_context_wide(source, &self.model, heads / tp, self.formats.attention_gemm, self.formats.kv)
            }
            Attention::Mla { heads, .. } => {
                ops::mla_context(source, &self.model, heads / tp, self.formats.attention_gemm, self.formats.kv)
            }
            Attention::Own(own) => Err(not_softmax(own)),
        })
    }

    fn decode_heads(&self, h: Heads) -> Result<Arc<Surface>> {
        self.kernel(SurfaceKey::DecodeHeads(h), self.graph(true), |source| {
            ops::generation_attention(source, h.heads, h.kv_heads, h.head_dim, h.window, self.formats.kv)
        })
    }

    fn prompt_heads(&self, h: Heads) -> Result<Arc<Surface>> {
        let (graph, formats) = (self.graph(false), &self.formats);
        self.kernel(SurfaceKey::PromptHeads { heads: h, graph }, graph, |source| {
            let (attention, kv) = (formats.attention, formats.kv);
            ops::context_attention(source, h.heads, h.kv_heads, h.head_dim, h.window, attention, kv)
        })
    }

    fn latent_block(&self, attention: &Attention, tp: u32, decode: bool) -> Result<Arc<Surface>> {
        let shared = matches!(attention, Attention::Mla { indexer: Some(i), .. } if i.shared);
        let graph = self.graph(decode);
        let model = Model { attention: attention.clone(), ..self.model.clone() };
        let (heads, gemm, kv) = (attention.heads() / tp, self.formats.attention_gemm, self.formats.kv);
        self.kernel(SurfaceKey::LatentBlock { shared, tp, decode, graph }, graph, |source| match decode {
            true => ops::mla_generation(source, &model, heads, gemm, kv),
            false => ops::mla_context(source, &model, heads, gemm, kv),
        })
    }

    fn own(&self, mixer: &OwnMixer, ranks: u32, decode: bool, make: &Make) -> Result<Arc<Surface>> {
        let graph = self.graph(decode);
        let key = SurfaceKey::Own { mixer: mixer.clone(), ranks, decode, graph, whole: false };
        self.kernel(key, graph, make)
    }

    fn block(&self, mixer: &OwnMixer, ranks: u32, decode: bool, make: &Make) -> Result<Option<Arc<Surface>>> {
        let graph = self.graph(decode);
        let key = SurfaceKey::Own { mixer: mixer.clone(), ranks, decode, graph, whole: true };
        Ok(Some(self.kernel(key, graph, make)?).filter(|s| s.is_measured()))
    }

    fn memory(&self, decode: bool) -> Surface {
        // A roofline on every device.
        ops::memory(&Source { device: self.cluster.device.clone(), ..self.source(self.graph(decode)).clone() })
    }
}

/// Kinds of their own make their kernels themselves.
fn not_softmax(own: &OwnMixer) -> Error {
    Error::spec("model.attention", format!("{} has kernels of its own", own.name()), "")
}
