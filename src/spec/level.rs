//! Levels of disaggregation, and what a slot of a plan serves.

use crate::error::{Problems, Result, near};

/// How far a plan is taken apart, in the order in which levels are told.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Prompts and decode share the steps of plain workers.
    Aggregated,
    /// Prompts and decode on workers of their own.
    Pd,
    /// AFD units that serve both phases.
    AggregatedAfd,
    /// Prompts and decode on slots of their own, at least one of them an AFD unit.
    PdAfd,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Aggregated, Level::Pd, Level::AggregatedAfd, Level::PdAfd];

    pub fn name(self) -> &'static str {
        match self {
            Level::Aggregated => "aggregated",
            Level::Pd => "pd",
            Level::AggregatedAfd => "aggregated+afd",
            Level::PdAfd => "pd+afd",
        }
    }

    pub fn named(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|l| l.name() == name)
    }

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
                None => {
                    let known = Level::ALL.map(Level::name);
                    p.push(format!("levels[{i}]"), format!("'{name}' is not a level"), near(name, known));
                }
            }
        }
        p.into_result().map(|()| found)
    }

    /// Its place among [`Level::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn has_afd(self) -> bool {
        matches!(self, Level::AggregatedAfd | Level::PdAfd)
    }
}

/// What a slot of a plan, or an instance of a deployment, serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Prompts and decode on the same GPUs.
    #[default]
    Both,
    Prompts,
    Decode,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Both, Role::Prompts, Role::Decode];

    pub fn name(self) -> &'static str {
        match self {
            Role::Both => "mixed",
            Role::Prompts => "prefill",
            Role::Decode => "decode",
        }
    }

    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.name() == name)
    }
}
