//! What users write, parsed into types that cannot be wrong: below this module nobody asks again.
//!
//! * [`model`]: a model folder's `config.json` → [`model::ModelConfig`].
//! * [`fields`]: reading fields of a JSON object with errors that name file, field and value.

pub mod fields;
pub mod model;
pub mod rope;
