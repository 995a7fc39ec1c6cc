//! Pieces that are found in the text before anything is merged: at every character the longest one that starts there.

use std::collections::HashMap;

use crate::normalize::SPACE_MARK;

/// Strings by first character: the lengths to try (longest first), and the strings themselves.
#[derive(Default)]
pub(crate) struct Matcher {
    lengths: HashMap<char, Vec<usize>>,
    ids: HashMap<Box<str>, u32>,
    /// A bit for each ASCII character that a string starts with: most text is decided by it.
    ascii_first: u128,
}

impl Matcher {
    /// False if `text` is there already. Empty strings are never found and not kept.
    pub(crate) fn insert(&mut self, text: &str, id: u32) -> bool {
        let Some(first) = text.chars().next() else { return true };
        if self.ids.contains_key(text) {
            return false;
        }
        self.ids.insert(text.into(), id);
        self.ascii_first |= if first.is_ascii() { 1 << (first as u32) } else { 0 };
        let lengths = self.lengths.entry(first).or_default();
        if let Err(at) = lengths.binary_search_by(|len| text.len().cmp(len)) {
            lengths.insert(at, text.len());
        }
        true
    }

    /// Whether nothing can be found.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The characters that a match can start with.
    pub(crate) fn first_chars(&self) -> impl Iterator<Item = char> {
        self.lengths.keys().copied()
    }

    /// The length and the id of the longest string that `text` starts with.
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, u32)> {
        let first = *text.as_bytes().first()?;
        if self.ids.is_empty() || first < 0x80 && self.ascii_first >> first & 1 == 0 {
            return None;
        }
        let lengths = self.lengths.get(&text.chars().next()?)?;
        lengths.iter().find_map(|&len| Some((len, *self.ids.get(text.get(..len)?)?)))
    }
}

/// The user-defined pieces, as they are found before normalisation (as written) and after it (canonical).
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

    /// False if the piece is there already.
    pub(crate) fn insert(&mut self, text: &str, id: u32) -> bool {
        if !self.escape {
            self.canonical.insert(text, id);
        } else if !text.contains(' ') {
            // Normalised text has no space, hence a piece with one is never found after normalisation.
            self.canonical.insert(&text.replace(SPACE_MARK, " "), id);
        }
        self.raw.insert(text, id)
    }

    /// The piece with exactly this text, as written.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.raw.ids.get(text).copied()
    }

    /// All pieces, as written, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, u32)> {
        self.raw.ids.iter().map(|(text, id)| (&**text, *id))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    pub(crate) fn longest_raw(&self, text: &str) -> Option<(usize, u32)> {
        self.raw.longest(text)
    }

    /// The match in text that is canonical, or that is plain and may hold `▁` for a space.
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, u32)> {
        self.canonical.longest(text)
    }

    pub(crate) fn first_chars(&self) -> impl Iterator<Item = char> {
        self.canonical.first_chars()
    }
}
