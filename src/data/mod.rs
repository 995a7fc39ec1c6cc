//! From records to micro-batches.

pub mod batch;
pub mod loader;
pub mod packing;
pub mod random;
pub mod sampler;
pub mod spill;
pub mod subset;
pub mod tokens;
