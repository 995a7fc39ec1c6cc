//! Training: the arithmetic of steps and learning rates.

pub mod arithmetic;
pub mod schedule;
pub mod session;
