//! halfbyte: QLoRA fine-tuning of Llama, Mistral and Mixtral.
//!
//! The map of the crate. A module uses only modules below it in this list, which `tests/layering.rs` checks. The crate
//! `halfbyte_core` below them records, plans and runs models.
//!
//! * [`cli`]: the commands, one file each.
//! * [`quickstart`]: the embedded model, data and recipe of `halfbyte quickstart`.
//! * [`report`]: the HTML page of a run.
//! * [`run`]: a whole run, from a recipe to an adapter folder.
//! * [`generate`]: decoding, greedy or sampled.
//! * [`train`]: the training loop, learning rates, checkpoints.
//! * [`weights`]: checkpoints, 4-bit weights, adapters, merging.
//! * [`data`]: files → documents → micro-batches.
//! * [`hub`]: the Hugging Face Hub and its local cache.
//! * [`track`]: writes the logs of a run, also for TensorBoard and W&B, and reads them back.
//! * [`config`]: recipes and model folders, checked.
//! * [`sensors`]: what a GPU's sensors read.
//! * [`suggest`]: the known name nearest to a mistyped one; text that is safe to print.
//! * [`limits`]: limits of the system and of untrusted input.
//! * [`disk`]: writes files atomically, maps them, locks folders.

pub mod cli;
pub mod config;
pub mod data;
pub mod disk;
pub mod generate;
pub mod hub;
pub mod limits;
pub mod quickstart;
pub mod report;
pub mod run;
pub mod sensors;
pub mod suggest;
pub mod track;
pub mod train;
pub mod weights;
