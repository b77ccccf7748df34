//! Models from Hugging Face `config.json`.
//!
//! Limit: `config.json` and what lies beside it; code of a model (`modeling_*.py`) is never read.

mod attention;
mod class;
mod config;
mod ffn;
pub(super) mod fields;
mod formats;
mod order;
mod patterns;
mod quant;
mod remarks;
mod unread;
