//! The constants that steer the search, each with what it was measured on. They decide where it looks, never what a plan
//! is said to give: that is the engine's. What may be chosen at all is listed in `space`.
//!
//! Most are no bounds. What the search loses by them is held against everything there is in tests/rust/fair.rs (best
//! plans of whole lists), tests/rust/refine.rs (a much finer grid) and tests/rust/pairs.rs (all pairs).
//!
//! Limit: measured on the shipped tables; another pack may want other values, which the tests named would show.

/// How far a scan can be trusted (`leaders`, `exact`); held by tests/rust/scan.rs.
pub mod scan {
    /// How near to the best a scanned row may yet lead: what a scan is off at worst.
    pub const NEAR: f64 = 0.006;
    /// How near to the best a scanned row is priced even if it claims less: what 99 in 100 are off.
    pub const CLOSE: f64 = 0.001;
    /// Rows of one list priced at a time, and times that it is taken.
    pub const MOST: usize = 96;
    pub const ROUNDS: usize = 40;
    /// How near to the frontier rows are priced with it: pairs that differ in little else lie this close together.
    pub const BESIDE: f64 = 1e-5;
}

/// How layouts are judged by the points of a coarse grid (`marks`).
pub mod marks {
    /// Neighbours of a chain carry at most this many times the prompt tokens of each other.
    pub const ALIKE: f64 = 2.05;
    /// How far over the limits a mark may be to have any prospect: no bound.
    pub const NEAR: f64 = 1.25;
}

/// Climbs from the coarse grid of AFD units (`units`).
pub mod climb {
    /// Layouts that a round starts from, those of them with the same number on the budget, stages and groups, and rounds
    /// at most. In 1,319 cells of maps of DeepSeek-V3 and V3.2 (ten workloads under 100 pairs of limits each) a search with
    /// `BEAM` 64, `VAIN` 5 and `finer`'s `LEADERS` 400, `FINER` and `PACES` 2 led 55 by more than 1 %, by 0.3 % in the
    /// mean; with `VAIN` 2 nearly twice as many.
    pub const BEAM: usize = 16;
    pub const ALIKE: usize = 1;
    pub const ROUNDS: usize = 12;
    /// What a round must gain, and rounds in a row without it that are the last: several changes at once are often what
    /// gains.
    pub const GAIN: f64 = 1e-4;
    pub const VAIN: usize = 3;
    /// Layouts of the densest whose proportions are tried at every size, and how far from theirs.
    pub const PROPORTIONS: usize = 3;
    pub const FAR: f64 = 2.2;
}

/// The finer pass over the leaders of a level (`refine`, `fine_decode`).
pub mod finer {
    /// Layouts of a mixed level that are searched again at most, and side by side.
    pub const LEADERS: usize = 96;
    pub const ROUND: usize = 4;
    /// What a finer grid is taken to add at most to the prospect of a layout (`marks`), and how far behind a layout's best
    /// cadence another may be (at 1.1 aggregated serving was short by over 1 % in 14 of 894 cells of maps, at 1.2 in 9). No
    /// bounds, nor is the next.
    pub const FINER: f64 = 1.1;
    pub const PACES: f64 = 1.2;
    /// How far behind the best a layout may be by what it is judged to give for a closer look; links of marks that are
    /// halved for the look, and how often.
    pub const DOUBTFUL: f64 = 1.5;
    pub const LINKS: usize = 2;
    pub const HALVED: usize = 3;
    /// The share of a batch and of a chunk at which polishing ends.
    pub const FINEST: u32 = 512;
    /// Decode layouts per size that are looked at closer.
    pub const PER_SIZE: usize = 6;
    /// Batches tried between the two around a TPOT limit besides those next to it.
    pub const SPREAD: u32 = 8;
}

/// What of a slot is worth pairing (`frontier`).
pub mod slots {
    /// Least gain in rate between neighbours on a slot's frontier: 2 %, well under what the tables know.
    pub const THINNING: f64 = 1.02;
    /// A wait for KV that is not worth a plan of its own: well under what the tables know of any TTFT.
    pub const SMALL_WAIT_S: f64 = 2e-3;
}

/// How prompts are cut for pairs (`prompts`, `pairs`).
pub mod prompts {
    /// How far behind the coarse frontier a way of cutting prompts may be to be cut finer: rounds of the coarse grid take
    /// twice the prompts of the last, so that it may miss a layout's best by as much.
    pub const SLACK: f64 = 0.3;
    /// Latencies, as multiples of the least, under which units for prompts are climbed to beyond the coarse grid.
    pub const LATENCIES: [f64; 4] = [1.25, 2.5, 6.0, f64::INFINITY];
    /// Pairs whose prompts are cut yet finer, how many more or fewer prompts a round is tried with, and turns of that at
    /// most.
    pub const LEADERS: usize = 3;
    pub const MORE: i64 = 4;
    pub const TURNS: usize = 4;
    /// Where prompts hold decode below its limit (`throttled`): what a batch more must promise; above how many GPUs AFD units,
    /// whose rounds are dear to price, are tried with every third number of pieces only; prompts a round; and pairs priced
    /// for each number of decode slots. With all budgets thinned one of 50 questions of the twin, on 16 GPUs, was short by
    /// 2.5 %; with none a map of 64 took a quarter longer.
    pub const GAIN: f64 = 0.005;
    pub const SMALL: u32 = 32;
    pub const THINNED: usize = 3;
    pub const SEQUENCES: [u32; 8] = [1, 2, 4, 8, 3, 5, 6, 7];
    pub const THROTTLES: usize = 4;
    /// How much of the TTFT limit a leader takes where fewer sequences in decode are tried (`calmed`).
    pub const BOUND: f64 = 0.97;
}

/// Leaders with arrivals of their own (`arrivals`).
pub mod arrivals {
    /// Layouts tried of a level at most, and at a time; rows tried of each for the rate that they keep within both limits
    /// in the closed loop (beside those of each room for prompts).
    pub const MOST: usize = 3000;
    pub const TOGETHER: usize = 16;
    pub const ROWS: usize = 3;
    /// Seats tried, by those of the row.
    pub const SEATS: [f64; 3] = [1.0, 1.4, 2.5];
}
