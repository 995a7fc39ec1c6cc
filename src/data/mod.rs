//! From records to micro-batches.

pub mod batch;
pub mod files;
pub mod loader;
pub mod packing;
pub mod random;
pub mod sampler;
pub mod source;
pub mod spill;
pub mod subset;
pub mod table;
pub mod tokens;
