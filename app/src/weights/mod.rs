//! Model folders and adapter folders.
//!
//! * [`safetensors`]: maps the tensors of a checkpoint into memory, and writes such files.
//! * [`names`]: the tensors and linear modules of a model by name; parameter counts.
//! * [`load`]: fills a session with the weights of a model and an adapter.
//! * [`identity`]: 128 bits that tell base weights apart, computed while they are loaded.
//! * [`dummy`]: random weights in the shape of a model, for benchmarks.
//! * [`quantize`]: 4-bit weights, quantized here or by bitsandbytes.
//! * [`targets`]: which modules a LoRA configuration adapts.
//! * [`adapter`]: reads and writes PEFT adapter folders.
//! * [`merge`]: adds an adapter to the base weights; [`export`] writes the merged model to its own folder.

pub mod adapter;
pub mod dummy;
pub mod export;
pub mod identity;
pub mod load;
pub mod merge;
pub mod names;
pub mod quantize;
pub mod safetensors;
pub mod targets;
