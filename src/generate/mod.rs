//! Text from a model.

mod greedy;

pub use greedy::{Greedy, greedy};
