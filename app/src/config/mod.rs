//! Parses what users write into types that cannot be wrong: code above this module does not check again.
//!
//! * [`config_json`]: a model folder's `config.json`; `rope`: its rotary frequencies.
//! * [`recipe`]: a recipe → [`recipe::Recipe`], made of `model_source`, [`data`], [`lora`], `quantization` and
//!   [`training`] (with [`best`] and [`cadence`]).
//! * [`known`]: architectures that need no folder; [`chat_templates`]: chat templates that have a name.
//! * [`keys`]: what is done with each key that a recipe may have; [`raw`]: a recipe as it was typed.
//! * [`fields`]: reading fields of a JSON object with errors that name file, field and value.

pub mod best;
pub mod cadence;
pub mod chat_templates;
pub mod config_json;
pub mod data;
pub mod fields;
pub mod keys;
pub mod known;
pub mod lora;
mod lora_section;
mod model_fields;
mod model_source;
mod quantization;
pub mod raw;
pub mod recipe;
mod rope;
pub mod training;
