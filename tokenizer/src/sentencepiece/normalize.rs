//! Normalizes a text before it is cut into pieces: character rules, spaces and the dummy prefix.
//!
//! SentencePiece writes a space as `▁` (three bytes) and then matches pieces that contain `▁`. This crate does the
//! opposite: a space stays one byte, and `▁`, in pieces and in text, is read as a space. This form of a text is called
//! *canonical*. In the common case (no rules, spaces kept), no text is copied; see [`Normalizer::is_plain`].

use super::charsmap::Charsmap;
use super::user_defined::UserDefined;
use crate::error::Result;
use crate::model_file::ModelFile;
use crate::pieces::SPACE_MARK;

/// The rule for the space before a text, the dummy prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prefix {
    Always,
    /// Add the space if the text does not start with one already (Metaspace of `tokenizer.json`).
    UnlessSpace,
    Never,
}

pub(crate) struct Normalizer {
    charsmap: Option<Charsmap>,
    pub(crate) prefix: Prefix,
    /// The dummy space goes after the text.
    suffix: bool,
    pub(crate) remove_extra: bool,
    /// Whether `▁` and a space are the same.
    pub(crate) escape: bool,
}

impl Normalizer {
    pub(crate) fn new(model: &ModelFile) -> Result<Self> {
        let spec = &model.normalizer;
        let charsmap = match spec.precompiled_charsmap.as_slice() {
            [] => None,
            bytes => Some(Charsmap::parse(bytes)?),
        };
        Ok(Self {
            charsmap,
            prefix: if spec.add_dummy_prefix { Prefix::Always } else { Prefix::Never },
            suffix: model.treat_whitespace_as_suffix,
            remove_extra: spec.remove_extra_whitespaces,
            escape: spec.escape_whitespaces,
        })
    }

    /// A normalizer without character rules.
    pub(crate) fn bare(prefix: Prefix, escape: bool) -> Self {
        Self { charsmap: None, prefix, suffix: false, remove_extra: false, escape }
    }

    /// Whether canonical text is the text itself, apart from a space before it and `▁` for spaces.
    pub(crate) fn is_plain(&self) -> bool {
        self.charsmap.is_none() && !self.remove_extra && !self.suffix
    }

    /// Whether the rule `prefix` puts a space before `text`.
    pub(crate) fn wants_space(&self, text: &str, prefix: Prefix) -> bool {
        match prefix {
            Prefix::Always => !text.is_empty(),
            Prefix::UnlessSpace => !text.is_empty() && !text.starts_with([' ', SPACE_MARK]),
            Prefix::Never => false,
        }
    }

    /// Appends the canonical form of `text` to `out`. With `origin`, appends there the position in `text` where each
    /// byte of it came from, and one more for the end.
    pub(crate) fn run(
        &self,
        mut text: &str,
        prefix: Prefix,
        user: &UserDefined,
        out: &mut String,
        mut origin: Option<&mut Vec<usize>>,
    ) {
        let mut consumed = 0;
        if self.remove_extra {
            while let (len @ 1.., " ") = self.rule(text, user) {
                text = &text[len..];
                consumed += len;
            }
        }
        if text.is_empty() {
            return;
        }
        let start = out.len();
        let mut emit = |out: &mut String, c: char, consumed: usize| {
            out.push(if self.escape && c == SPACE_MARK { ' ' } else { c });
            if let Some(origin) = &mut origin {
                origin.resize(out.len() - start, consumed);
            }
        };
        let dummy = self.wants_space(text, prefix);
        if dummy && !self.suffix {
            emit(out, ' ', consumed);
        }
        let mut after_space = self.remove_extra;
        while !text.is_empty() {
            let (len, mut replacement) = self.rule(text, user);
            if after_space {
                replacement = replacement.trim_start_matches(' ');
            }
            if !replacement.is_empty() {
                replacement.chars().for_each(|c| emit(out, c, consumed));
                after_space = self.remove_extra && replacement.ends_with(' ');
            }
            consumed += len;
            text = &text[len..];
        }
        if self.remove_extra {
            out.truncate(start + out[start..].trim_end_matches(' ').len());
            if let Some(origin) = &mut origin
                && let Some(&cut) = origin.get(out.len() - start)
            {
                consumed = cut;
                origin.truncate(out.len() - start);
            }
        }
        if dummy && self.suffix {
            out.push(' ');
            if let Some(origin) = &mut origin {
                origin.push(consumed);
            }
        }
        if let Some(origin) = origin {
            origin.push(consumed);
        }
    }

    /// The number of bytes at the start of `text` that are replaced together, and their replacement. User-defined
    /// pieces are left alone.
    fn rule<'a>(&'a self, text: &'a str, user: &UserDefined) -> (usize, &'a str) {
        if let Some((len, _)) = user.longest_raw(text) {
            return (len, &text[..len]);
        }
        if let Some(rule) = self.charsmap.as_ref().and_then(|map| map.longest(text)) {
            return rule;
        }
        let len = text.chars().next().map_or(0, char::len_utf8);
        (len, &text[..len])
    }
}
