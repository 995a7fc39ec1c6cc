//! The reference: a model recorded once, differentiated, planned and replayed on a CPU or on a GPU.
//!
//! The map of the crate. A module uses only modules further down (`tests/layering.rs` reads every `crate::` in it):
//!
//! * [`session`]: a recorded model on a device: its inputs, one training step, evaluation, the next token.
//! * [`model`]: Llama, its relatives and LoRA, written once, forward only. Running this code records a program.
//! * [`tape`]: the recorder and the passes over what it recorded: derivatives, recomputation, pruning, order.
//! * [`device`]: what runs a program. `cpu` is the definition of every op.
//! * [`plan`]: addresses for buffers.
//! * [`op`]: the instruction set, and what each op reads and writes.
//! * [`quant`]: the 4-bit and 8-bit formats of bitsandbytes.
//! * [`random`]: counter-based random numbers.
//! * [`dtype`], [`error`].
//!
//! A training step goes: `model` records → `tape` derives → `plan` places → `device` replays, step after step. The package
//! `halfbyte` in `app/` is the program around it: recipes, data, checkpoints, the training loop and the command line.

pub mod device;
pub mod dtype;
pub mod error;
pub mod model;
pub mod op;
pub mod plan;
pub mod quant;
pub mod random;
pub mod session;
pub mod tape;
