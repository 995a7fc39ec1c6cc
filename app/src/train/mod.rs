//! Training: the loop, and what it needs: steps, learning rates, programs, sessions, checkpoints.

pub mod arithmetic;
pub mod checkpoint;
pub mod schedule;
pub mod state;
pub mod system;
pub mod trainer;
