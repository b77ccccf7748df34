//! Memory-bound elementwise work: bytes over the reachable bandwidth plus one launch.
//!
//! Limit: no cache: bytes that stay in L2 are paid as if they went to HBM.

use crate::kernels::roofline::{self, Roofline, Work};
use crate::kernels::surface::{Node, Surface};

use super::Source;

/// A kernel that nobody measured, by its work alone.
pub fn by_roofline(roofline: Roofline) -> Surface {
    Surface::new(Node::Roofline(roofline), "roofline", Vec::new())
}

/// Memory-bound elementwise work. Axis: bytes moved.
pub fn memory(source: &Source) -> Surface {
    let work = Work::Linear { math: 0.0, memory0: 0.0, memory: 1.0 / roofline::bandwidth(&source.device) };
    let roofline = Roofline { work, launch: source.device.launch_s };
    Surface::new(Node::Roofline(roofline), "roofline: bytes / (0.8 bandwidth) + launch", Vec::new())
}
