//! DeepSeek sparse attention (DSA): whole measured blocks, projections, indexer, top-k, sparse MLA and output.
//!
//! Keyed by architecture, KV format, GEMM format, heads, batch, new tokens and past; `model` and
//! `tp_size` do not matter (repeats: median). A layer that takes another one's picks (a shared indexer) has the rows
//! `*_skip_indexer`, up to top-k the dense ones of all; a framework without such rows has those with an indexer, by the
//! ratio of the two rooflines.
//! Two kernels: up to top-k (2,048) tokens in all the block attends densely, beyond that it indexes;
//! each is a grid of its own, so nothing is blended across the switch. Only sglang measured a dense
//! past axis; trtllm and vllm have {0, 128} and take sglang's growth from there on:
//! T(new, past) = T_lane(new, 128) + [T_sglang(new, past) - T_sglang(new, 128)] of the same system,
//! with sglang's eager launch floors (0.8 and 1.4 ms a layer on b200) taken off first, for they are its
//! own and would add 0.6 ms a layer to lanes that need 0.2.
//!
//! Limit: the architectures that the tables name; picks that repeat between queries save nothing.

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::held::Held;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::{Roofline, Work, kernels};
use crate::kernels::surface::{Node, Surface};
use crate::kernels::table::Table;
use crate::spec::{Dtype, Indexer, Model};

use super::Source;
use super::attention::formats;
use super::latent::{self, Dims};
use super::rows::{Rows, at_heads, bake, compile, compile_held, eager_at_heads, table};

/// Formats of the projections to try, nearest first.
pub(super) fn gemm_types(gemm: Dtype) -> &'static [&'static [&'static str]] {
    const BF16: &[&str] = &["bfloat16"];
    const FP8: &[&str] = &["fp8"];
    const BLOCK: &[&str] = &["fp8_block"];
    const FP4: &[&str] = &["nvfp4"];
    match gemm {
        Dtype::Bf16 | Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4 => &[BF16, BLOCK, FP8],
        Dtype::Fp8 => &[FP8, BLOCK, BF16],
        Dtype::Fp8Block | Dtype::W4a8Mxfp4Mxfp8 => &[BLOCK, FP8, BF16],
        Dtype::Nvfp4 => &[FP4, BLOCK, FP8, BF16],
    }
}

/// Architectures the tables name, by the size of their indexer.
fn architecture(model: &Model, dims: &Dims) -> [String; 3] {
    let (v32, glm) = ("DeepseekV32ForCausalLM".to_string(), "GlmMoeDsaForCausalLM".to_string());
    let big = dims.indexer.is_some_and(|i| i.heads >= 64);
    let (first, second) = if big { (v32, glm) } else { (glm, v32) };
    [model.architecture.clone(), first, second]
}

/// A block as it is asked for.
#[derive(Clone, Copy)]
struct Want<'a> {
    source: &'a Source,
    model: &'a Model,
    dims: &'a Dims,
    heads: u32,
    gemm: Dtype,
    kv: Dtype,
}

