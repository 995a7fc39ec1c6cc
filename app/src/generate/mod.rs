//! Text from a model.

mod decode;

pub use decode::{Decoding, decode};
