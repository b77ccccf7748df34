//! What the start of a plan depends on.
//!
//! Limit: three servers and Dynamo over them; what a cluster's own scheduler needs is left to it.

use crate::error::{Error, Result, near};
use crate::spec::{Case, Formats, Framework, Plan};

/// A plan and all that its servers need to know.
pub struct Ask<'a> {
    pub case: &'a Case,
    pub plan: &'a Plan,
    /// Longest sequence that must fit; none: whatever the server takes.
    pub longest: Option<u32>,
    pub starter: Starter,
    /// Writes the commands of a plan that breaks rules as well, with the rules as notes.
    pub force: bool,
}

/// What starts a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// A server with a router of its own.
    Server(Framework),
    /// Dynamo over a server.
    Dynamo(Framework),
}

impl Starter {
    /// By name.
    pub const NAMES: [&str; 4] = ["vllm", "sglang", "trtllm", "dynamo"];

    /// The starter of a name; `engine`: the server below Dynamo.
    ///
    /// # Errors
    /// An unknown name of either, with the nearest one.
    pub fn named(name: &str, engine: &str) -> Result<Starter> {
        match Framework::named(name) {
            Some(server) => Ok(Starter::Server(server)),
            None if name == "dynamo" => Ok(Starter::Dynamo(Framework::asked(engine, "framework")?)),
            None => {
                let text = format!("'{name}' is not a framework that starts plans");
                Err(Error::spec("framework", text, near(name, Starter::NAMES)))
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Starter::Server(server) => server.name(),
            Starter::Dynamo(_) => "dynamo",
        }
    }

    /// The server whose flags are written.
    pub fn engine(self) -> Framework {
        match self {
            Starter::Server(server) | Starter::Dynamo(server) => server,
        }
    }
}

impl Ask<'_> {
    pub fn formats(&self) -> Formats {
        self.case.model.formats(&self.case.quant)
    }

    /// Physical experts above the model's: as EPLB asks, and as many as make them even on `ep` ranks.
    pub fn redundant(&self, ep: u32) -> u32 {
        let Some(moe) = &self.case.model.moe else { return 0 };
        let slots = moe.experts + self.case.serving.eplb_slots;
        slots.div_ceil(ep.max(1)) * ep.max(1) - moe.experts
    }

    /// Why there are more experts than the model has.
    pub fn redundant_why(&self, ep: u32) -> String {
        let redundant = self.redundant(ep);
        match self.case.serving.eplb_slots {
            0 => format!("pads the experts to {ep} equal ranks"),
            slots if slots == redundant => "serving.eplb_slots: copies of the busiest experts".into(),
            slots => format!("serving.eplb_slots={slots}, padded to {ep} equal ranks"),
        }
    }
}
