//! The models, written once, forward only. Running this code records a program.
//!
//! * `config`: the shapes of a model; `rope`: its rotary frequencies; `names`: its linear modules.
//! * `spec`: what is to be recorded: model, base format, adapters, loss, optimizer.
//! * `params`: the resident buffers, and which checkpoint tensor or adapter tensor fills which; `optimizer`: AdamW's.
//! * `linear`: a product with a frozen base and trained adapters.
//! * `llama`: block and stack of Llama and Mistral; `moe`: Mixtral's experts; `head`: norm, head, loss.
//! * `steps`: the phases of a program.

mod config;
mod head;
mod linear;
mod llama;
mod moe;
mod names;
mod optimizer;
mod params;
mod rope;
mod spec;
mod steps;

pub use config::{Experts, Family, ModelConfig, QuantConfig};
pub use linear::{Base, Projection};
pub use names::{EMBEDDING, HEAD, Linear, linears};
pub use optimizer::{AdamGroup, OptimizerState};
pub use params::{AdapterTensor, Exchange, Fill, Half, Params, Selected, WeightTensor};
pub use rope::{Rope, RopeScaling};
pub use spec::{AdapterSpec, LossSpec, OptimizerKind, OptimizerSpec, Spec};
pub use steps::{Model, record, record_on};
