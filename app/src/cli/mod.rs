//! The command line: one file for each command.

/// `println!` that ignores a closed pipe (`| head`).
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out(&(format!($($text)*) + "\n")) };
}

mod arena_svg;
mod budget;
mod device;
mod devices;
mod examples;
mod failure;
mod forecast;
mod generate;
mod heartbeat;
mod inspect;
mod inspect_data;
mod keys;
mod listing;
mod manual;
mod pace;
mod peak;
mod plan;
mod preamble;
mod progress;
mod quickstart;
mod report;
mod summary;
mod tokenize;
mod train;
mod trained;
mod tree;

use crate::limits;
use crate::suggest::printable;
use anstream::{AutoStream, ColorChoice};
use clap::{CommandFactory, Parser, Subcommand};
use halfbyte_core::error::{Error, Result};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// QLoRA fine-tuning of Llama, Mistral and Mixtral.
#[derive(Parser, Debug)]
#[command(name = "halfbyte", version, about, max_term_width = 110, after_help = examples::PROGRAM)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Fine-tune a tiny embedded model, and ask it questions before and after
    #[command(after_help = examples::QUICKSTART)]
    Quickstart(quickstart::QuickstartArgs),
    /// Fine-tune a model with a recipe
    #[command(after_help = examples::TRAIN)]
    Train(train::TrainArgs),
    /// Show the resolved recipe and the memory that it needs, without a GPU or weights
    #[command(after_help = examples::PLAN)]
    Plan(plan::PlanArgs),
    /// Show how a recipe's data become text, tokens, masks and rows, without weights
    #[command(after_help = examples::INSPECT_DATA)]
    InspectData(inspect_data::InspectDataArgs),
    /// Ask a trained model a question, or continue a text with any model
    #[command(after_help = examples::GENERATE)]
    Generate(generate::GenerateArgs),
    /// Write one HTML page about a run: curves, results, sampled answers, the recipe
    #[command(after_help = examples::REPORT)]
    Report(report::ReportArgs),
    /// Show a model's tensors, modules that can be adapted, and parameter counts
    #[command(after_help = examples::INSPECT)]
    Inspect(inspect::InspectArgs),
    /// Convert text to token ids, pieces or counts, and ids back to text
    #[command(after_help = examples::TOKENIZE)]
    Tokenize(tokenize::TokenizeArgs),
    /// List driver, GPUs, their memory, and the code path chosen for each
    #[command(after_help = examples::DEVICES)]
    Devices(devices::DevicesArgs),
    /// Explain the keys of a recipe
    #[command(after_help = examples::KEYS)]
    Keys(keys::KeysArgs),
    /// Print completions for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(manual::CompletionArgs),
    /// Print a manual page
    #[command(after_help = examples::MAN)]
    Man(manual::ManArgs),
}

/// Parses the command line, runs the command, and reports a failure. Returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::of_arguments(&error),
    };
    let report = |error: &Error| {
        failure::of_command(error);
    };
    match limits::install(report).and_then(|()| cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::of_command(&error),
    }
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
            Command::Keys(args) => keys::run(&args),
            Command::Completions(args) => manual::completions(&args, Cli::command()),
            Command::Man(args) => manual::man(&args, Cli::command()),
        }
    }
}

/// Prints `text` to standard output. A closed pipe (`| head`) is not an error. On a terminal, control characters are
/// replaced, except those that set colors.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { without_controls(text) } else { text.into() };
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// `text` with all control characters replaced but tabs, ends of lines, and sequences that set colors (`ESC [ … m`).
fn without_controls(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut safe = printable(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && !matches!(c, '[' | ';'));
        let is_color = part.starts_with('[') && end.is_some_and(|end| part[end..].starts_with('m'));
        safe.push(if is_color { '\x1b' } else { '␛' });
        safe += &printable(part);
    }
    safe
}

/// Prints a line to standard error, where it does not mix with results.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
}

/// Whether standard output may be colored: it is a terminal, and NO_COLOR, CLICOLOR and TERM allow it.
fn is_colored() -> bool {
    AutoStream::choice(&std::io::stdout()) != ColorChoice::Never
}

/// `1 token`, `2 tokens`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Formats bytes with a unit: `1.25 GiB`.
pub fn human_bytes(bytes: usize) -> String {
    let (unit, name) = match bytes {
        b if b >= 1 << 30 => (1 << 30, "GiB"),
        b if b >= 1 << 20 => (1 << 20, "MiB"),
        _ => (1 << 10, "KiB"),
    };
    format!("{:.2} {name}", bytes as f64 / f64::from(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colors_and_no_other_control_sequences() {
        assert_eq!(
            without_controls("\x1b[32mgreen\x1b[0m\n\x1b[2J\x1b]0;title\x07"),
            "\x1b[32mgreen\x1b[0m\n␛[2J␛]0;title␇"
        );
        assert_eq!(without_controls("a\x1b"), "a␛");
    }
}
