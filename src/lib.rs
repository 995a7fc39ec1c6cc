//! halfbyte: QLoRA fine-tuning of Llama, Mistral and Mixtral.

pub mod config;
pub mod device;
pub mod dtype;
pub mod error;
pub mod op;
pub mod plan;
