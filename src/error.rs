//! The one error type. An error says in one line what is wrong (with the file, the field and the value)
//! and, where a user can act on it, in a second line what to do.

use std::fmt;
use std::path::Path;

/// Whose fault it is; decides the exit code of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The command line or the recipe is wrong (exit code 2).
    Usage,
    /// A model folder, an adapter or a data file is wrong (exit code 3).
    Input,
    /// The machine refused: disk full, no GPU, not enough memory (exit code 4).
    System,
    /// The run itself failed: the loss is not finite, for instance (exit code 5).
    Run,
    /// The user stopped it (exit code 130, as a shell reports a program that Ctrl-C ends).
    Interrupted,
}

/// An error and the advice that goes with it.
#[derive(Debug)]
pub struct Error {
    /// Whose fault it is.
    pub kind: ErrorKind,
    what: String,
    hint: Option<String>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A wrong command line or recipe.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }
    /// A wrong model folder, adapter or data file.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, what)
    }
    /// The machine refused.
    pub fn system(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, what)
    }
    /// The run failed.
    pub fn run(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Run, what)
    }
    /// The user stopped the run.
    pub fn interrupted(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interrupted, what)
    }
    /// An I/O error on `path`; `doing` is a verb: "read", "create", "map".
    pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::Input } else { ErrorKind::System };
        let new = Self::new(kind, format!("cannot {doing} {}: {error}", path.display()));
        use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, StorageFull};
        match (error.kind(), error.raw_os_error()) {
            (StorageFull | QuotaExceeded, _) => new.hint("free some space there"),
            (FileTooLarge, _) => new.hint("raise the limit on the size of a file (ulimit -f)"),
            (PermissionDenied, _) => new.hint("check the permissions, or name another folder"),
            // EMFILE, which has no kind of its own.
            (_, Some(24)) if cfg!(unix) => new.hint("raise the limit on open files (ulimit -n)"),
            _ => new,
        }
    }
    fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None }
    }
    /// Adds the line that says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Puts `place` (a file, a key) in front of the message.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }
    /// The exit code of the program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Input => 3,
            ErrorKind::System => 4,
            ErrorKind::Run => 5,
            ErrorKind::Interrupted => 130,
        }
    }
    /// The hint, if there is one.
    pub fn hint_line(&self) -> Option<&str> {
        self.hint.as_deref()
    }
    /// The message without the hint.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_a_line_of_its_own() {
        let e = Error::usage("unknown key `lr`").hint("did you mean `learning_rate`?").at("recipe.toml");
        assert_eq!(e.to_string(), "recipe.toml: unknown key `lr`\n  hint: did you mean `learning_rate`?");
    }
}
