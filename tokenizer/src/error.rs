//! What can go wrong: always with the place (file, field, value) and, where a user can act, what to do.

use std::path::{Path, PathBuf};

/// A tokenizer that cannot be read, or an id that it does not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// "read" or "write".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An error of one of the other kinds, in this file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The bytes are not a SentencePiece model.
    #[error("not a SentencePiece model: {what}; the file may be truncated or of another kind")]
    Malformed {
        /// The field and the offset at which reading failed.
        what: String,
    },
    /// A SentencePiece model, but one whose fields contradict each other.
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
    /// The text is not JSON, or not of the shape of a `tokenizer.json`.
    #[error("not a tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// An id that the vocabulary does not have.
    #[error("token id {id} is outside of the vocabulary of {size} pieces")]
    NoSuchId {
        /// The id.
        id: u32,
        /// The number of pieces.
        size: usize,
    },
    /// The trainer's settings or its text do not allow a vocabulary.
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
    /// Says in which file.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Error::Io { .. } | Error::InFile { .. } => self,
            other => Error::InFile { path: path.to_owned(), source: Box::new(other) },
        }
    }
}
