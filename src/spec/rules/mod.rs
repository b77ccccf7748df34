//! What each server can start: rules as data, each with its source and what to write instead.
//!
//! The table is `python/disagg/data/serving/rules.json`. A rule names the frameworks and the versions it holds for and
//! a condition, one of the closed set in [`condition`] with its parameters; it is broken where the condition does not
//! hold. [`Rules`] is the table cut down to one framework, version, model and cluster: cheap enough to ask for every
//! layout of a search ([`Rules::worker`], [`Rules::unit`], [`Rules::pair`]), and able to say what a whole plan breaks
//! ([`Rules::violations`]) and which server starts it ([`Rules::verdict`]).
//!
//! AFD: units keep the layout rules of the framework whose kernels price them; that no released server starts them is
//! told, but is no layout rule and stops no search.
//! Limits: what a plan says is judged, not memory or drivers; rules were read for the versions in `servers`.

pub mod condition;
mod judge;
mod shape;
mod table;
mod version;

pub use condition::Condition;
pub use judge::{Rules, Verdict, Violation};
pub use shape::{Layout, Shape};
pub use table::{Rule, Server, Table};
