//! Reads records and turns them into micro-batches.

pub mod chat;
pub mod document;
pub mod files;
pub mod format;
pub mod loader;
pub mod markup;
pub mod open;
pub mod packing;
pub mod prepare;
pub mod random;
pub mod recognize;
pub mod report;
pub mod sampler;
pub mod source;
pub mod spill;
pub mod subset;
pub mod table;
pub mod template;
mod template_limits;
pub mod tokenizer_config;
pub mod tokens;
