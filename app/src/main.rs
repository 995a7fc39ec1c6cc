//! The `halfbyte` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    halfbyte::cli::main()
}
