//! Finds added tokens in a text before it is cut into words. Their flags are those of a `tokenizer.json`.

use std::collections::HashMap;

use crate::matcher::Matcher;
use crate::unicode::{CHARS, class};

/// An entry of `added_tokens`.
#[derive(Clone, Debug)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    /// The text to find. The content of a normalized token is normalized itself.
    pub(crate) content: String,
    pub(crate) flags: Flags,
}

/// How an added token is matched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flags {
    /// The token is ordinary text unless the caller asks for special tokens.
    pub(crate) special: bool,
    /// The token does not match next to a letter, digit or other character of a word.
    pub(crate) single_word: bool,
    /// The token includes the white space before it.
    pub(crate) lstrip: bool,
    /// The token includes the white space after it.
    pub(crate) rstrip: bool,
    /// The token is matched in the normalized text, not in the text as written.
    pub(crate) normalized: bool,
}

/// The added tokens of a file.
#[derive(Default)]
pub(crate) struct Added {
    as_written: Set,
    normalized: Set,
}

#[derive(Default)]
struct Set {
    matcher: Matcher,
    flags: HashMap<u32, Flags>,
    all_special: bool,
}

/// An added token in a text, or the text between two of them. `start` and `end` are byte offsets.
pub(crate) struct Span {
    pub(crate) token: Option<u32>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Added {
    /// Adds a token. Returns false if another token has the same content.
    pub(crate) fn insert(&mut self, token: &AddedToken) -> bool {
        let set = if token.flags.normalized { &mut self.normalized } else { &mut self.as_written };
        set.all_special = token.flags.special && (set.flags.is_empty() || set.all_special);
        set.flags.insert(token.id, token.flags);
        set.matcher.insert(&token.content, token.id)
    }

    /// Splits a text at the tokens that are matched as written. Special tokens are ordinary text unless `special` is
    /// set.
    pub(crate) fn split(&self, text: &str, special: bool, each: impl FnMut(Span)) {
        self.as_written.split(text, special, each);
    }

    /// Splits a normalized text at the tokens that are matched in normalized text.
    pub(crate) fn split_normalized(&self, text: &str, special: bool, each: impl FnMut(Span)) {
        self.normalized.split(text, special, each);
    }
}

impl Set {
    fn split(&self, text: &str, special: bool, mut each: impl FnMut(Span)) {
        let (mut done, mut at) = (0, 0);
        let next = |at| if self.all_special && !special { None } else { self.matcher.next(text, at) };
        while let Some(found) = next(at) {
            let (mut start, mut end) = (found.start, found.end);
            // A match that is rejected below still hides matches that overlap it, as in the library.
            at = end;
            let flags = self.flags.get(&found.id).copied().unwrap_or_default();
            let within = flags.single_word && (ends_in_word(&text[..start]) || starts_in_word(&text[end..]));
            if flags.special && !special || within {
                continue;
            }
            if flags.lstrip {
                // The previous token may have taken the space already.
                start = trim_end(&text[..start]).len().max(done);
            }
            if flags.rstrip {
                end = text.len() - trim_start(&text[end..]).len();
            }
            if done < start {
                each(Span { token: None, start: done, end: start });
            }
            each(Span { token: Some(found.id), start, end });
            done = end;
        }
        if done < text.len() {
            each(Span { token: None, start: done, end: text.len() });
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(CHARS.get(c).class(), class::SPACE | class::NEWLINE)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

fn starts_in_word(text: &str) -> bool {
    text.chars().next().is_some_and(|c| CHARS.get(c).is_word())
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| CHARS.get(c).is_word())
}
