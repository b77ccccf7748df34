//! Layers that keep a running state (gated DeltaNet): the convolution before it and the rule itself, of one rank.
//!
//! Axes: prefill sequences, new tokens of each; decode sequences. The time does not hang on what came before. Where rows were
//! measured (`gdn`, `kda`), each kernel has a grid and the two are added; heads that were not measured are blended from the two
//! nearest numbers of value heads at equal keys a value. Where a framework has a kernel that does both, at some heads at
//! least, one grid has its rows, and the sums of the two where it has none. Else a roofline, tagged as one:
//!
//! ```text
//! decode   sequences (2 state) / bandwidth          prefill  tokens (4 k v + 2 C (k + v)) heads / FLOP/s, with traffic of
//!                                                            the convolved columns in and out and one state a sequence
//! ```
//!
//! with chunks of C = 64 tokens (arXiv:2412.06464, section 3.3). Limits: draft tokens count as sequences.

use std::sync::Arc;

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::{self, Roofline, Work, kernels::ATTENTION};
use crate::kernels::surface::{Node, Surface};
use crate::kernels::table::Table;
use crate::spec::mixers as measured;
use crate::spec::{Device, Dtype, Running};

use super::Source;
use super::rows::{Rows, Site, blend, bracket, compile, table};

/// Tokens that a prefill kernel works on at once.
const CHUNK: f64 = 64.0;

/// Kernels of both in one, as the tables name them.
const WHOLE: [&str; 2] = ["kda_fused_decode", "fused_kda_decode"];

/// The two kernels of a layer, and both as one.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    Convolution,
    Rule,
    Both,
}

impl Kernel {
    /// Whether a row of this source is one of it.
    fn is(self, source: &str) -> bool {
        match self {
            Kernel::Both => WHOLE.contains(&source),
            _ if WHOLE.contains(&source) => false,
            part => source.contains("conv") == (part == Kernel::Convolution),
        }
    }

    /// Its points among the rows of some heads.
    fn points(self, rows: &Rows, axes: &[(&str, f64)]) -> Points {
        let of = |part: Kernel| rows.clone().text("kernel_source", |k| part.is(k)).points(axes);
        let own = of(self);
        if self != Kernel::Both || !own.is_empty() {
            return own;
        }
        let convolution = of(Kernel::Convolution);
        let mut sums = Points::default();
        for (x, seconds, evidence) in of(Kernel::Rule).iter() {
            if let Some(more) = convolution.get(&x) {
                sums.insert(x, seconds + more, evidence);
            }
        }
        sums
    }
}

/// The work of `share` of a layer's heads.
fn roof(device: &Device, r: &Running, share: f64, kernel: Kernel, decode: bool) -> Roofline {
    if kernel == Kernel::Both {
        let parts = [Kernel::Convolution, Kernel::Rule].map(|part| roof(device, r, share, part, decode));
        return Roofline { work: both(&parts), launch: parts[0].launch + parts[1].launch };
    }
    let bw = roofline::bandwidth(device);
    let columns = share * r.convolved;
    let state = share * f64::from(r.heads) * r.head_state;
    let side = r.head_state.sqrt();
    let window = f64::from(r.conv.saturating_sub(1));
    let work = match (kernel, decode) {
        // Read and write what the convolution keeps, the new column in and out (BF16).
        (Kernel::Convolution, true) => {
            Work::Running { sequence: columns * (2.0 * window + 2.0) * 2.0 / bw, math: 0.0, token: 0.0 }
        }
        (Kernel::Convolution, false) => {
            Work::Running { sequence: columns * window * 2.0 / bw, math: 0.0, token: columns * 4.0 / bw }
        }
        // The state in and out in FP32.
        (Kernel::Rule, true) => Work::Running { sequence: state * 8.0 / bw, math: 0.0, token: 0.0 },
        (Kernel::Rule, false) => {
            let rate = roofline::flops(device, Dtype::Bf16);
            let heads = share * f64::from(r.heads);
            let math = heads * (4.0 * r.head_state + 4.0 * CHUNK * side) / rate;
            Work::Running { sequence: state * 4.0 / bw, math, token: (columns + share * r.columns_out) * 2.0 / bw }
        }
        (Kernel::Both, _) => both(&[]),
    };
    Roofline { work, launch: ATTENTION * device.launch_s }
}

/// The work of some kernels together.
fn both(parts: &[Roofline]) -> Work {
    let (mut sequence, mut math, mut token) = (0.0, 0.0, 0.0);
    for part in parts {
        if let Work::Running { sequence: s, math: m, token: t } = part.work {
            (sequence, math, token) = (sequence + s, math + m, token + t);
        }
    }
    Work::Running { sequence, math, token }
}

