//! The frameworks: servers whose kernels were measured and whose ways of serving are known.
//!
//! A framework is one of three here, whoever asks: a case, a library, rules, what servers do by themselves. Kernel tables
//! keep the name that their source gives them (`kernels::table`): NCCL has tables too, and an import may hold others.
//!
//! Limit: three frameworks; a fork goes by the name of what it was forked from.

use super::record::choices;
use crate::error::{Error, Result, near};

choices! {
    /// Whose kernels and defaults count, in the order in which ties are broken.
    #[derive(Default, PartialOrd, Ord)]
    Framework {
        #[default]
        Trtllm = "trtllm",
        Sglang = "sglang",
        Vllm = "vllm",
    }
}

impl std::fmt::Display for Framework {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Framework {
    /// The framework of a name.
    ///
    /// # Errors
    /// If there is none of that name: by the field that says it, with the nearest one.
    pub fn asked(name: &str, path: &str) -> Result<Framework> {
        let unknown = || Error::spec(path, format!("'{name}' is not a framework"), near(name, Framework::NAMES));
        Framework::named(name).ok_or_else(unknown)
    }
}
