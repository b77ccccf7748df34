//! How kernels are launched and what exchanges carry: the assumptions' answers for one model, cluster and framework,
//! chosen once when a library is made.
//!
//! Physical: a phase is launched as serving says, else as the server does; collectives cross nodes over all rails and
//! carry the model's exchange format. Limit: what is asked while a worker or unit is compiled (its lanes, rows of one
//! node, shares of time) is answered there.

use crate::cost::published;
use crate::spec::assumptions::{AllReduceRows, Collectives, GatherFormat, LaunchFloors, SharedExpertSplit};
use crate::spec::dtype::Formats;
use crate::spec::servers;
use crate::spec::{Assumptions, Cluster, Dtype, Framework, Launch, Model, Serving};

/// What pricing asks; [prefill, decode] where the phases differ.
pub(super) struct ExchangeStrategy {
    /// Whether kernels run from CUDA graphs.
    pub graph: [bool; 2],
    /// Whether all-reduces read the rows under CUDA graphs.
    pub reduce_graph: [bool; 2],
    /// Whether collectives beyond one node are those of one node, stretched.
    pub stretched: bool,
    /// Bytes of a value that an all-gather carries to the experts.
    pub gather_bytes: f64,
    /// Whether TP ranks compute the shared expert whole.
    pub whole_shared: bool,
}

impl ExchangeStrategy {
    pub(crate) fn of(
        a: &Assumptions,
        model: &Model,
        framework: Framework,
        cluster: &Cluster,
        serving: &Serving,
        formats: &Formats,
    ) -> ExchangeStrategy {
        // What serving says, else as the server does.
        let rule = (a.launch_floors == LaunchFloors::ByPhase).then(|| servers::launch(framework)).flatten();
        let phases = rule.map_or([Launch::Measured; 2], |r| [r.prefill, r.decode]);
        let graph = phases.map(|own| serving.launch.unwrap_or(own) == Launch::Graph);
        let quantised = match a.gather_format {
            GatherFormat::Model => true,
            GatherFormat::Framework => published::quantised_gather(framework, cluster.device.sm),
        };
        let format = if quantised { formats.comm } else { Dtype::Bf16 };
        ExchangeStrategy {
            graph,
            reduce_graph: graph.map(|g| a.all_reduce_rows == AllReduceRows::Graph || g),
            stretched: a.collectives == Collectives::Stretched,
            gather_bytes: format.activation_bytes(),
            whole_shared: a.shared_expert_split == SharedExpertSplit::Whole && model.is_dsa(),
        }
    }
}
