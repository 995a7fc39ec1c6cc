//! Encodes text: normalizes it, cuts it where no merge applies, and looks up or merges each part.

use std::collections::HashMap;

use super::SentencePiece;
use super::normalize::Prefix;
use crate::encode::Token;
use crate::merge::Merger;
use crate::pieces::PieceKind;
use crate::scratch::Scratch;
use crate::vocab::{AsciiBlock, CharInfo};

/// Marks a symbol that is a character outside all pieces.
pub(crate) const FOREIGN: u32 = 1 << 31;

impl SentencePiece {
    /// Appends the ids of `text`.
    pub(crate) fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        self.encode_prefixed(text, self.normalizer.prefix, out);
    }

    /// The ids of `text` without a space before it.
    pub(crate) fn encode_continuation(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 4);
        self.encode_prefixed(text, Prefix::Never, &mut out);
        out
    }

    /// Appends the ids of `text`, with a space before it where `prefix` asks for one.
    pub(crate) fn encode_prefixed(&self, text: &str, prefix: Prefix, out: &mut Vec<u32>) {
        let begin = out.len();
        self.pool.with(|scratch| {
            if self.normalizer.is_plain() && !self.user_with_space {
                let space = self.normalizer.wants_space(text, prefix);
                self.encode_canonical(text, space, scratch, out);
            } else {
                let mut normalized = std::mem::take(&mut scratch.normalized);
                normalized.clear();
                self.normalizer.run(text, prefix, &self.user, &mut normalized, None);
                self.encode_canonical(&normalized, false, scratch, out);
                scratch.normalized = normalized;
            }
        });
        if self.byte_ids.is_none() {
            self.merge_unknown(begin, out);
        }
    }

    /// Replaces each run of unknown pieces by one.
    fn merge_unknown(&self, begin: usize, out: &mut Vec<u32>) {
        let mut kept = begin;
        for at in begin..out.len() {
            if out[at] != self.unk || kept == begin || out[kept - 1] != self.unk {
                out[kept] = out[at];
                kept += 1;
            }
        }
        out.truncate(kept);
    }

    /// Cuts canonical text where no merge applies, and encodes the parts. With `space`, the result is as if a space
    /// preceded the text.
    fn encode_canonical(&self, text: &str, space: bool, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let mut at = 0;
        if space {
            let info = self.vocab.chars.get(' ');
            let end = self.part_end(text, 0, ' ', info);
            if end == 0 {
                self.emit_char(' ', info, out);
            } else {
                let mut first = std::mem::take(&mut scratch.first);
                first.clear();
                first.push(' ');
                first.push_str(&text[..end]);
                self.encode_part(&first, 0, first.len(), scratch, out);
                scratch.first = first;
            }
            at = end;
        }
        loop {
            at = self.encode_ascii(text, at, scratch, out);
            let Some(c) = text[at..].chars().next() else { return };
            let (c, info) = self.canonical(c);
            if info.starts_user()
                && let Some((len, id)) = self.user.longest(&text[at..])
            {
                out.push(id);
                at += len;
                continue;
            }
            let next = at + self.written_len(&text[at..], c);
            let end = self.part_end(text, next, c, info);
            if end == next {
                self.emit_char(c, info, out);
            } else {
                self.encode_part(text, at, end, scratch, out);
            }
            at = end;
        }
    }

    /// Encodes ASCII parts from `start` on, up to the first character that is not ASCII or that may start a
    /// user-defined piece. Returns the start of the first part that is not encoded.
    #[inline(always)]
    fn encode_ascii(&self, text: &str, mut start: usize, scratch: &mut Scratch, out: &mut Vec<u32>) -> usize {
        let bytes = text.as_bytes();
        let mut at = start;
        let user_starts = |at: usize| !self.user.is_empty() && self.vocab.chars.get(bytes[at] as char).starts_user();
        // A block is not worth its cost for a few letters between other characters.
        let few = &bytes[at..bytes.len().min(at + 16)];
        if few.first().is_none_or(|byte| !byte.is_ascii()) || !few.is_ascii() || user_starts(at) {
            return start;
        }
        loop {
            let AsciiBlock { len, mut stops } = self.vocab.borders.ascii_block(bytes, at);
            // A part has at least one character.
            stops &= !u64::from(at == start);
            while stops != 0 {
                let end = at + stops.trailing_zeros() as usize;
                if user_starts(end) {
                    return start;
                }
                self.encode_part(text, start, end, scratch, out);
                start = end;
                stops &= stops - 1;
            }
            at += len;
            if at == bytes.len() {
                if start < at {
                    self.encode_part(text, start, at, scratch, out);
                }
                return at;
            }
            if len < 64 {
                return start;
            }
        }
    }

    /// The canonical form of a character: plain text may have `▁` for a space.
    #[inline(always)]
    fn canonical(&self, c: char) -> (char, CharInfo) {
        let c = if c == '▁' && self.normalizer.escape { ' ' } else { c };
        (c, self.vocab.chars.get(c))
    }

    /// The bytes that the canonical character `c` takes at the start of `text`.
    #[inline(always)]
    fn written_len(&self, text: &str, c: char) -> usize {
        if c == ' ' && !text.starts_with(' ') { '▁'.len_utf8() } else { c.len_utf8() }
    }

    /// The end of a part of which everything before `at` is known; `last` is its last character so far.
    #[inline(always)]
    fn part_end(&self, text: &str, mut at: usize, mut last: char, mut last_info: CharInfo) -> usize {
        while let Some(written) = text[at..].chars().next() {
            let (c, info) = self.canonical(written);
            if !self.vocab.borders.joins(last, last_info, c, info)
                || info.starts_user() && self.user.longest(&text[at..]).is_some()
            {
                return at;
            }
            (last, last_info) = (c, info);
            at += written.len_utf8();
        }
        at
    }

    /// Encodes `text[start..end]`. It must contain no user-defined piece, and no merge may cross its ends.
    #[inline(always)]
    fn encode_part(&self, text: &str, start: usize, end: usize, scratch: &mut Scratch, out: &mut Vec<u32>) {
        if !scratch.words.get(text.as_bytes(), start, end, out) {
            self.encode_new(&text[start..end], scratch, out);
        }
    }

    #[inline(never)]
    fn encode_new(&self, part: &str, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let begin = out.len();
        self.merge_part(part, scratch);
        for i in 0..scratch.symbols.len() {
            self.emit(scratch.symbols[i], out);
        }
        scratch.words.put(part.as_bytes(), &out[begin..]);
    }

    /// Merges the symbols of `part` and leaves them in the scratch.
    fn merge_part(&self, part: &str, scratch: &mut Scratch) {
        scratch.symbols.clear();
        scratch.symbols.extend(part.chars().map(|c| {
            let (c, info) = self.canonical(c);
            info.symbol().unwrap_or(FOREIGN | c as u32)
        }));
        scratch.merger.merge(&self.vocab.pairs, &mut scratch.symbols);
        self.take_apart(&mut scratch.symbols);
    }

    /// Whether text may produce the symbol as an id.
    #[inline(always)]
    fn has_id(&self, symbol: u32) -> bool {
        self.vocab.is_piece(symbol) && (self.withheld.is_empty() || !self.withheld.contains(&symbol))
    }

    /// Appends the ids of a symbol: its own, or those of the bytes of a character without one.
    #[inline]
    fn emit(&self, symbol: u32, out: &mut Vec<u32>) {
        if self.has_id(symbol) {
            out.push(symbol);
        } else if let Some(c) = self.character(symbol) {
            self.emit_unknown(c, out);
        }
    }

    #[inline(always)]
    fn emit_char(&self, c: char, info: CharInfo, out: &mut Vec<u32>) {
        match info.symbol() {
            Some(symbol) if self.has_id(symbol) => out.push(symbol),
            _ => self.emit_unknown(c, out),
        }
    }

    /// The character of a symbol without an id.
    fn character(&self, symbol: u32) -> Option<char> {
        match symbol & FOREIGN {
            0 => self.vocab.text(symbol).chars().next(),
            _ => char::from_u32(symbol & !FOREIGN),
        }
    }

    fn emit_unknown(&self, c: char, out: &mut Vec<u32>) {
        let c = if c == ' ' && self.normalizer.escape { '▁' } else { c };
        match &self.byte_ids {
            Some(ids) => out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|b| ids[usize::from(b)])),
            None => out.push(self.unk),
        }
    }

    /// Merges a whole canonical text, with its user-defined pieces, and leaves the symbols in the scratch.
    fn merge_whole(&self, text: &str, scratch: &mut Scratch) {
        let symbols = &mut scratch.symbols;
        symbols.clear();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let one = || (c.len_utf8(), self.vocab.chars.get(c).symbol().unwrap_or(FOREIGN | c as u32));
            let (len, symbol) = self.user.longest(rest).unwrap_or_else(one);
            symbols.push(symbol);
            rest = &rest[len..];
        }
        scratch.merger.merge(&self.vocab.pairs, symbols);
        self.take_apart(symbols);
    }

    /// Splits unused pieces into the symbols that they were merged from.
    fn take_apart(&self, symbols: &mut Vec<u32>) {
        if self.unused.is_empty() {
            return;
        }
        let mut pending: Vec<u32> = symbols.drain(..).rev().collect();
        while let Some(symbol) = pending.pop() {
            match self.unused.get(&symbol) {
                Some(&(left, right)) => pending.extend([right, left]),
                None => symbols.push(symbol),
            }
        }
    }

    /// The two symbols that each unused piece is merged from. SentencePiece records them while it encodes. Merges
    /// inside a piece's text do not depend on what is around it, so these symbols are the same wherever the piece
    /// occurs.
    pub(crate) fn unused_parts(&self) -> HashMap<u32, (u32, u32)> {
        let mut merger = Merger::default();
        let unused = self.pieces.kinds().iter().zip(0..).filter(|(kind, _)| **kind == PieceKind::Unused);
        unused
            .filter_map(|(_, id)| {
                let text = self.vocab.text(id);
                let mut symbols: Vec<u32> =
                    text.chars().map(|c| self.vocab.chars.get(c).symbol().unwrap_or(FOREIGN | c as u32)).collect();
                merger.merge_long(&self.vocab.pairs, &mut symbols, 2);
                match symbols.as_slice() {
                    &[left, right] => Some((id, (left, right))),
                    _ => None,
                }
            })
            .collect()
    }

    /// The tokens of `text` with the bytes that each stands for.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Vec<Token> {
        let mut normalized = String::new();
        let mut origin = Vec::new();
        self.normalizer.run(text, self.normalizer.prefix, &self.user, &mut normalized, Some(&mut origin));
        let mut tokens: Vec<Token> = Vec::new();
        self.pool.with(|scratch| {
            self.merge_whole(&normalized, scratch);
            let mut at = 0;
            let mut ids = Vec::new();
            for &symbol in &scratch.symbols {
                ids.clear();
                self.emit(symbol, &mut ids);
                let unknown = self.character(symbol).filter(|_| !self.has_id(symbol));
                let len = match unknown {
                    Some(c) => c.len_utf8(),
                    None => self.canonical_len(symbol),
                };
                let span = origin[at]..origin[at + len];
                at += len;
                if unknown.is_some()
                    && self.byte_ids.is_none()
                    && let Some(last) = tokens.last_mut().filter(|t| t.id == self.unk)
                {
                    last.span.end = span.end;
                    continue;
                }
                let silent = ids.len().saturating_sub(1);
                tokens.extend(ids[..silent].iter().map(|&id| Token { id, span: span.start..span.start }));
                tokens.extend(ids.last().map(|&id| Token { id, span }));
            }
        });
        tokens
    }

    /// The length of a piece in canonical text.
    fn canonical_len(&self, id: u32) -> usize {
        let text = self.pieces.get(id).map(|p| p.text).unwrap_or_default();
        if self.normalizer.escape { text.len() - 2 * text.matches('▁').count() } else { text.len() }
    }
}
