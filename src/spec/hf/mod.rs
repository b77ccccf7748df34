//! Models from Hugging Face `config.json`.

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
