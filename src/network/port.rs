//! Ports of a GPU, the links they belong to and the collectives that cross them, by the names that results show.
//!
//! Limit: names only: two links a GPU, each with two directions.

use crate::spec::choices;

choices! {
    /// What joins GPUs.
    #[derive(PartialOrd, Ord)]
    Link {
        /// Inside a scale-up domain.
        Nvlink = "nvlink",
        /// Between domains.
        Nic = "nic",
    }

    /// One direction of one link of a GPU.
    GpuPort {
        NvlinkOut = "nvlink_out",
        NvlinkIn = "nvlink_in",
        NicOut = "nic_out",
        NicIn = "nic_in",
    }

    /// Whose GPU a port belongs to.
    #[derive(PartialOrd, Ord)]
    PortSide {
        /// One of equals.
        Gpu = "gpu",
        /// The pools of an AFD unit.
        Attention = "attention",
        Ffn = "ffn",
        /// The slots that KV travels between.
        Prefill = "prefill",
        Decode = "decode",
    }

    /// Which links a phase crosses.
    Tier {
        ScaleUp = "scale-up",
        ScaleOut = "scale-out",
        Both = "both",
    }

    /// The collectives there are.
    Collective {
        AllReduce = "all_reduce",
        AllGather = "all_gather",
        ReduceScatter = "reduce_scatter",
    }
}

impl GpuPort {
    pub(crate) fn link(self) -> Link {
        match self {
            GpuPort::NvlinkOut | GpuPort::NvlinkIn => Link::Nvlink,
            GpuPort::NicOut | GpuPort::NicIn => Link::Nic,
        }
    }

    pub(crate) fn is_out(self) -> bool {
        matches!(self, GpuPort::NvlinkOut | GpuPort::NicOut)
    }
}

impl Link {
    /// The link between GPUs of one scale-up domain, or of several.
    pub(crate) fn of(same_domain: bool) -> Link {
        if same_domain { Link::Nvlink } else { Link::Nic }
    }

    pub(crate) fn tier(self) -> Tier {
        match self {
            Link::Nvlink => Tier::ScaleUp,
            Link::Nic => Tier::ScaleOut,
        }
    }
}
