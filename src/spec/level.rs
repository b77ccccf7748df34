//! Levels of disaggregation, and what a slot of a plan serves.
//!
//! Limit: four levels, three roles; a fleet of several levels side by side is several plans.

use crate::error::{Problems, Result, near};

use super::record::choices;

choices! {
    /// How far a plan is taken apart, in the order in which levels are told.
    #[repr(u8)]
    #[derive(PartialOrd, Ord)]
    Level {
        /// Prompts and decode share the steps of plain workers.
        Aggregated = "aggregated",
        /// Prompts and decode on workers of their own.
        Pd = "pd",
        /// AFD units that serve both phases.
        AggregatedAfd = "aggregated+afd",
        /// Prompts and decode on slots of their own, at least one of them an AFD unit.
        PdAfd = "pd+afd",
    }
    /// What a slot of a plan, or an instance of a deployment, serves.
    #[derive(Default, PartialOrd, Ord)]
    Role {
        /// Prompts and decode on the same GPUs.
        #[default]
        Both = "mixed",
        Prompts = "prefill",
        Decode = "decode",
    }
}

impl Level {
    /// The levels of these names.
    ///
    /// # Errors
    /// What is not a level, by its path (`levels[0]`) and with the nearest name.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Vec<Level>> {
        let mut p = Problems::new();
        let mut found = Vec::with_capacity(names.len());
        for (i, name) in names.iter().map(AsRef::as_ref).enumerate() {
            match Level::named(name) {
                Some(level) => found.push(level),
                None => p.push(format!("levels[{i}]"), format!("'{name}' is not a level"), near(name, Level::NAMES)),
            }
        }
        p.into_result().map(|()| found)
    }

    /// Its place among [`Level::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub fn has_afd(self) -> bool {
        matches!(self, Level::AggregatedAfd | Level::PdAfd)
    }
}