impl Want<'_> {
    /// Whether the layer takes the picks of another one's indexer.
    fn shared(&self) -> bool {
        self.dims.indexer.is_some_and(|i| i.shared)
    }

    /// Rows of one lane at all heads, with an indexer or without, and how well they can be known at best.
    fn rows<'t>(&self, t: &'t Table, skip: bool) -> (Rows<'t>, Evidence) {
        let rows = Rows::new(t).text("op_name", |l| l.contains("skip_indexer") == skip);
        let names = architecture(self.model, self.dims);
        let labels: Vec<[&str; 1]> = names.iter().map(|n| [n.as_str()]).collect();
        let labels: Vec<&[&str]> = labels.iter().map(|l| &l[..]).collect();
        let (rows, arch) = rows.first_text("architecture", &labels);
        let (rows, format) = rows.first_text("kv_cache_dtype", &formats(self.kv));
        let (rows, gemm) = rows.first_text("gemm_type", gemm_types(self.gemm));
        // The model's own name or that of its family; the other family only stands in.
        let asked = arch.is_none_or(|r| r < 2) && format == Some(0) && gemm == Some(0);
        (rows, if asked { Evidence::Measured } else { Evidence::Extrapolated })
    }

    /// Points of one lane at the wanted heads, over (batch, isl, step) or (batch, step); whether the lane is an eager one.
    fn points(&self, framework: &str, name: &str, axes: &[(&str, f64)]) -> Result<Option<(Points, bool, String)>> {
        let Some(t) = table(self.source, framework, name)? else { return Ok(None) };
        if self.shared() {
            return Ok(self.shared_points(&t, axes));
        }
        let (rows, fallback) = self.rows(&t, false);
        let points = at_heads(&rows, self.heads, axes, |h| self.roofline(h, axes.len() == 2), fallback);
        let eager = eager_at_heads(&rows, axes, |h| self.roofline(h, axes.len() == 2));
        Ok((!points.is_empty()).then(|| (points, eager, rows.source())))
    }

    /// The same of a layer with a shared indexer.
    fn shared_points(&self, t: &Table, axes: &[(&str, f64)]) -> Option<(Points, bool, String)> {
        let decode = axes.len() == 2;
        let topk = self.dims.indexer.map_or(0.0, |i| f64::from(i.topk));
        let dims = Dims { indexer: self.dims.indexer.map(|i| Indexer { shared: false, ..i }), ..*self.dims };
        let whole = Want { dims: &dims, ..*self };
        let (all, known) = whole.rows(t, false);
        let of_all = at_heads(&all, self.heads, axes, |h| whole.roofline(h, decode), known);
        let (rows, fallback) = self.rows(t, true);
        let mut points = at_heads(&rows, self.heads, axes, |h| self.roofline(h, decode), fallback);
        let (own, with) = (self.roofline(f64::from(self.heads), decode), whole.roofline(f64::from(self.heads), decode));
        let lent = points.is_empty();
        for (x, seconds, evidence) in of_all.iter() {
            if lent {
                points.insert(x, seconds * own.smooth(&x) / with.smooth(&x), Evidence::Extrapolated);
            } else if !decode && x[1] + x[2] <= topk && points.get(&x).is_none() {
                points.insert(x, seconds, evidence);
            }
        }
        let rows = if lent { all } else { rows };
        let eager = eager_at_heads(&rows, axes, |h| self.roofline(h, decode));
        (!points.is_empty()).then(|| (points, eager, rows.source()))
    }

    /// Decode rows at every number of heads as utilisations of `work` (arithmetic and traffic by heads).
    fn held(&self, name: &str, axes: &[(&str, f64)], work: &dyn Fn(f64) -> Work) -> Result<Option<Held>> {
        let Some(t) = table(self.source, &self.source.framework, name)? else { return Ok(None) };
        let (rows, _) = self.rows(&t, false);
        let sites = rows.sites(["num_heads"]);
        let sites = sites.iter().map(|(h, _)| (h[0] as f64, rows.clone().int("num_heads", h[0]).points(axes)));
        // The tables count the tokens before the new one.
        Ok(Some(Held::new(sites, work, f64::from(self.heads), [0.0, 1.0, 0.0])))
    }

    fn roofline(&self, heads: f64, decode: bool) -> Roofline {
        let block = latent::block(&self.source.device, self.dims, heads, self.gemm, self.kv, decode);
        let work = if decode { Work::BlockDecode(block) } else { Work::BlockContext(block) };
        Roofline { work, launch: kernels::DSA * self.source.device.launch_s }
    }
}

/// The two kernels of a prefill lane, each a grid of its own.
fn regimes(points: &Points, roofline: Roofline, floors: Floors, topk: f64, lane: &str) -> (Node, Vec<String>) {
    let recipe = Recipe { scales: vec![Scale::Linear; 3], roofline, floors };
    let dense = points.filter(|x| x[1] + x[2] <= topk);
    let sparse = points.filter(|x| x[1] + x[2] > topk);
    if dense.is_empty() || sparse.is_empty() {
        let one = compile(points, &recipe, lane);
        return (one.node().clone(), one.dropped().to_vec());
    }
    // A lane whose smallest indexed chunk already is real work has no floor there to see.
    let small = sparse.iter().next().is_some_and(|p| roofline.least(&p.0) <= 3.0 * roofline.launch);
    let above = compile(&sparse, &Recipe { floors: if small { floors } else { Floors::None }, ..recipe.clone() }, lane);
    // With many sequences and few new tokens sglang's dense kernel costs up to 4x its sparse one at the
    // switch (64 x 4 new over 1,536: 5.4 ms, over 2,048: 1.4 ms). More tokens must not cost less: there
    // the dense times are capped.
    let below = compile(&dense, &recipe, lane);
    let mut dropped = below.dropped().to_vec();
    dropped.extend_from_slice(above.dropped());
    let mut capped = Points::default();
    for (x, _, _) in dense.iter() {
        let r = below.node().eval(&x);
        let bound = above.node().eval(&[x[0], x[1], topk - x[1]]).seconds;
        if r.seconds > 1.15 * bound {
            capped.insert(x, bound / 0.95, r.evidence.max(Evidence::Interpolated));
        } else {
            capped.insert(x, r.seconds, r.evidence);
        }
    }
    // The floors are off already.
    let below = compile(&capped, &Recipe { floors: Floors::None, ..recipe }, lane);
    let (below, above) = (Box::new(below.node().clone()), Box::new(above.node().clone()));
    (Node::Regimes { split: topk, below, above }, dropped)
}

