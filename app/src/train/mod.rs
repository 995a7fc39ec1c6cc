//! The training loop ([`trainer`]) and its parts: the length of a run, learning rates, evaluation, records,
//! checkpoints, and a watchdog that stops runs that learn nothing.

pub mod checkpoint;
pub mod evaluate;
pub mod length;
pub mod records;
pub mod schedule;
pub mod state;
pub mod trainer;
pub mod watchdog;
