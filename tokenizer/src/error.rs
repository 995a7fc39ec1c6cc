//! Errors. Each names the place (file, field, value) and, where the user can act, what to do.

use std::path::{Path, PathBuf};

/// Why a tokenizer cannot be read, trained or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// "read" or "write".
        doing: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// An error of another kind, with the file that it occurred in.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The path of the file.
        path: PathBuf,
        /// The error without the path.
        source: Box<Error>,
    },
    /// The bytes are not a SentencePiece model.
    #[error("not a SentencePiece model: {what}; the file may be truncated or of another kind")]
    Malformed {
        /// The field and the offset at which reading failed.
        what: String,
    },
    /// The file's fields contradict each other.
    #[error("invalid tokenizer: {what}")]
    Invalid {
        /// The field, the value, and what was expected.
        what: String,
    },
    /// A valid tokenizer of a kind that this crate does not implement.
    #[error("unsupported tokenizer: {what}")]
    Unsupported {
        /// The field, its value, and what is supported.
        what: String,
    },
    /// The text is not JSON, or does not have the shape of a `tokenizer.json`.
    #[error("not a tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// The vocabulary does not have this id.
    #[error("token id {id} is outside the vocabulary of {size} pieces")]
    NoSuchId {
        /// The id that was asked for.
        id: u32,
        /// The number of pieces in the vocabulary.
        size: usize,
    },
    /// The trainer cannot build a vocabulary from its settings and texts.
    #[error("cannot train: {what}")]
    Train {
        /// The setting, its value, and what to change.
        what: String,
    },
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Error::Malformed { what: what.into() }
    }
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Error::Invalid { what: what.into() }
    }
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported { what: what.into() }
    }
    pub(crate) fn train(what: impl Into<String>) -> Self {
        Error::Train { what: what.into() }
    }
    /// Adds the file to the error.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Error::Io { .. } | Error::InFile { .. } => self,
            other => Error::InFile { path: path.to_owned(), source: Box::new(other) },
        }
    }
}