/// Past nodes of a lane that takes sglang's increments: sglang's own steps.
const PASTS: [f64; 16] = [
    256.0, 512.0, 1024.0, 1536.0, 2048.0, 3072.0, 4096.0, 6144.0, 8192.0, 10_240.0, 12_288.0, 16_384.0, 32_768.0,
    65_536.0, 131_072.0, 163_840.0,
];

const CONTEXT: [(&str, f64); 3] = [("batch_size", 0.0), ("isl", 0.0), ("step", 0.0)];

pub(super) fn context(
    source: &Source,
    model: &Model,
    dims: &Dims,
    heads: u32,
    gemm: Dtype,
    kv: Dtype,
) -> Result<Surface> {
    let name = "dsa_context_module";
    let topk = dims.indexer.map_or(f64::INFINITY, |i| f64::from(i.topk));
    let want = Want { source, model, dims, heads, gemm, kv };
    let floor = want.roofline(f64::from(heads), false);
    let fetch = |framework: &str| want.points(framework, name, &CONTEXT);
    let Some((own, eager, lane)) = fetch(&source.framework)? else {
        return Ok(Surface::new(Node::Roofline(floor), format!("roofline ({} {name})", source.framework), Vec::new()));
    };
    let (node, dropped) = regimes(&own, floor, Floors::new(eager, source.graph), topk, &lane);
    let anchor = own.iter().map(|p| p.0[2]).fold(0.0, f64::max);
    let surface = Surface::new(node.clone(), lane.clone(), dropped);
    // A dense past axis reaches tens of thousands of tokens; {0, 128} is none.
    if anchor > 1024.0 {
        return Ok(surface);
    }
    let (donor, donor_lane) = match fetch("sglang")? {
        Some((points, eager, lane)) => (regimes(&points, floor, Floors::new(eager, true), topk, &lane).0, lane),
        None => (Node::Roofline(floor), "roofline".to_string()),
    };
    let node = Node::Increment { lane: Box::new(node), donor: Box::new(donor), anchor };
    let mut pasts: Vec<f64> = PASTS.into_iter().filter(|&p| p > anchor).collect();
    pasts.splice(0..0, if anchor > 0.0 { vec![0.0, anchor] } else { vec![0.0] });
    let (node, _) = regimes(&bake(&node, &own, &pasts), floor, Floors::None, topk, &lane);
    Ok(surface.with(node, format!("{lane}, past beyond {anchor} by increments of {donor_lane}")))
}

/// `held`: arithmetic and traffic by heads, whose utilisation is held where no row is.
pub(super) fn generation(
    source: &Source,
    model: &Model,
    dims: &Dims,
    heads: u32,
    gemm: Dtype,
    kv: Dtype,
    held: Option<&dyn Fn(f64) -> Work>,
) -> Result<Surface> {
    let name = "dsa_generation_module";
    let want = Want { source, model, dims, heads, gemm, kv };
    let floor = want.roofline(f64::from(heads), true);
    let axes = [("batch_size", 0.0), ("step", 0.0)];
    let Some((points, eager, lane)) = want.points(&source.framework, name, &axes)? else {
        return Ok(Surface::new(Node::Roofline(floor), format!("roofline ({} {name})", source.framework), Vec::new()));
    };
    let recipe = Recipe {
        scales: vec![Scale::Linear, Scale::Linear],
        roofline: floor,
        floors: Floors::new(eager, source.graph),
    };
    let held = match held {
        Some(work) => want.held(name, &axes, work)?,
        None => None,
    };
    Ok(compile_held(&points, &recipe, &lane, held.as_ref()))
}
