//! From records to micro-batches.

pub mod random;
pub mod sampler;
pub mod subset;
