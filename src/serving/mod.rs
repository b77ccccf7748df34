//! serving

mod half_duplex;
pub mod pipeline;
