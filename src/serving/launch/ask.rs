//! What the start of a plan depends on.

use crate::spec::{Cluster, Formats, Model, Plan, Quant, Serving, Workload};

/// A plan and all that its servers need to know.
pub struct Ask<'a> {
    pub plan: &'a Plan,
    pub model: &'a Model,
    pub cluster: &'a Cluster,
    /// Sets the longest sequence; none: the model's.
    pub workload: Option<&'a Workload>,
    pub quant: &'a Quant,
    pub serving: &'a Serving,
    /// The engine below Dynamo.
    pub engine: &'a str,
    /// Writes the commands of a plan that breaks rules as well, with the rules as notes.
    pub force: bool,
}

impl Ask<'_> {
    pub fn formats(&self) -> Formats {
        self.model.formats(self.quant)
    }

    /// Longest sequence that must fit, if a workload says.
    pub fn longest(&self) -> Option<u32> {
        self.workload.map(|w| w.peak_tokens().ceil().max(1.0) as u32)
    }

    /// Physical experts above the model's: as EPLB asks, and as many as make them even on `ep` ranks.
    pub fn redundant(&self, ep: u32) -> u32 {
        let Some(moe) = &self.model.moe else { return 0 };
        let slots = moe.experts + self.serving.eplb_slots;
        slots.div_ceil(ep.max(1)) * ep.max(1) - moe.experts
    }

    /// Why there are more experts than the model has.
    pub fn redundant_why(&self, ep: u32) -> String {
        let redundant = self.redundant(ep);
        match self.serving.eplb_slots {
            0 => format!("pads the experts to {ep} equal ranks"),
            slots if slots == redundant => "serving.eplb_slots: copies of the busiest experts".into(),
            slots => format!("serving.eplb_slots={slots}, padded to {ep} equal ranks"),
        }
    }
}
