//! Finds literal strings in a text. The leftmost match wins, and the longest of those that start at one position.

use std::collections::HashMap;

/// A set of strings, each with an id.
#[derive(Default)]
pub(crate) struct Matcher {
    /// For each first character, the lengths to try, longest first.
    lengths: HashMap<char, Vec<usize>>,
    ids: HashMap<Box<str>, u32>,
    /// A bit for each ASCII character that some string starts with. Testing it rejects most positions of a text.
    ascii_first: u128,
}

/// A string found in a text.
pub(crate) struct Match {
    /// The byte offset of its first byte.
    pub(crate) start: usize,
    /// The byte offset after its last byte.
    pub(crate) end: usize,
    pub(crate) id: u32,
}

impl Matcher {
    /// Adds a string. Returns false if it is in the set already. Empty strings are ignored.
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

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The id of exactly this string.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// All strings, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().map(|(text, id)| (&**text, *id))
    }

    /// The characters that a match can start with.
    pub(crate) fn first_chars(&self) -> impl Iterator<Item = char> {
        self.lengths.keys().copied()
    }

    /// The length and the id of the longest string that `text` starts with.
    #[inline]
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, u32)> {
        let first = *text.as_bytes().first()?;
        if self.ids.is_empty() || first < 0x80 && self.ascii_first >> first & 1 == 0 {
            return None;
        }
        let lengths = self.lengths.get(&text.chars().next()?)?;
        lengths.iter().find_map(|&len| Some((len, *self.ids.get(text.get(..len)?)?)))
    }

    /// The first match that starts at or after byte `from`.
    pub(crate) fn next(&self, text: &str, from: usize) -> Option<Match> {
        // Special tokens usually share their first character, and a vectorized search can find it.
        let mut firsts = self.lengths.keys();
        let only = firsts.next().filter(|_| firsts.len() == 0);
        let mut at = from;
        loop {
            at += match only {
                Some(first) => text[at..].find(*first)?,
                None if self.is_empty() => return None,
                None => 0,
            };
            let first = text[at..].chars().next()?;
            if let Some((len, id)) = self.longest(&text[at..]) {
                return Some(Match { start: at, end: at + len, id });
            }
            at += first.len_utf8();
        }
    }
}
