//! The parts of a MoE layer's lanes as lines, each priced by `moe` at the tokens it hangs on; `lane` adds them up.
//!
//! Limit: a line hangs on one number; the spread of tokens over ranks is in the rows of the experts, not here.

use std::sync::Arc;

use super::lane::{self, LaneParts, LayerTokens, Turns};
use super::moe::{Lane, MoePart, Priced};
use crate::cost::ledger::{Ledger, Op, Seconds, seconds};
use crate::cost::piecewise::{self, Piecewise, Place, Tabulated};
use crate::kernels::Reading;

/// One lane in one mode.
#[derive(Debug)]
pub(super) struct LaneLines {
    /// Tokens of a rank that it takes: more than the first and at most the second.
    takes: [f64; 2],
    around: Arc<Piecewise>,
    ways: [Way; 2],
    experts: Arc<Piecewise>,
    moved: Option<Arc<Piecewise>>,
    shared: Option<Arc<Piecewise>>,
    turns: Turns,
}

/// Seconds of a part of a lane.
type Price = fn(&Priced<'_>) -> f64;

/// Seconds of a way to the experts or back.
#[derive(Debug)]
enum Way {
    None,
    /// Start-up, whatever moves.
    Start(Reading),
    /// An all-to-all, over a GPU's tokens.
    Own(Arc<Piecewise>),
    /// A collective, over the tokens of all ranks.
    All(Arc<Piecewise>),
}

fn way(p: &Priced<'_>, back: bool) -> f64 {
    p.way(back, 1.0, &mut Seconds::default())
}

impl MoePart {
    /// The lanes that layers of this mode may take. `halves`: those of two half-batches in turn, where each way stands
    /// alone; in a whole layer both are one line.
    pub(crate) fn lane_lines(self: &Arc<Self>, lines: &Tabulated, decode: bool, halves: bool) -> Vec<LaneLines> {
        let lanes = self.lanes.iter().filter(|l| !halves || l.apart());
        let some = |l: &&Lane| {
            let [above, most] = self.takes(**l, decode);
            most >= 0.0 && above < most
        };
        lanes.filter(some).map(|l| self.lines_of(lines, *l, decode, halves)).collect()
    }

    fn lines_of(self: &Arc<Self>, lines: &Tabulated, lane: Lane, decode: bool, halves: bool) -> LaneLines {
        let p = &self.parallel;
        let (tp, mode, tensor) = (f64::from(p.tp), u32::from(decode), lane == Lane::Tensor);
        let line = |name: &'static str, key: [u32; 6], at: fn(f64, f64) -> LayerTokens<f64>, price: Price| {
            let moe = self.clone();
            lines.get((name, key), move |x| price(&Priced { moe: &moe, lane, tokens: at(x, tp), decode }))
        };
        let rank = |x, tp| LayerTokens { rank: x, own: x / tp, all: 0.0 };
        let own = |x, _| LayerTokens { own: x, ..LayerTokens::default() };
        let all = |x, _| LayerTokens { all: x, ..LayerTokens::default() };
        let (ways, moved) = match lane {
            Lane::Tensor => ([Way::None, Way::None], None),
            Lane::Gather => {
                let key = [p.stage_gpus(), 0, 0, 0, 0, 0];
                let ways = if halves {
                    let out = line("gather", key, all, |p| way(p, false));
                    [Way::All(out), Way::All(line("scatter", key, all, |p| way(p, true)))]
                } else {
                    [Way::All(line("collectives", key, all, |p| way(p, false) + way(p, true))), Way::None]
                };
                (ways, None)
            }
            Lane::Dispatch(kind) | Lane::Fused(kind) => {
                let key = [kind as u32, self.a2a.ep, 0, 0, 0, 0];
                if let Lane::Fused(_) = lane {
                    let idle = Priced { moe: self, lane, tokens: LayerTokens::default(), decode };
                    let starts = [false, true].map(|back| Way::Start(piecewise::known(way(&idle, back))));
                    (starts, Some(line("moved", key, own, |p| p.moved())))
                } else if halves {
                    let out = line("out", key, own, |p| way(p, false));
                    ([Way::Own(out), Way::Own(line("back", key, own, |p| way(p, true)))], None)
                } else {
                    ([Way::Own(line("exchange", key, own, |p| way(p, false) + way(p, true))), Way::None], None)
                }
            }
        };
        let kernel = match lane {
            Lane::Tensor | Lane::Gather => 0,
            Lane::Dispatch(_) => 1,
            Lane::Fused(_) => 2,
        };
        let split = [u32::from(tensor && !self.lib.whole_shared()), u32::from(tensor), p.tp, mode, 0, 0];
        LaneLines {
            takes: self.takes(lane, decode).map(|own| own * tp),
            around: line("around", [u32::from(tensor), p.tp, mode, 0, 0, 0], rank, |p| seconds(|t| p.around(1.0, t))),
            ways,
            experts: line("experts", [kernel, p.ep(), p.moe_tp, mode, u32::from(p.dp * p.cp > 1), 0], all, |p| {
                p.experts().seconds
            }),
            moved,
            shared: self.shared.as_ref().map(|_| line("shared", split, rank, |p| seconds(|t| p.shared(0.0, 1.0, t)))),
            turns: self.turns(lane),
        }
    }
}

impl LaneLines {
    /// Whether it takes a step of `rank` tokens.
    #[inline]
    pub(crate) fn take(&self, rank: f64) -> bool {
        self.takes[0] < rank && rank <= self.takes[1]
    }

    /// Seconds of a whole layer.
    #[inline]
    pub(crate) fn seconds(&self, at: &LayerTokens<Place>, hides: bool) -> f64 {
        let mut t = Seconds::default();
        lane::layer(&Read { lines: self, at }, hides, 1.0, &mut t);
        t.0
    }

    /// Seconds of two half-batches in turn, of `at` tokens and `attention` seconds each.
    #[inline]
    pub(crate) fn wall(&self, at: &LayerTokens<Place>, attention: f64) -> f64 {
        self.turns.wall(&Read { lines: self, at }, attention)
    }
}

/// Lines read at the tokens of a layer.
struct Read<'a> {
    lines: &'a LaneLines,
    at: &'a LayerTokens<Place>,
}

impl LaneParts for Read<'_> {
    #[inline]
    fn around<S: Ledger>(&self, count: f64, ledger: &mut S) {
        ledger.add(Op::Router, count, self.lines.around.reading(self.at.rank));
    }

    #[inline]
    fn way<S: Ledger>(&self, back: bool, count: f64, ledger: &mut S) -> f64 {
        let reading = match &self.lines.ways[usize::from(back)] {
            Way::None => return 0.0,
            Way::Start(reading) => *reading,
            Way::Own(line) => line.reading(self.at.own),
            Way::All(line) => line.reading(self.at.all),
        };
        ledger.add(if back { Op::Combine } else { Op::Dispatch }, count, reading);
        reading.seconds
    }

    #[inline]
    fn experts(&self) -> Reading {
        self.lines.experts.reading(self.at.all)
    }

    #[inline]
    fn moved(&self) -> f64 {
        self.lines.moved.as_ref().map_or(0.0, |l| l.at(self.at.own))
    }

    #[inline]
    fn shared<S: Ledger>(&self, beside: f64, count: f64, ledger: &mut S) {
        if let Some(shared) = &self.lines.shared {
            let whole = shared.reading(self.at.rank);
            ledger.add(Op::SharedExpert, count, Reading { seconds: (whole.seconds - beside).max(0.0), ..whole });
        }
    }
}
