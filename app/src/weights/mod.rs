//! Model folders and adapter folders.
//!
//! * [`safetensors`]: a checkpoint's tensors, mapped into memory; writing such files.
//! * [`names`]: which tensors and which linear modules a model has; parameter counts.
//! * [`load`]: fills a session from them.
//! * [`quantize`]: 4-bit weights, made here or by bitsandbytes.
//! * [`targets`]: which modules a LoRA configuration adapts.
//! * [`adapter`]: PEFT adapter folders, read and written.
//! * [`merge`]: base weights with an adapter added; [`export`]: such a model as a folder of its own.

pub mod adapter;
pub mod export;
pub mod load;
pub mod merge;
pub mod names;
pub mod quantize;
pub mod safetensors;
pub mod targets;
