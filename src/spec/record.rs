//! How a spec is declared: once. From one declaration come the serde struct, its `Default` where every field has one,
//! and a macro that hands every field with its type, default and documentation on to the Python floor.
//!
//! ```text
//! record! {
//!     /// One pool of an AFD unit.
//!     pub struct PoolPlan as pool {
//!         /// GPUs of the pool.
//!         pub gpus: u32,
//!         /// Tensor-parallel width of a rank.
//!         #[serde(default = "one")]
//!         pub tp: u32 = 1,
//!     }
//! }
//! ```
//!
//! The default after `=` is that of the constructor in Python. What JSON may leave out say serde's own attributes,
//! or, where every field has a default, the whole struct.

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
            #[derive($($($derive)*)?)]
            #[serde(default)]
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
        pub struct $name:ident as $fields:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($how:tt)*)])?
                pub $field:ident: $kind:ty $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[derive($($derive)*)])?
        #[serde(deny_unknown_fields)]
        $(#[serde($($container)*)])?
        pub struct $name {
            $( $(#[doc = $doc])* $(#[serde($($how)*)])? pub $field: $kind, )*
        }

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
