//! The command line: one file for each command.

/// `println!` that takes a reader that has gone away (`| head`) for no error.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out(&(format!($($text)*) + "\n")) };
}

mod device;
mod devices;
mod forecast;
mod generate;
mod heartbeat;
mod inspect;
mod inspect_data;
mod plan;
mod preamble;
mod progress;
mod quickstart;
mod report;
mod summary;
mod tokenize;
mod train;
mod tree;

use clap::{Parser, Subcommand};
use halfbyte_core::error::Result;
use std::io::Write;

/// QLoRA fine-tuning of Llama, Mistral and Mixtral.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Fine-tune a tiny model that comes with the program, and ask it questions before and after
    Quickstart(quickstart::Args),
    /// Fine-tune a model as a recipe says
    Train(train::Args),
    /// Make one HTML page of a run: curves, results, sampled answers, the recipe
    Report(report::Args),
    /// List the devices that a run can use: driver, GPUs, memory, and the code path chosen
    Devices(devices::Args),
    /// Show what a recipe resolves to and how much memory it needs; no GPU and no weights needed
    Plan(plan::Args),
    /// Continue a prompt with a model, with or without an adapter
    Generate(generate::Args),
    /// Show a model folder: tensors, modules that can be adapted, parameter counts
    Inspect(inspect::Args),
    /// Show what a recipe's data become: records, text, tokens, masks, rows; no weights needed
    InspectData(inspect_data::Args),
    /// Text to token ids, pieces or counts, and ids back to text
    Tokenize(tokenize::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Quickstart(args) => quickstart::run(args),
            Command::Train(args) => train::run(args),
            Command::Generate(args) => generate::run(args),
            Command::Report(args) => report::run(&args),
            Command::Devices(args) => devices::run(args),
            Command::Plan(args) => plan::run(args),
            Command::Inspect(args) => inspect::run(&args),
            Command::InspectData(args) => inspect_data::run(&args),
            Command::Tokenize(args) => tokenize::run(args),
        }
    }
}

/// Prints `text` to standard output. A reader that has gone away (`| head`) is no error.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
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
