//! Special tokens written in the text, as transformers' Llama tokenizers treat them.

use super::{Prefix, SentencePiece};
use crate::pieces::SPACE_MARK;
use crate::special::{SpaceRule, SpecialTokens, TextOrSpecial, split};

impl SentencePiece {
    /// The ids of `text`, in which literal special tokens become their ids. This is transformers' `encode(text,
    /// add_special_tokens=False)`.
    pub(crate) fn encode_special(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        if special.rule == SpaceRule::FirstPart {
            return self.encode_first_part(text, special);
        }
        let mut out = Vec::new();
        split(text, &special.matcher, |part| match part {
            TextOrSpecial::Special(id) => out.push(id),
            TextOrSpecial::Text(part) if !special.marked.is_empty() => {
                let normalized = format!(" {}", part.replace(SPACE_MARK, " "));
                split(&normalized, &special.marked, |part| match part {
                    TextOrSpecial::Special(id) => out.push(id),
                    TextOrSpecial::Text(part) => self.encode_prefixed(part, Prefix::Never, &mut out),
                });
            }
            TextOrSpecial::Text(part) => {
                let first = out.is_empty() || special.rule == SpaceRule::EveryPart;
                let prefix = if first { self.normalizer.prefix } else { Prefix::Never };
                self.encode_prefixed(part, prefix, &mut out);
            }
        });
        out
    }

    fn encode_first_part(&self, text: &str, special: &SpecialTokens) -> Vec<u32> {
        let mut out = Vec::new();
        if text.is_empty() {
            return out;
        }
        let mut marked = text.replace(SPACE_MARK, " ");
        if self.normalizer.prefix != Prefix::Never {
            marked.insert(0, SPACE_MARK);
        }
        // A part that begins with a space is encoded after the unknown piece's text, whose ids are then removed. Its
        // space is then no leading space, so models that drop leading spaces keep it.
        let unk = self.pieces.get(self.unk).map(|p| p.text).unwrap_or_default();
        let mut guard = Vec::new();
        self.encode_prefixed(unk, Prefix::Never, &mut guard);
        let mut second_is_special = false;
        split(&marked, &special.matcher, |part| match part {
            TextOrSpecial::Special(id) => {
                second_is_special |= out.len() == 1;
                out.push(id);
            }
            TextOrSpecial::Text(part) if part.starts_with([SPACE_MARK, ' ']) => {
                let mut ids = Vec::new();
                self.encode_prefixed(&format!("{unk}{part}"), Prefix::Never, &mut ids);
                let from = if ids.len() >= guard.len() { guard.len() } else { 0 };
                out.extend_from_slice(&ids[from..]);
            }
            TextOrSpecial::Text(part) => self.encode_prefixed(part, Prefix::Never, &mut out),
        });
        // The added space is dropped if a special token follows right after it.
        if second_is_special && self.pieces.get(out[0]).is_some_and(|p| p.text == "▁") {
            out.remove(0);
        }
        out
    }
}
