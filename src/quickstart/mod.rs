//! The quickstart: a complete fine-tuning run that needs no download.
//!
//! Model, tokenizer and texts are the project's own. [`world`] holds what there is, [`prose`] the text that the base
//! model was made from, [`tasks`](mod@tasks) the instruction set that it is fine-tuned on.

pub mod prose;
pub mod tasks;
pub mod world;
