//! The vocabulary compiled for merging.
//!
//! Merging works on *symbols*: pieces, and single characters that occur only inside pieces (*phantoms*). The symbol of
//! a piece is its id; phantoms follow. Three tables describe merging completely:
//!
//! * [`CharTable`]: the symbol of each character;
//! * [`PairTable`]: pairs of symbols that merge, the piece that they become, and its rank (0 goes first);
//! * [`Borders`]: the pairs of characters that some merge joins. Nothing ever merges between two other characters, so a
//!   text can be cut there and its parts encoded independently, whatever the vocabulary.

mod tables;
mod texts;

use crate::error::{Error, Result};
use crate::pieces::{Piece, PieceKind, Pieces, SPACE_MARK};
use texts::{Cuts, Texts};

pub(crate) use tables::{AsciiBlock, CharInfo, Merge, PairTable};
use tables::{Borders, CharTable};

/// Larger vocabularies are refused: symbols have 29 bits, and phantoms follow the pieces.
const MOST_PIECES: usize = 1 << 27;

/// The tables for merging. The documentation of the module describes them.
pub(crate) struct Vocab {
    pub(crate) chars: CharTable,
    pub(crate) pairs: PairTable,
    pub(crate) borders: Borders,
    texts: Texts,
    pieces: u32,
}

/// How a file gives the merges and their order.
pub(crate) enum Order<'a> {
    /// Two neighbors merge if their texts together are a piece. The piece with the highest score goes first.
    Scores,
    /// A list of (left, right, merged). The first entry goes first.
    List(&'a [(u32, u32, u32)]),
}

impl Vocab {
    pub(crate) fn new(
        pieces: &Pieces,
        order: Order,
        escape: bool,
        user_first: impl Iterator<Item = char>,
    ) -> Result<Self> {
        let count = pieces.len();
        let bytes = pieces.texts().len();
        if count > MOST_PIECES || bytes > u32::MAX as usize / 8 {
            let what = format!("a vocabulary of {count} pieces and {bytes} bytes; at most {MOST_PIECES} pieces");
            return Err(Error::unsupported(what));
        }
        let mut vocab = Self {
            chars: CharTable::new(),
            pairs: PairTable::with_capacity(0),
            borders: Borders::new(),
            texts: Texts::new(count, bytes),
            pieces: count as u32,
        };
        // Canonical text writes `▁` as a space, so a piece with a real space in it can never be found there.
        let with_spaces = escape && pieces.texts().contains(' ');
        for (id, piece) in (0..).zip(pieces.iter()) {
            if !is_mergeable(piece) || with_spaces && piece.text.contains(' ') {
                vocab.texts.push("", escape);
                continue;
            }
            vocab.texts.push(piece.text, escape);
            if !vocab.texts.index(id) {
                return Err(Error::invalid(format!("piece {id} {:?} is defined twice", piece.text)));
            }
            vocab.index_char(id);
        }
        match order {
            Order::Scores => {
                vocab.add_phantoms();
                vocab.add_pairs_by_score(pieces);
            }
            Order::List(merges) => vocab.add_listed_pairs(merges),
        }
        for c in user_first {
            vocab.chars.starts_user(c);
            vocab.borders.starts_user(c);
        }
        if escape {
            vocab.chars.set(SPACE_MARK, vocab.chars.get(' '));
        }
        Ok(vocab)
    }

    /// The canonical text of a symbol.
    pub(crate) fn text(&self, symbol: u32) -> &str {
        self.texts.get(symbol)
    }

    /// The mergeable piece with this canonical text.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.texts.find(text).filter(|symbol| self.is_piece(*symbol))
    }

    /// Whether the symbol is a piece and so has an id.
    #[inline]
    pub(crate) fn is_piece(&self, symbol: u32) -> bool {
        symbol < self.pieces
    }

    /// Enters the symbol in the table of characters if its text is a single character.
    fn index_char(&mut self, symbol: u32) {
        let mut chars = self.texts.get(symbol).chars();
        if let (Some(c), None) = (chars.next(), chars.next()) {
            self.chars.set(c, CharInfo::of(symbol));
        }
    }

    /// Gives a symbol to every character that occurs in pieces but is not a piece.
    fn add_phantoms(&mut self) {
        let all = self.texts.all();
        let mut ascii = [false; 128];
        let mut others = Vec::new();
        for (at, byte) in all.bytes().enumerate() {
            match byte {
                ..0x80 => ascii[usize::from(byte)] = true,
                // A continuation byte.
                0x80..0xc0 => {}
                _ => others.extend(all[at..].chars().next().filter(|c| self.chars.get(*c).symbol().is_none())),
            }
        }
        let ascii = ('\0'..='\x7f').filter(|c| ascii[*c as usize] && self.chars.get(*c).symbol().is_none());
        let mut missing: Vec<char> = ascii.chain(others).collect();
        missing.sort_unstable();
        missing.dedup();
        for c in missing {
            let symbol = self.texts.push(c.encode_utf8(&mut [0; 4]), false);
            self.texts.index(symbol);
            self.chars.set(c, CharInfo::of(symbol));
        }
    }

    /// Adds, for each piece, all pairs of symbols that it can be merged from.
    fn add_pairs_by_score(&mut self, pieces: &Pieces) {
        let ranks = ranks(pieces.scores());
        // Llama's and Mistral's vocabularies have slightly less than two pairs per piece.
        self.pairs = PairTable::with_capacity(2 * pieces.len());
        let mut cuts = Cuts::default();
        for (symbol, rank) in (0..).zip(ranks) {
            let text = self.texts.get(symbol);
            self.texts.splits(symbol, &mut cuts, |at, left, right| {
                self.pairs.insert(left, right, Merge { rank, symbol });
                join(&mut self.chars, &mut self.borders, &text[..at], &text[at..]);
            });
        }
    }

    /// Adds the pairs of a list in the order of their ranks.
    fn add_listed_pairs(&mut self, merges: &[(u32, u32, u32)]) {
        self.pairs = PairTable::with_capacity(merges.len());
        for (rank, &(left, right, symbol)) in (0..).zip(merges) {
            self.pairs.insert(left, right, Merge { rank, symbol });
            join(&mut self.chars, &mut self.borders, self.texts.get(left), self.texts.get(right));
        }
    }
}

/// Records that some merge joins the end of `left` to the beginning of `right`.
#[inline]
fn join(chars: &mut CharTable, borders: &mut Borders, left: &str, right: &str) {
    // Usually two ASCII characters that are already recorded.
    if let (Some(&before), Some(&after)) = (left.as_bytes().last(), right.as_bytes().first())
        && borders.joins_ascii(before, after)
    {
        return;
    }
    if let (Some(before), Some(after)) = (left.chars().next_back(), right.chars().next()) {
        chars.join(before, after);
        borders.join(before, after);
    }
}

/// Whether merging may produce the piece.
fn is_mergeable(piece: Piece) -> bool {
    matches!(piece.kind, PieceKind::Normal | PieceKind::Unused)
}

/// The rank of each piece by score. Equal scores have equal ranks, because ties go from left to right in the text. As
/// in SentencePiece 0.2.3, 0 is above −0.
fn ranks(scores: &[f32]) -> Vec<u32> {
    let score = |id: u32| scores[id as usize];
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    let mut ranks = vec![0; scores.len()];
    for pair in order.windows(2) {
        let (before, id) = (pair[0], pair[1]);
        ranks[id as usize] = ranks[before as usize] + u32::from(score(before).to_bits() != score(id).to_bits());
    }
    ranks
}
