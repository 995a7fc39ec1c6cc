//! Finds user-defined pieces in a text before any merging. The longest piece that starts at a character wins.

use crate::matcher::Matcher;
use crate::pieces::SPACE_MARK;

/// The user-defined pieces, in the forms found before normalization (as written) and after it (canonical).
#[derive(Default)]
pub(crate) struct UserDefined {
    raw: Matcher,
    canonical: Matcher,
    escape: bool,
}

impl UserDefined {
    pub(crate) fn new(escape: bool) -> Self {
        Self { escape, ..Self::default() }
    }

    /// Adds a piece. Returns false if another piece has the same text.
    pub(crate) fn insert(&mut self, text: &str, id: u32) -> bool {
        if !self.escape {
            self.canonical.insert(text, id);
        } else if !text.contains(' ') {
            // Normalized text has no real space, so a piece with one is never found there.
            self.canonical.insert(&text.replace(SPACE_MARK, " "), id);
        }
        self.raw.insert(text, id)
    }

    /// The piece with exactly this text, as written.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.raw.id(text)
    }

    /// All pieces, as written, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, u32)> {
        self.raw.all()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    pub(crate) fn longest_raw(&self, text: &str) -> Option<(usize, u32)> {
        self.raw.longest(text)
    }

    /// The longest match at the start of a canonical text, or of a plain one, which may have `▁` for a space.
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, u32)> {
        self.canonical.longest(text)
    }

    pub(crate) fn first_chars(&self) -> impl Iterator<Item = char> {
        self.canonical.first_chars()
    }
}
