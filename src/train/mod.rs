//! Training: the loop, and what it needs: steps, learning rates, programs, sessions, checkpoints.

pub mod arithmetic;
pub mod build;
pub mod checkpoint;
pub mod data;
pub mod dummy;
pub mod load;
pub mod schedule;
pub mod session;
pub mod state;
pub mod trainer;
