//! Training: the arithmetic of steps and learning rates.

pub mod arithmetic;
pub mod build;
pub mod data;
pub mod load;
pub mod schedule;
pub mod session;
pub mod trainer;
