//! The design space of each level of disaggregation, searched whole at one GPU budget.

pub mod arrivals;
pub mod audit;
pub mod caveats;
pub mod compiled;
pub mod exact;
pub mod explore;
pub mod flips;
pub mod frontier;
pub mod levels;
pub mod lifted;
pub mod marks;
pub mod near;
pub mod pairs;
pub mod refine;
pub mod regimes;
pub mod row;
pub mod slots;
pub mod space;
pub mod study;
pub mod timer;
mod units;
pub mod wire;

pub use audit::{Method, audit};
pub use explore::{LEVELS, Question, explore};
pub use regimes::{Map, regimes};
pub use row::{Layout, Part, Row};
pub use study::Study;
