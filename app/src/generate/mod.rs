//! Generates text with a model: prompts in the format of the training data, and decoding.

mod decode;
mod prompt;

pub use decode::{Decoding, decode};
pub use prompt::{Asked, ask};
