//! The training loop, and what it needs: the length of a run, learning rates, evaluation, records, checkpoints, and a watch
//! over runs that learn nothing.

pub mod checkpoint;
pub mod evaluate;
pub mod length;
pub mod records;
pub mod schedule;
pub mod state;
pub mod trainer;
pub mod watchdog;
