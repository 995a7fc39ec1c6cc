//! Text to ids.

use super::{ByteLevel, NO_SYMBOL};
use crate::cache::{CacheSlot, SHORT};
use crate::encode::Token;
use crate::scratch::Scratch;
use crate::special::{SpecialTokens, TextOrSpecial, split};
use crate::unicode::normalize;

/// The number of words that are cut before the first of them is looked up.
const BATCH: usize = 64;

impl ByteLevel {
    /// Appends the ids of `text`, in which special tokens are ordinary text.
    pub(crate) fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        self.pool.with(|scratch| self.encode_text(text, false, scratch, out));
    }

    /// The ids of `text` with special tokens.
    pub(crate) fn encode_special(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 4);
        self.pool.with(|scratch| {
            split(text, &special.matcher, |part| match part {
                TextOrSpecial::Special(id) => out.push(id),
                TextOrSpecial::Text(part) => self.encode_text(part, special.own, scratch, &mut out),
            });
        });
        out
    }

    fn encode_text(&self, text: &str, special: bool, scratch: &mut Scratch, out: &mut Vec<u32>) {
        self.added.split(text, special, |span| match span.token {
            Some(id) => out.push(id),
            None if self.settings.nfc => {
                let normalized = normalize(&text[span.start..span.end], None);
                self.encode_normalized(&normalized, special, scratch, out);
            }
            None => self.encode_normalized(&text[span.start..span.end], special, scratch, out),
        });
    }

    fn encode_normalized(&self, text: &str, special: bool, scratch: &mut Scratch, out: &mut Vec<u32>) {
        self.added.split_normalized(text, special, |span| match span.token {
            Some(id) => out.push(id),
            None => self.encode_words(&text[span.start..span.end], scratch, out),
        });
    }

    fn encode_words(&self, text: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        let mut words = [(0, CacheSlot::default()); BATCH];
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            // Three passes over a batch: cut the text, fetch the cache entries of the words, use them. In a single
            // pass, the mispredicted branches of cutting would keep the fetches from overlapping.
            let mut count = 0;
            while count < BATCH && at < text.len() {
                at = self.splitter.word_end(text, at);
                words[count].0 = at;
                count += 1;
            }
            let (mut begin, mut touched) = (start, 0);
            for (end, slot) in &mut words[..count] {
                *slot = scratch.words.slot(bytes, begin, *end);
                touched ^= scratch.words.touch(*slot);
                begin = *end;
            }
            std::hint::black_box(touched);
            for &(end, slot) in &words[..count] {
                if end - start > SHORT {
                    self.encode_longer_word(text, start, end, scratch, out);
                } else if !scratch.words.get_at(slot, out) {
                    self.encode_new_word(&text[start..end], scratch, out);
                }
                start = end;
            }
        }
    }

    /// Encodes a word of more than [`SHORT`] bytes.
    fn encode_longer_word(&self, text: &str, start: usize, end: usize, scratch: &mut Scratch, out: &mut Vec<u32>) {
        if !text.as_bytes()[start + 1].is_ascii() {
            self.encode_long_word(&text[start..end], scratch, out);
        } else if !scratch.words.get(text.as_bytes(), start, end, out) {
            self.encode_new_word(&text[start..end], scratch, out);
        }
    }

    /// Encodes a word that the cache does not hold.
    #[inline(never)]
    fn encode_new_word(&self, word: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let begin = out.len();
        if word.len() > SHORT {
            self.encode_long_word(word, scratch, out);
        } else if let Some(id) = self.whole(word, scratch) {
            out.push(id);
        } else {
            self.merge(word.as_bytes(), scratch);
            out.extend_from_slice(&scratch.symbols);
        }
        scratch.words.put(word.as_bytes(), &out[begin..]);
    }

    /// Encodes a word part by part. Such words are mostly sentences of scripts without spaces, which hardly ever
    /// repeat.
    fn encode_long_word(&self, word: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        if let Some(id) = self.whole(word, scratch) {
            return out.push(id);
        }
        if self.byte_pairs.is_none() {
            // Dropping bytes creates neighbors that the joints do not cover.
            self.merge(word.as_bytes(), scratch);
            return out.extend_from_slice(&scratch.symbols);
        }
        let joints = self.joints();
        let mut at = 0;
        while at < word.len() {
            let end = joints.part_end(word, at);
            let parts = if self.settings.ignore_merges { &mut scratch.parts } else { &mut scratch.words };
            if !parts.get(word.as_bytes(), at, end, out) {
                self.encode_new_part(&word.as_bytes()[at..end], scratch, out);
            }
            at = end;
        }
    }

    /// Encodes a part of a word that the cache does not hold. `ignore_merges` applies to whole words only, so a part
    /// always becomes what its bytes merge into.
    #[inline(never)]
    fn encode_new_part(&self, part: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        self.merge(part, scratch);
        out.extend_from_slice(&scratch.symbols);
        let parts = if self.settings.ignore_merges { &mut scratch.parts } else { &mut scratch.words };
        parts.put(part, &scratch.symbols);
    }

    /// The token that equals the whole word, if the file gives it precedence over merging.
    fn whole(&self, word: &str, scratch: &mut Scratch) -> Option<u32> {
        let long = || word.len() > SHORT && !self.long_tokens().may_have(word.as_bytes());
        if !self.settings.ignore_merges || long() {
            return None;
        }
        let text = &mut scratch.normalized;
        text.clear();
        text.extend(word.bytes().map(|byte| self.chars[usize::from(byte)]));
        self.vocab.find(text)
    }

    /// Merges the symbols of `bytes` and leaves them in the scratch.
    fn merge(&self, bytes: &[u8], scratch: &mut Scratch) {
        scratch.symbols.clear();
        let symbols = bytes.iter().map(|byte| self.symbols[usize::from(*byte)]);
        let pairs = &self.vocab.pairs;
        if let Some(byte_pairs) = &self.byte_pairs {
            scratch.symbols.extend(symbols);
            scratch.merger.merge_bytes(pairs, byte_pairs, bytes, &mut scratch.symbols);
        } else {
            scratch.symbols.extend(symbols.filter(|symbol| *symbol != NO_SYMBOL));
            scratch.merger.merge(pairs, &mut scratch.symbols);
        }
    }

    /// The tokens of `text` with their byte ranges. Special tokens are ordinary text.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        self.pool.with(|scratch| {
            self.added.split(text, false, |span| match span.token {
                Some(id) => tokens.push(Token { id, span: span.start..span.end }),
                None => self.text_with_offsets(text, span.start..span.end, scratch, &mut tokens),
            });
        });
        tokens
    }

    /// The same for a part of a text that contains no added tokens matched as written.
    fn text_with_offsets(
        &self,
        text: &str,
        range: std::ops::Range<usize>,
        scratch: &mut Scratch,
        tokens: &mut Vec<Token>,
    ) {
        let part = &text[range.clone()];
        let mut origin = Vec::new();
        let normalized = match self.settings.nfc {
            true => normalize(part, Some(&mut origin)),
            false => part.into(),
        };
        // The range in `text` that a range of the normalized part comes from, extended to whole characters.
        let place = |start: usize, end: usize| match origin.as_slice() {
            [] => range.start + floor(part, start)..range.start + ceil(part, end),
            origin if start < end => range.start + origin[start].0..range.start + origin[end - 1].1,
            _ => range.start..range.start,
        };
        self.added.split_normalized(&normalized, false, |span| {
            if let Some(id) = span.token {
                tokens.push(Token { id, span: place(span.start, span.end) });
                return;
            }
            let (words, mut at) = (&normalized[..span.end], span.start);
            while at < span.end {
                // Look-ahead must not read beyond the text between two added tokens.
                let end = span.start + self.splitter.word_end(&words[span.start..], at - span.start);
                self.word_with_offsets(words, at..end, scratch, |id, start, end| {
                    tokens.push(Token { id, span: place(start, end) });
                });
                at = end;
            }
        });
    }

    /// Calls `each` with the tokens of a word and their byte ranges in the text.
    fn word_with_offsets(
        &self,
        text: &str,
        word: std::ops::Range<usize>,
        scratch: &mut Scratch,
        mut each: impl FnMut(u32, usize, usize),
    ) {
        if let Some(id) = self.whole(&text[word.clone()], scratch) {
            return each(id, word.start, word.end);
        }
        let bytes = &text.as_bytes()[word.clone()];
        self.merge(bytes, scratch);
        let mut known = (word.start..).zip(bytes).filter(|(_, byte)| self.symbols[usize::from(**byte)] != NO_SYMBOL);
        for &id in &scratch.symbols {
            let count = self.bytes().of(id).len();
            let first = known.next().map_or(word.end, |(at, _)| at);
            let last = if count > 1 { known.nth(count - 2).map_or(first, |(at, _)| at) } else { first };
            each(id, first, last + 1);
        }
    }
}

/// The beginning of the character that byte `at` belongs to.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The end of the character that byte `at - 1` belongs to.
fn ceil(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}
