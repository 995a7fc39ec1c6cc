//! halfbyte: QLoRA fine-tuning of Llama, Mistral and Mixtral.
//!
//! The map of the crate. A module uses only modules further down (`tests/layering.rs` reads every `crate::` in it); what
//! records, plans and runs a model is the crate `halfbyte_core` below it.
//!
//! * [`cli`]: the commands, one file each.
//! * [`quickstart`]: model, texts and recipe of the README's first command.
//! * [`report`]: the HTML page of a run.
//! * [`run`]: a whole run, from a recipe to an adapter folder.
//! * [`generate`]: decoding, greedy or sampled.
//! * [`train`]: the training loop, learning rates, checkpoints.
//! * [`weights`]: checkpoints, 4-bit weights, adapters, merging.
//! * [`data`]: files → documents → micro-batches.
//! * [`hub`]: the Hugging Face Hub and its local cache.
//! * [`track`]: what a run logs, for TensorBoard and W&B, and read back.
//! * [`config`]: recipes and model folders, checked.
//! * [`suggest`]: the known name nearest to a mistyped one.

pub mod cli;
pub mod config;
pub mod data;
pub mod generate;
pub mod hub;
pub mod quickstart;
pub mod report;
pub mod run;
pub mod suggest;
pub mod track;
pub mod train;
pub mod weights;
