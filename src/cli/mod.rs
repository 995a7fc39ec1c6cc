//! The commands, one file each.

pub mod inspect;
mod tree;

use std::io::Write;

/// Prints `text` to standard output. A reader that has gone away (`| head`) is no error.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
