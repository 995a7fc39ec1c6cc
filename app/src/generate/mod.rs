//! Text from a model.

mod decode;
mod prompt;

pub use decode::{Decoding, decode};
pub use prompt::ask;
