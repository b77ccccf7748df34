//! Who is busy when: a stretch of the AFD schedule, written down.
//!
//! The events of the pipeline (pipeline, half_duplex) once more, slow and plain, with every
//! interval kept: jobs are served in the order in which they become ready, F2A before A2F on ties
//! (attention groups with equal micro-batches come in turn).
//! Limits: the stretch starts a few layers after an empty pipeline, not in the exact steady state.

use super::pipeline::{Rows, Stages};
use crate::spec::choices;

/// One stage of one micro-batch at one layer, seconds from the start of the stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    pub stage: Stage,
    /// Of its group.
    pub microbatch: usize,
    /// Attention group.
    pub group: usize,
    pub layer: u32,
    pub start: f64,
    pub end: f64,
}

choices! {
    /// The stages of a layer, in their order.
    Stage {
        Attention = "attention",
        A2f = "a2f",
        Ffn = "ffn",
        F2a = "f2a",
    }
}

/// Ties: what frees or feeds the link first, then F2A before A2F.
const RANK: [usize; 4] = [2, 3, 0, 1];

/// One micro-batch at one layer.
struct LayerVisit {
    times: [f64; 4],
    ports: [f64; 2],
}

/// Every layer, one entry a micro-batch of a group.
type Program = Vec<Vec<LayerVisit>>;

/// The layers of a step one by one; attention-only layers lengthen the next attention.
fn program(rows: &[Rows<'_>], layers: usize) -> Program {
    let m = rows.first().map_or(0, |r| r.stages.len());
    let mut owed = vec![0.0; m];
    let mut out: Program = Vec::new();
    for row in rows {
        for _ in 0..row.layers {
            if out.len() >= layers {
                return out;
            }
            owed.iter_mut().zip(row.stages).for_each(|(o, s)| *o += s.attention);
            if row.stages.iter().any(|s| s.a2f + s.ffn + s.f2a > 0.0) {
                let work = |(s, o): (&Stages, &f64)| LayerVisit { times: [*o, s.a2f, s.ffn, s.f2a], ports: s.ports };
                out.push(row.stages.iter().zip(&owed).map(work).collect());
                owed.fill(0.0);
            }
        }
    }
    if owed.iter().any(|o| *o > 0.0) {
        out.push(owed.iter().map(|o| LayerVisit { times: [*o, 0.0, 0.0, 0.0], ports: [0.0; 2] }).collect());
    }
    out
}

/// Every interval of the first `layers` layers on an empty pipeline.
pub fn bars(rows: &[Rows<'_>], groups: usize, half_duplex: bool, layers: usize) -> Vec<Bar> {
    let program = program(rows, layers);
    let m = groups * program.first().map_or(0, Vec::len);
    // FFN and its ports are shared, the rest is each group's own.
    let server = |i: usize, stage: usize| match stage {
        2 => 2,
        3 if half_duplex => 4 * (i % groups) + 1,
        _ => 4 * (i % groups) + stage,
    };
    let port = |stage: usize| if half_duplex { 0 } else { stage / 2 };
    let mut free = vec![0.0_f64; 4 * groups];
    let mut ports = [0.0_f64; 2];
    // (ready, layer, stage) of every micro-batch.
    let mut jobs: Vec<(f64, usize, usize)> = vec![(0.0, 0, 0); m];
    let mut out = Vec::with_capacity(4 * m * program.len());
    loop {
        let waiting = jobs.iter().enumerate().filter(|(_, j)| j.1 < program.len());
        let next = waiting.min_by(|(i, a), (k, b)| {
            a.0.total_cmp(&b.0).then(RANK[a.2].cmp(&RANK[b.2])).then(a.1.cmp(&b.1)).then(i.cmp(k))
        });
        let Some((i, &(ready, layer, stage))) = next else { return out };
        let s = &program[layer][i / groups];
        let mut start = ready.max(free[server(i, stage)]);
        if stage % 2 == 1 && groups > 1 {
            start = start.max(ports[port(stage)]);
            ports[port(stage)] = start + s.ports[stage / 2];
        }
        let end = start + s.times[stage];
        free[server(i, stage)] = end;
        if end > start {
            let (stage, layer) = (Stage::ALL[stage], layer as u32);
            out.push(Bar { stage, microbatch: i / groups, group: i % groups, layer, start, end });
        }
        jobs[i] = if stage == 3 { (end, layer + 1, 0) } else { (end, layer, stage + 1) };
    }
}

/// Layers passed before the stretch that is shown, and shown.
const SETTLE: u32 = 4;
const SHOWN: u32 = 4;

/// A stretch of four layers once the pipeline has filled (all of a shorter model), from time zero.
pub(crate) fn stretch(rows: &[Rows<'_>], groups: usize, half_duplex: bool) -> Vec<Bar> {
    let all = bars(rows, groups, half_duplex, (SETTLE + SHOWN) as usize);
    let last = all.iter().map(|b| b.layer).max().unwrap_or(0);
    let first = SETTLE.min((last + 1).saturating_sub(SHOWN));
    let shown: Vec<Bar> = all.into_iter().filter(|b| b.layer >= first).collect();
    let zero = shown.iter().map(|b| b.start).fold(f64::INFINITY, f64::min);
    shown.into_iter().map(|b| Bar { start: b.start - zero, end: b.end - zero, ..b }).collect()
}
