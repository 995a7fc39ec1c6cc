//! Reports a failure: a message on standard error (colored on a terminal), a JSON event if the command was given
//! `--json`, and an exit code by kind of error.

use super::out;
use crate::suggest::{printable, shortened};
use anstyle::{AnsiColor, Style};
use halfbyte_core::error::Error;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// The exit code of a wrong command line. A wrong recipe has the same code.
const USAGE: u8 = 2;

/// The most characters of a message: a name in it may be megabytes long.
const LONGEST: usize = 4000;

/// Reports the error of a command. Returns its exit code.
pub fn of_command(error: &Error) -> ExitCode {
    let code = error.exit_code();
    if wants_json() {
        event(code, error.what(), error.hint_line());
    }
    let (red, green) = (style(AnsiColor::Red), style(AnsiColor::Green));
    let safe = |text: &str| printable(&shortened(text, LONGEST)).into_owned();
    let mut text = format!("{red}error:{red:#} {}\n", safe(error.what()));
    if let Some(hint) = error.hint_line() {
        text += &format!("  {green}hint:{green:#} {}\n", safe(hint));
    }
    // If standard error is closed, the exit code still reports the failure.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(code)
}

/// Prints the error of a command line that cannot be parsed, or the help that it asks for.
pub fn of_arguments(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && wants_json() {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        event(USAGE, first.strip_prefix("error: ").unwrap_or(first), Some("--help lists all options"));
    }
    // A closed pipe (`--help | head`) is not an error.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Whether `--json` is given. Reads the raw arguments, because the command line may fail to parse.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// Prints the error event, the last line of output with `--json`.
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

fn style(color: AnsiColor) -> Style {
    color.on_default().bold()
}
