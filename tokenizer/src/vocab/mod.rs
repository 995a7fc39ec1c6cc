//! The vocabulary compiled for merging.
//!
//! A *symbol* is what merging works on: a piece, or a single character that only occurs inside pieces. Symbols of
//! pieces have the piece's id, the others follow. Three tables say everything about merging:
//!
//! * [`CharTable`]: the symbol of each character;
//! * [`PairTable`]: two neighbouring symbols whose texts together are a piece, the piece, and its rank (0 goes first);
//! * [`Borders`]: the pairs of characters that some merge joins. Between any other two characters nothing ever merges,
//!   so the text can be cut there and the parts be encoded independently, whatever the vocabulary is.

mod tables;
mod texts;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::normalize::SPACE_MARK;
use texts::{Beginnings, Texts};

pub(crate) use tables::{AsciiBlock, CharInfo, Merge, PairTable};
use tables::{Borders, CharTable};

/// More pieces than this are refused: symbols have 29 bits, and phantoms follow the pieces.
const MOST_PIECES: usize = 1 << 27;

/// What merging needs to know; see the head of this file.
pub(crate) struct Vocab {
    pub(crate) chars: CharTable,
    pub(crate) pairs: PairTable,
    pub(crate) borders: Borders,
    texts: Texts,
    pieces: u32,
}

/// A piece that merging may produce.
pub(crate) struct Mergeable<'a> {
    pub(crate) id: u32,
    pub(crate) text: &'a str,
}

