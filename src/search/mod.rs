//! The search of the design space: levels best against best.
//!
//! From the ground up, each by those before it:
//!
//! | what | files |
//! |---|---|
//! | one plan, its name and its worth | `row` `key` `objective` `aim` `blocks` `kept` `row_codec` |
//! | what may be chosen, and what steers the choice | `space` `layouts` `constants` |
//! | the rows that may lead, what layouts promise | `leaders` `marks` |
//! | what a level is searched for | `candidate_clock` `sides` `fine_grid` `group` `compiled` `task` |
//! | the coarse pass | `scan` `frontier` `numbers` |
//! | beyond the grid, and finer | `units` `slots` `fine_decode` `prompts` `throttled` `calmed` `pairs` `refine` |
//! | what is said, by the engine | `exact` |
//! | the question and its answer | `question` `arrivals` `study` `explore` `flips` `caveats` `verdict` |
//! | many questions | `audit` `lifted` `regimes` |
//!
//! Limit: optimal over what was looked at: grids are finite, and what lies beyond `space` is never tried.

pub mod aim;
pub mod arrivals;
pub mod audit;
pub mod blocks;
pub mod calmed;
pub mod candidate_clock;
pub mod caveats;
pub mod compiled;
pub mod constants;
pub mod exact;
pub mod explore;
pub mod fine_decode;
pub mod fine_grid;
pub mod flips;
pub mod frontier;
pub mod group;
pub mod kept;
pub mod key;
pub mod layouts;
pub mod leaders;
pub mod lifted;
pub mod marks;
pub mod numbers;
pub mod objective;
pub mod pairs;
pub mod prompts;
pub mod question;
pub mod refine;
pub mod regimes;
pub mod row;
pub mod row_codec;
pub mod scan;
pub mod sides;
pub mod slots;
pub mod space;
pub mod study;
pub mod task;
pub mod throttled;
pub mod units;
pub mod verdict;

pub use audit::{Method, audit};
pub use explore::explore;
pub use objective::Objective;
pub use question::Question;
pub use regimes::{Map, regimes};
pub use row::{Layout, Part, Row};
pub use study::Study;
pub use task::Task;
