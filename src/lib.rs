//! halfbyte: QLoRA fine-tuning of Llama, Mistral and Mixtral.
//!
//! The map of the crate. A module uses only modules further down (`tests/layering.rs` reads every `crate::` in it):
//!
//! * [`cli`]: the commands, one file each.
//! * [`quickstart`]: model, texts and recipe of the README's first command.
//! * [`report`]: the HTML page of a run.
//! * [`run`]: a whole run, from a recipe to an adapter folder.
//! * [`generate`]: decoding, greedy or sampled.
//! * [`train`]: recipe → program → session; the training loop, learning rates, checkpoints.
//! * [`model`]: Llama, Mistral, Mixtral and LoRA, written once, forward only. Running this code records a program.
//! * [`weights`]: checkpoints, 4-bit weights, adapters, merging.
//! * [`data`]: files → documents → micro-batches.
//! * [`tape`]: the recorder and the passes over what it recorded: derivatives, recomputation, fusion, pruning.
//! * [`device`]: what runs a program. `cpu` is the definition of every op.
//! * [`plan`]: addresses for buffers.
//! * [`op`]: the instruction set, and what each op reads and writes.
//! * [`track`]: what a run logs, for TensorBoard and W&B, and read back.
//! * [`config`]: recipes and model folders, checked.
//! * [`dtype`], [`error`].
//!
//! A training step goes: recipe → data → `model` records → `tape` derives → `plan` → `device` replays, step after step.

pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod dtype;
pub mod error;
pub mod generate;
pub mod model;
pub mod op;
pub mod plan;
pub mod quickstart;
pub mod report;
pub mod run;
pub mod tape;
pub mod track;
pub mod train;
pub mod weights;