/// How the merges and their order are given.
pub(crate) enum Order<'a> {
    /// Any two neighbours whose texts together are a piece merge; the piece with the highest score goes first.
    Scores(&'a dyn Fn(u32) -> f32),
    /// A list of (left, right, merged), first come first.
    List(&'a [(u32, u32, u32)]),
}

/// A way to put a piece together, and the two characters that meet there.
struct Found {
    pair: (u32, u32, Merge),
    before: char,
    after: char,
}

/// How many pieces a thread takes at a time.
const PART: u32 = 4096;

impl Vocab {
    /// `count` is the number of ids; `mergeable` are those of them that merging may produce, in ascending order.
    pub(crate) fn new(
        count: usize,
        mergeable: &[Mergeable],
        order: Order,
        escape: bool,
        user_first: impl Iterator<Item = char>,
    ) -> Result<Self> {
        let bytes: usize = mergeable.iter().map(|m| m.text.len()).sum();
        if count > MOST_PIECES || bytes > u32::MAX as usize / 8 {
            let what = format!("a vocabulary of {count} pieces and {bytes} bytes; at most {MOST_PIECES} pieces");
            return Err(Error::unsupported(what));
        }
        let mut vocab = Self {
            chars: CharTable::new(),
            pairs: PairTable::new(&[]),
            borders: Borders::new(),
            texts: Texts::new(count, bytes),
            pieces: count as u32,
        };
        let mut next = mergeable.iter().peekable();
        for id in 0..count as u32 {
            match next.next_if(|m| m.id == id) {
                // Canonical text has no `▁`; a piece with a space in it can never be found there.
                Some(m) if !(escape && m.text.contains(' ')) => {
                    vocab.texts.push(m.text, escape);
                    if !vocab.texts.index(id) {
                        return Err(Error::invalid(format!("piece {id} {:?} is defined twice", m.text)));
                    }
                    vocab.index_char(id);
                }
                _ => {
                    vocab.texts.push("", escape);
                }
            }
        }
        let pairs = match order {
            Order::Scores(score) => {
                vocab.add_phantoms();
                vocab.pairs_by_score(score)
            }
            Order::List(merges) => vocab.listed_pairs(merges),
        };
        vocab.pairs = PairTable::new(&pairs);
        for c in user_first {
            vocab.chars.starts_user(c);
            vocab.borders.starts_user(c);
        }
        if escape {
            vocab.chars.set(SPACE_MARK, vocab.chars.get(' '));
        }
        Ok(vocab)
    }

    /// The text of a symbol, canonical.
    pub(crate) fn text(&self, symbol: u32) -> &str {
        self.texts.get(symbol)
    }

    /// The mergeable piece with this canonical text.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.texts.find(text).filter(|symbol| self.is_piece(*symbol))
    }

    /// Whether the symbol is a piece, so that it has an id.
    #[inline]
    pub(crate) fn is_piece(&self, symbol: u32) -> bool {
        symbol < self.pieces
    }

    /// Enters the symbol in the table of characters if it is one.
    fn index_char(&mut self, symbol: u32) {
        let mut chars = self.texts.get(symbol).chars();
        if let (Some(c), None) = (chars.next(), chars.next()) {
            self.chars.set(c, CharInfo::of(symbol));
        }
    }

    /// Gives a symbol to every character that is in a piece without being one.
    fn add_phantoms(&mut self) {
        let mut missing = Vec::new();
        for piece in 0..self.pieces {
            missing.extend(self.texts.get(piece).chars().filter(|c| self.chars.get(*c).symbol().is_none()));
        }
        missing.sort_unstable();
        missing.dedup();
        for c in missing {
            let symbol = self.texts.push(c.encode_utf8(&mut [0; 4]), false);
            self.texts.index(symbol);
            self.chars.set(c, CharInfo::of(symbol));
        }
    }

    /// All ways to put a piece together from two symbols.
    fn pairs_by_score(&mut self, score: &dyn Fn(u32) -> f32) -> Vec<(u32, u32, Merge)> {
        // Dense ranks: equal scores must have equal ranks, since ties go from left to right in the text.
        let mut order: Vec<(f32, u32)> = (0..self.pieces).map(|id| (score(id), id)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut ranks = vec![0; self.pieces as usize];
        let (mut rank, mut last) = (0, None);
        for (score, id) in order {
            if last.is_some_and(|last| last != score) {
                rank += 1;
            }
            last = Some(score);
            ranks[id as usize] = rank;
        }
        // The longest part of loading, hence on several threads; in what order they finish does not matter.
        let parts = self.pieces.div_ceil(PART);
        let found: Vec<Vec<Found>> = (0..parts).into_par_iter().map(|part| self.splits(part * PART, &ranks)).collect();
        let mut pairs = Vec::with_capacity(found.iter().map(Vec::len).sum());
        for Found { pair, before, after } in found.into_iter().flatten() {
            pairs.push(pair);
            self.chars.join(before, after);
            self.borders.join(before, after);
        }
        pairs
    }

    /// The ways to put together the pieces from `first` on, a part's number of them.
    fn splits(&self, first: u32, ranks: &[u32]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut hashes = Beginnings::default();
        for symbol in first..self.pieces.min(first + PART) {
            let text = self.texts.get(symbol);
            let merge = Merge { rank: ranks[symbol as usize], symbol };
            self.texts.beginnings(text, &mut hashes);
            let mut last = None;
            for (at, after) in text.char_indices() {
                if let Some(before) = last.replace(after)
                    && let Some(left) = self.texts.find_start(text, &hashes, at)
                    && let Some(right) = self.texts.find_end(text, &hashes, at)
                {
                    found.push(Found { pair: (left, right, merge), before, after });
                }
            }
        }
        found
    }

    /// The pairs of a list; the first has the first rank.
    fn listed_pairs(&mut self, merges: &[(u32, u32, u32)]) -> Vec<(u32, u32, Merge)> {
        for &(left, right, _) in merges {
            let (left, right) = (self.texts.get(left), self.texts.get(right));
            if let (Some(before), Some(c)) = (left.chars().next_back(), right.chars().next()) {
                self.chars.join(before, c);
                self.borders.join(before, c);
            }
        }
        let ranked = (0..).zip(merges);
        ranked.map(|(rank, &(left, right, symbol))| (left, right, Merge { rank, symbol })).collect()
    }
}
