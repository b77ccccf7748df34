//! Design spaces of the user's own: axes over the fields of a question, constraints between them,
//! points by number, samples, and their price.
//!
//! A space is a base question (model, cluster, workload, plan, serving, assumptions) and a list of
//! axes, each a dotted path into it with the values to take. Points are numbered in the order of
//! the axes, the last axis fastest, points that break a constraint left out; so a slice of numbers
//! is a unit of work that any machine can price from the space's JSON alone. Of such a space [`optimize`] finds the best
//! point without pricing all; [`sensitivity`] asks how much each figure moves one plan.
//!
//! Limit: axes are lists: nothing lies between two values, and a path leads to one field only.

mod diagram;
mod expression;
mod interval;
mod metric;
pub mod optimize;
mod price;
mod residual;
mod sample;
pub mod sensitivity;
mod space;

pub use expression::Expression;
pub use interval::Interval;
pub use metric::Metric;
pub use price::price;
pub(crate) use price::{NOT_RUNNABLE, Outcome, Priced, Reader, axis_columns, columns, price_rows};
pub use sample::{Method, sample};
pub use space::{Axis, Description, Space, name_of};
