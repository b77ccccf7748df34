//! How a spec is declared: once. From one declaration come the struct, its form in JSON, its `Default` where every field
//! has one, and a macro that hands every field with its type, default and documentation on to the Python floor.
//!
//! ```text
//! record! {
//!     /// One pool of an AFD unit.
//!     pub struct PoolPlan as pool {
//!         /// GPUs of the pool.
//!         pub gpus: u32,
//!         /// Tensor-parallel width of a rank.
//!         pub tp: u32 = 1,
//!     }
//! }
//! ```
//!
//! What has a default after `=` may be left out, in JSON as in the constructor in Python. Where a field has none, an
//! `or { field: value }` after the struct's names says what its `Default` takes there, which nothing but Rust reads. A `#[serde(default)]` before
//! the struct takes from its own `Default` what JSON leaves out; a `#[serde(...)]` before a field says how it is written
//! (`skip_serializing_if`).
//!
//! Limit: structs of named fields; an enum is written by hand, and a default may not hang on another field.

use serde::{Deserialize, Deserializer};

/// A field that is given; one that is left out is none.
pub(crate) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Declares a spec; see the module.
macro_rules! record {
    (@all ($d:tt)
        $(#[doc = $about:literal])*
        $(#[derive($($derive:tt)*)])?
        pub struct $name:ident as $fields:ident {
            $( $(#[doc = $doc:literal])* pub $field:ident: $kind:ty = $default:expr ),* $(,)?
        }
    ) => {
        record! { @one ($d)
            $(#[doc = $about])*
            $(#[derive($($derive)*)])?
            pub struct $name as $fields { $( $(#[doc = $doc])* pub $field: $kind = $default ),* }
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default),* }
            }
        }
    };
    (@all $($one:tt)*) => { record! { @one $($one)* } };
    (@one ($d:tt)
        $(#[doc = $about:literal])*
        $(#[derive($($derive:tt)*)])?
        $(#[serde($($container:tt)*)])?
        pub struct $name:ident as $fields:ident $(or { $($must:ident: $alone:expr),+ })? {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($how:tt)*)])?
                pub $field:ident: $kind:ty $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        $(#[derive($($derive)*)])?
        $(#[derive(serde::Deserialize)] #[serde(deny_unknown_fields, $($container)*)])?
        pub struct $name {
            $( $(#[doc = $doc])* $(#[serde($($how)*)])? pub $field: $kind, )*
        }

        record! { @read [$($($container)*)?] $name { $( $field: $kind, [$($default)?]; )* } }
        record! { @alone [$($($must = $alone),+)?] $name { $( $field: [$($default)?]; )* } }

        #[cfg(feature = "python")]
        macro_rules! $fields {
            ($d then:ident $d ($d head:tt)*) => {
                $d then! {
                    $d ($d head)* $name [$($about)*]
                    $( $field: $kind, [$($default)?], [$($doc)*]; )*
                }
            };
        }
        #[cfg(feature = "python")]
        pub(crate) use $fields;
    };
    (@read [] $name:ident { $( $field:ident: $kind:ty, [$($default:expr)?]; )* }) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let given = {
                    // Errors say its name.
                    #[derive(serde::Deserialize)]
                    #[serde(deny_unknown_fields)]
                    struct $name {
                        $( #[serde(default, deserialize_with = "crate::spec::record::given")] $field: Option<$kind>, )*
                    }
                    <$name as serde::Deserialize>::deserialize(from)?
                };
                Ok(Self { $(
                    $field: match given.$field {
                        Some(value) => value,
                        None => record!(@left_out D, $field, $($default)?),
                    },
                )* })
            }
        }
    };
    (@read [$($container:tt)+] $($rest:tt)*) => {};
    (@alone [] $($rest:tt)*) => {};
    (@alone [$($must:ident = $alone:expr),+] $name:ident { $( $field:ident: [$($default:expr)?]; )* }) => {
        impl Default for $name {
            fn default() -> Self {
                $name { $($must: $alone,)+ $( $($field: $default,)? )* }
            }
        }
    };
    (@left_out $from:ident, $field:ident,) => {
        return Err(<$from::Error as serde::de::Error>::missing_field(stringify!($field)))
    };
    (@left_out $from:ident, $field:ident, $default:expr) => { $default };
    (@$($wrong:tt)*) => { compile_error!("a record is documented, then derived, then its fields stand"); };
    ($($all:tt)*) => { record! { @all ($) $($all)* } };
}

/// Declares enums whose values are names, in JSON and in Python.
macro_rules! choices {
    ($($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? })+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every value, as JSON and Python call it.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// Every value, in the same order.
            pub const ALL: &'static [Self] = &[$($name::$variant),+];

            /// As JSON and Python call it.
            pub fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }

            /// The value of that name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == name)
            }
        }
    )+ };
}

pub(crate) use {choices, record};
