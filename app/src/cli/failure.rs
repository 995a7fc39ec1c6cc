//! How the program ends when it fails: an error in color on a terminal, as a JSON event where a machine listens, and an
//! exit code that says whose fault it is.

use super::out;
use anstyle::{AnsiColor, Style};
use halfbyte_core::error::Error;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// The exit code of a wrong command line, as that of a wrong recipe.
const USAGE: u8 = 2;

/// A command has failed.
pub fn of_command(error: &Error) -> ExitCode {
    let code = error.exit_code();
    if wants_json() {
        event(code, error.what(), hint(error).as_deref());
    }
    let (red, green) = (style(AnsiColor::Red), style(AnsiColor::Green));
    let mut text = format!("{red}error:{red:#} {}\n", error.what());
    if let Some(hint) = hint(error) {
        text += &format!("  {green}hint:{green:#} {hint}\n");
    }
    // A message that nobody can read changes nothing about the failure.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(code)
}

/// The command line cannot be parsed, or asks for help.
pub fn of_arguments(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && wants_json() {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        event(USAGE, first.strip_prefix("error: ").unwrap_or(first), Some("--help lists what there is"));
    }
    // A reader that has gone away (`--help | head`) is no error.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Whether this call asks for JSON. The command line may be one that cannot be parsed.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// The last line of a program that was told `--json`.
fn event(code: u8, message: &str, hint: Option<&str>) {
    let kind = match code {
        2 => "usage",
        3 => "input",
        4 => "system",
        130 => "interrupted",
        _ => "run",
    };
    let event = json!({"event": "error", "kind": kind, "exit_code": code, "message": message, "hint": hint});
    out(&format!("{event}\n"));
}

/// What an error says to do.
fn hint(error: &Error) -> Option<String> {
    let text = error.to_string();
    Some(text.strip_prefix(error.what())?.trim_start().strip_prefix("hint: ")?.to_string())
}

fn style(color: AnsiColor) -> Style {
    color.on_default().bold()
}
