//! What users write, parsed into types that cannot be wrong: below this module nobody asks again.
//!
//! * [`config_json`]: a model folder's `config.json`; `rope`: its rotary frequencies.
//! * [`recipe`]: a recipe → [`recipe::Recipe`], made of [`data`], [`lora`], [`training`], [`cadence`] and [`best`].
//! * [`known`]: architectures that need no folder.
//! * [`keys`]: what we do with each key that a recipe may have; [`raw`]: a recipe as it was typed.
//! * [`fields`]: reading fields of a JSON object with errors that name file, field and value.

pub mod best;
pub mod cadence;
pub mod config_json;
pub mod data;
pub mod fields;
pub mod keys;
pub mod known;
pub mod lora;
mod model_fields;
pub mod raw;
pub mod recipe;
mod rope;
pub mod training;
