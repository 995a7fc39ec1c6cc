//! From records to micro-batches.

pub mod sampler;
