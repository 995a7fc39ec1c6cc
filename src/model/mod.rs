//! The models, written once, forward only. Running this code records a program.
//!
//! * `config`: the shapes of a model; `rope`: its rotary frequencies; `names`: its linear modules.
//! * `spec`: what is to be recorded: model, base format, adapters, loss, optimizer.
//! * `params`: weights and adapters, and which checkpoint tensor or adapter tensor fills which; `exchange`: inputs and
//!   outputs; `optimizer`: AdamW's buffers.
//! * `linear`: a product with a frozen base and trained adapters.
//! * `llama`: the stack of blocks, and their experts; `head`: norm, head, loss.
//! * `steps`: the phases of a program.

mod config;
mod exchange;
mod head;
mod linear;
mod llama;
mod names;
mod optimizer;
mod params;
mod rope;
mod spec;
mod steps;

pub use config::{Architecture, Experts, ModelConfig, QuantConfig};
pub use exchange::{Exchange, Selected};
pub use linear::{AdapterTensor, Base, LoraFactor, Projection};
pub use names::{EMBEDDING, HEAD, Linear, MlpNames, linears};
pub use optimizer::{AdamGroup, OptimizerState};
pub use params::{Fill, Params, WeightTensor};
pub use rope::{Rope, RopeScaling};
pub use spec::{AdapterSpec, LossSpec, OptimizerKind, OptimizerSpec, Paging, Spec};
pub use steps::{Model, record, record_on};
