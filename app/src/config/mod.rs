//! Parses recipes and model folders into checked types, so that other modules need no checks.
//!
//! * [`config_json`]: a model folder's `config.json`; `rope`: its rotary frequencies.
//! * [`recipe`]: a recipe → [`recipe::Recipe`], made of `model_source`, [`data`], [`lora`], `quantization` and
//!   [`training`] (with [`best`] and [`cadence`]).
//! * [`known`]: architectures that need no folder; [`chat_templates`]: the named chat templates.
//! * [`keys`]: all keys that a recipe may have, with their documentation; [`raw`]: a recipe as it was written.
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
