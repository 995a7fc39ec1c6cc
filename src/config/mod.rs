//! What users write, parsed into types that cannot be wrong: below this module nobody asks again.
//!
//! * [`lora`]: a LoRA configuration, from a recipe or an adapter folder.
//! * [`model`]: a model folder's `config.json` → [`model::ModelConfig`].
//! * [`fields`]: reading fields of a JSON object with errors that name file, field and value.
//! * [`rope`]: rotary frequencies and their scaling.

pub mod fields;
pub mod lora;
pub mod model;
pub mod rope;
