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

use std::ops::Range;

use crate::error::{Error, Result};
use crate::model_file::{Piece, PieceKind};
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
    /// Whether texts have spaces for `▁`.
    escape: bool,
}

/// How the merges and their order are given.
pub(crate) enum Order<'a> {
    /// Any two neighbours whose texts together are a piece merge; the piece with the highest score goes first.
    Scores,
    /// A list of (left, right, merged), first come first.
    List(&'a [(u32, u32, u32)]),
}

impl Vocab {
    pub(crate) fn new(
        pieces: &[Piece],
        order: Order,
        escape: bool,
        user_first: impl Iterator<Item = char>,
    ) -> Result<Self> {
        let count = pieces.len();
        let bytes: usize = pieces.iter().map(|piece| piece.text.len()).sum();
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
            escape,
        };
        for (id, piece) in (0..).zip(pieces) {
            // Canonical text has no `▁`; a piece with a space in it can never be found there.
            if !is_mergeable(piece) || escape && piece.text.contains(' ') {
                vocab.texts.push("", escape);
                continue;
            }
            vocab.texts.push(&piece.text, escape);
            if !vocab.texts.index(id) {
                return Err(Error::invalid(format!("piece {id} {:?} is defined twice", piece.text)));
            }
            vocab.index_char(id);
        }
        let pairs = match order {
            Order::Scores => {
                vocab.add_phantoms();
                vocab.pairs_by_score(pieces)
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

    /// What the piece decodes to: its text with spaces for `▁`, as a range of [`surfaces`](Self::surfaces). Most pieces
    /// have that text already.
    pub(crate) fn surface(&mut self, id: u32, text: &str) -> Range<u32> {
        if self.escape && !self.texts.get(id).is_empty() { self.texts.range(id) } else { self.texts.add_spaced(text) }
    }

    /// What the ranges of [`surface`](Self::surface) are ranges of.
    pub(crate) fn surfaces(&self) -> &str {
        self.texts.all()
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
        let unknown = |c: &char| self.chars.get(*c).symbol().is_none();
        let mut missing: Vec<char> = self.texts.all().chars().filter(unknown).collect();
        missing.sort_unstable();
        missing.dedup();
        for c in missing {
            let symbol = self.texts.push(c.encode_utf8(&mut [0; 4]), false);
            self.texts.index(symbol);
            self.chars.set(c, CharInfo::of(symbol));
        }
    }

    /// All ways to put a piece together from two symbols.
    fn pairs_by_score(&mut self, pieces: &[Piece]) -> Vec<(u32, u32, Merge)> {
        let ranks = ranks(pieces);
        let mut pairs = Vec::with_capacity(2 * pieces.len());
        let mut hashes = Beginnings::default();
        for symbol in 0..self.pieces {
            let text = self.texts.get(symbol);
            let merge = Merge { rank: ranks[symbol as usize], symbol };
            self.texts.beginnings(text, &mut hashes);
            let mut last = None;
            for (at, after) in text.char_indices() {
                if let Some(before) = last.replace(after)
                    && let Some((left, right)) = self.texts.find_halves(text, &hashes, at)
                {
                    pairs.push((left, right, merge));
                    self.chars.join(before, after);
                    self.borders.join(before, after);
                }
            }
        }
        pairs
    }

    /// The pairs of a list; the first has the first rank.
    fn listed_pairs(&mut self, merges: &[(u32, u32, u32)]) -> Vec<(u32, u32, Merge)> {
        for &(left, right, _) in merges {
            let (left, right) = (self.texts.get(left), self.texts.get(right));
            if let (Some(before), Some(after)) = (left.chars().next_back(), right.chars().next()) {
                self.chars.join(before, after);
                self.borders.join(before, after);
            }
        }
        let ranked = (0..).zip(merges);
        ranked.map(|(rank, &(left, right, symbol))| (left, right, Merge { rank, symbol })).collect()
    }
}

/// Whether merging may produce the piece.
fn is_mergeable(piece: &Piece) -> bool {
    matches!(piece.kind, PieceKind::Normal | PieceKind::Unused)
}

/// The place of each piece in the order of the scores; equal scores have equal ranks, since ties go from left to right
/// in the text.
fn ranks(pieces: &[Piece]) -> Vec<u32> {
    let score = |id: u32| pieces[id as usize].score;
    let mut order: Vec<u32> = (0..pieces.len() as u32).collect();
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    let mut ranks = vec![0; pieces.len()];
    for pair in order.windows(2) {
        let (before, id) = (pair[0], pair[1]);
        ranks[id as usize] = ranks[before as usize] + u32::from(score(before) != score(id));
    }
    ranks
}
