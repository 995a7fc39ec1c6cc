//! halfbyte: QLoRA fine-tuning of Llama, Mistral and Mixtral.

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
pub mod tape;
pub mod train;
pub mod weights;