/// Points of one kernel at these heads, and their source.
fn kernel(
    source: &Source,
    r: &Running,
    own: &measured::Rows,
    ranks: u32,
    share: f64,
    kernel: Kernel,
    decode: bool,
) -> Result<(Node, String)> {
    let heads = [own.keys, own.values].map(|n| (n / ranks).max(1));
    let device = &source.device;
    let floor = roof(device, r, share, kernel, decode);
    let bare = || (Node::Roofline(floor), format!("roofline ({})", own.table));
    let Some(t) = table(source, &source.framework, own.table)? else { return Ok(bare()) };
    let phase = phase(decode);
    let rows = Rows::new(&t).text("phase", |p| p == phase);
    let named = rows.clone().text("kernel_source", |k| kernel.is(k));
    let rows = if kernel == Kernel::Both { rows } else { named.clone() };
    let measured: Vec<(i64, i64)> =
        rows.sites(["num_k_heads", "num_v_heads"]).iter().map(|s| (s.0[0], s.0[1])).collect();
    if measured.is_empty() {
        return Ok(bare());
    }
    let [keys, values] = heads.map(f64::from);
    let off = |s: &(i64, i64)| ((s.1 as f64 / s.0 as f64) / (values / keys)).ln().abs();
    let least = measured.iter().map(off).fold(f64::INFINITY, f64::min);
    let mut same: Vec<(i64, i64)> = measured.into_iter().filter(|s| off(s) <= least + 1e-9).collect();
    same.sort_unstable_by_key(|s| s.1);
    let counts: Vec<f64> = same.iter().map(|s| s.1 as f64).collect();
    let (low, high, w, mut evidence) = bracket(&counts, values);
    if least > 1e-9 {
        evidence = Evidence::Extrapolated;
    }
    let axes: &[(&str, f64)] = if decode { &[("batch_size", 0.0)] } else { &[("batch_size", 0.0), ("seq_len", 0.0)] };
    let sites: Vec<Site> = [(low, 1.0 - w), (high, w)]
        .into_iter()
        .filter(|s| s.1 > 0.0)
        .map(|(i, weight)| Site {
            points: kernel.points(&rows.clone().int("num_k_heads", same[i].0).int("num_v_heads", same[i].1), axes),
            roofline: roof(device, r, share * counts[i] / values, kernel, decode),
            weight,
        })
        .collect();
    let points = blend(&sites, &floor, evidence);
    let recipe = Recipe { scales: vec![Scale::Linear; axes.len()], roofline: floor, floors: Floors::None };
    let surface = compile(&points, &recipe, &if named.is_empty() { rows.source() } else { named.source() });
    Ok((surface.node().clone(), surface.source().to_string()))
}

/// Whether a framework has a kernel that does both.
fn has_whole(source: &Source, name: &str, decode: bool) -> Result<bool> {
    let phase = phase(decode);
    let whole = |t: Arc<Table>| {
        let rows = Rows::new(&t).text("phase", |p| p == phase).text("kernel_source", |k| Kernel::Both.is(k));
        !rows.is_empty()
    };
    Ok(table(source, &source.framework, name)?.is_some_and(whole))
}

fn phase(decode: bool) -> &'static str {
    if decode { "generation" } else { "context" }
}

/// Both kernels of a layer that keeps a running state, on one of `ranks` that share its heads; axes: sequences, and for
/// prefill new tokens.
pub fn running(source: &Source, r: &Running, ranks: u32, decode: bool) -> Result<Surface> {
    let share = 1.0 / f64::from(ranks.max(1));
    let of = |part| match r.rows {
        Some(rows) => kernel(source, r, &rows, ranks, share, part, decode),
        None => Ok((Node::Roofline(roof(&source.device, r, share, part, decode)), String::new())),
    };
    let whole = r.rows.map(|rows| has_whole(source, rows.table, decode)).transpose()?;
    if whole == Some(true) {
        let (node, name) = of(Kernel::Both)?;
        return Ok(Surface::new(node, name, Vec::new()));
    }
    let (rule, convolution) = (of(Kernel::Rule)?, of(Kernel::Convolution)?);
    let name = if rule.1.is_empty() { "roofline (running state)".to_string() } else { rule.1 };
    Ok(Surface::new(Node::Sum(vec![rule.0, convolution.0]), name, Vec::new()))
}
