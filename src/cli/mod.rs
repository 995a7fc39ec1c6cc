//! The command line: one file for each command.

mod plan;

use crate::error::Result;
use clap::{Parser, Subcommand};

/// QLoRA fine-tuning of Llama, Mistral and Mixtral.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what a recipe resolves to and how much memory it needs; no GPU and no weights needed
    Plan(plan::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Plan(args) => plan::run(args),
        }
    }
}

/// Bytes as people read them: `1.25 GiB`.
pub fn human_bytes(bytes: usize) -> String {
    let (unit, name) = match bytes {
        b if b >= 1 << 30 => (1 << 30, "GiB"),
        b if b >= 1 << 20 => (1 << 20, "MiB"),
        _ => (1 << 10, "KiB"),
    };
    format!("{:.2} {name}", bytes as f64 / f64::from(unit))
}
