//! What mixes the tokens of a layer other than grouped-query and latent attention: one file a kind, with its sizes, its
//! weights, what it keeps of a sequence, and how a config says so. A kind is its file and its line in the table below.
//!
//! Limit: kinds of the build: a config that has none of them and looks like structure is refused.

mod block_sparse;
mod compressed;
mod delta;
pub(crate) mod facts;
mod kimi;
mod mamba;
mod mamba1;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dtype::Dtype;
use super::json;
use super::limits::Check;
use crate::error::Problems;

pub use block_sparse::BlockSparse;
pub use compressed::Compressed;
pub use delta::DeltaNet;
pub(crate) use facts::{Facts, Found, Reading};
pub use facts::{Rows, Running};
pub use kimi::KimiDelta;
pub use mamba::Mamba2;
pub use mamba1::Mamba1;

/// The table of kinds: name in JSON, and its facts.
macro_rules! kinds {
    ($($name:literal $kind:ident($facts:ty)),* $(,)?) => {
        /// A kind of mixer with facts of its own.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(tag = "kind")]
        pub enum OwnMixer {
            $(#[serde(rename = $name)] $kind($facts)),*
        }

        impl OwnMixer {
            /// What their `kind` is in JSON.
            pub(super) const KINDS: &[&str] = &[$($name),*];

            /// The inside of an object of this kind.
            pub(super) fn of<E: serde::de::Error>(kind: &str, inside: Value) -> Result<OwnMixer, E> {
                match kind {
                    $($name => json::inside(inside).map(OwnMixer::$kind),)*
                    other => Err(E::custom(format!("unknown kind '{other}'"))),
                }
            }

            /// What it says of itself.
            pub(crate) fn facts(&self) -> &dyn Facts {
                match self {
                    $(OwnMixer::$kind(facts) => facts),*
                }
            }

            /// What a config says in fields of a kind's own. None: a problem was noted.
            pub(super) fn read(from: &mut Reading) -> Option<Option<Found<OwnMixer>>> {
                $(if let Some(found) = <$facts>::read(from)? {
                    return Some(Some(found.map(OwnMixer::$kind)));
                })*
                Some(None)
            }
        }
    };
}

kinds! {
    "gated-delta" GatedDelta(DeltaNet),
    "kimi-delta" KimiDelta(KimiDelta),
    "mamba2" Mamba2(Mamba2),
    "mamba1" Mamba1(Mamba1),
    "compressed" Compressed(Compressed),
    "block-sparse" BlockSparse(BlockSparse),
}

impl<'de> Deserialize<'de> for OwnMixer {
    fn deserialize<D: serde::de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, inside) = json::tagged(deserializer, OwnMixer::KINDS)?;
        OwnMixer::of(&kind, inside)
    }
}

impl OwnMixer {
    /// In words that end a sentence about it.
    pub fn name(&self) -> &'static str {
        self.facts().name()
    }

    /// Its sizes where it keeps a running state.
    pub fn running(&self) -> Option<Running> {
        self.facts().running()
    }

    /// Over how many of `tp` ranks what it keeps is split; the others hold copies.
    pub(crate) fn shards(&self, tp: u32) -> u32 {
        self.facts().shards(tp)
    }

    /// Bytes that a token adds to what a layer keeps, and those it keeps of a sequence whatever its length.
    pub(crate) fn state(&self, kv: Dtype) -> (f64, f64) {
        (self.facts().kv_bytes_per_token(kv), self.facts().state_bytes(kv))
    }

    /// Bytes that a token's query and output take on all ranks.
    pub(crate) fn row_bytes(&self) -> f64 {
        self.facts().row_bytes()
    }

    /// Tables that measured its kernels; the first that is there will do.
    pub(crate) fn tables(&self) -> Vec<&'static str> {
        self.facts().tables()
    }

    /// Everything that is wrong with these sizes; paths are relative to it.
    pub(super) fn check(&self) -> Problems {
        let mut c = Check::new();
        self.facts().check(&mut c);
        c.problems
    }
}
