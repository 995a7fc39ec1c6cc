//! The vocabulary compiled for merging.
//!
//! A *symbol* is what merging works on: a piece, or a single character that only occurs inside pieces. Symbols of
//! pieces have the piece's id, the others follow. Three tables say everything about merging:
//!
//! * [`CharTable`]: the symbol of each character;
//! * [`PairTable`]: two neighbouring symbols whose texts together are a piece, the piece, and its rank (0 goes first);
//! * [`Borders`]: the pairs of characters that some merge joins. Between any other two characters nothing ever merges,
//!   so the text can be cut there and the parts be encoded independently, whatever the vocabulary is.

use crate::error::{Error, Result};
use crate::hash::{hash_bytes, hash_pair, seed};

/// Which symbol a character is, and what it takes part in; all in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CharInfo(u32);

impl CharInfo {
    const SYMBOL: u32 = (1 << 29) - 1;
    const JOINS_RIGHT: u32 = 1 << 29;
    const JOINS_LEFT: u32 = 1 << 30;
    const USER: u32 = 1 << 31;
    /// A character that occurs in no piece.
    const FOREIGN: Self = Self(Self::SYMBOL);

    #[inline]
    pub(crate) fn symbol(self) -> Option<u32> {
        let symbol = self.0 & Self::SYMBOL;
        (symbol != Self::SYMBOL).then_some(symbol)
    }
    /// Whether a user-defined piece may start here.
    #[inline]
    pub(crate) fn starts_user(self) -> bool {
        self.0 & Self::USER != 0
    }
}

/// More pieces than this are refused: symbols have 29 bits, and phantoms follow the pieces.
const MOST_PIECES: usize = 1 << 27;

/// Two-level table over all code points.
pub(crate) struct CharTable {
    page_of: Vec<u16>,
    pages: Vec<[CharInfo; 256]>,
}

impl CharTable {
    fn new() -> Self {
        Self { page_of: vec![0; 0x11_0000 >> 8], pages: vec![[CharInfo::FOREIGN; 256]] }
    }
    #[inline]
    pub(crate) fn get(&self, c: char) -> CharInfo {
        let c = c as usize;
        self.pages[usize::from(self.page_of[c >> 8])][c & 255]
    }
    fn get_mut(&mut self, c: char) -> &mut CharInfo {
        let c = c as usize;
        let page = &mut self.page_of[c >> 8];
        if *page == 0 {
            *page = self.pages.len() as u16; // at most 4352
            self.pages.push([CharInfo::FOREIGN; 256]);
        }
        &mut self.pages[usize::from(*page)][c & 255]
    }
}

/// What two neighbours merge into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Merge {
    /// Lower goes first; equal ranks go from left to right.
    pub(crate) rank: u32,
    /// The piece.
    pub(crate) symbol: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    left: u32,
    right: u32,
    merge: Merge,
}

/// Open addressing, linear probing, at most half full.
pub(crate) struct PairTable {
    slots: Vec<Slot>,
    mask: usize,
    seed: u64,
}

impl PairTable {
    const EMPTY: u32 = u32::MAX;

    fn new(pairs: &[(u32, u32, Merge)]) -> Self {
        let size = (2 * pairs.len()).next_power_of_two().max(16);
        let free = Slot { left: Self::EMPTY, right: 0, merge: Merge { rank: 0, symbol: 0 } };
        let mut table = Self { slots: vec![free; size], mask: size - 1, seed: seed() };
        for &(left, right, merge) in pairs {
            let mut at = hash_pair(table.seed, left, right) as usize & table.mask;
            while table.slots[at].left != Self::EMPTY {
                at = (at + 1) & table.mask;
            }
            table.slots[at] = Slot { left, right, merge };
        }
        table
    }

    #[inline]
    pub(crate) fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let mut at = hash_pair(self.seed, left, right) as usize & self.mask;
        loop {
            let slot = &self.slots[at];
            if slot.left == left && slot.right == right {
                return Some(slot.merge);
            }
            if slot.left == Self::EMPTY {
                return None;
            }
            at = (at + 1) & self.mask;
        }
    }
}

/// Which pairs of neighbouring characters some merge joins. One-sided: it may say yes where the answer is no (then
/// the text is cut less finely than it could be), never the other way round.
pub(crate) struct Borders {
    /// Exact for two ASCII characters: `[left << 7 | right]`.
    ascii: Vec<bool>,
    /// A bit for the hash of every joined pair.
    filter: Vec<u64>,
}

impl Borders {
    const FILTER_BITS: u32 = 18;

    fn bit(left: char, right: char) -> usize {
        let key = u64::from(left as u32) << 21 | u64::from(right as u32);
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::FILTER_BITS)) as usize
    }
    #[inline]
    pub(crate) fn joins_ascii(&self, left: u8, right: u8) -> bool {
        self.ascii[usize::from(left & 127) << 7 | usize::from(right & 127)]
    }
    /// `left_info` and `right_info` are the characters' entries; most foreign scripts are decided by them alone.
    #[inline]
    pub(crate) fn joins(&self, left: char, left_info: CharInfo, right: char, right_info: CharInfo) -> bool {
        left_info.0 & CharInfo::JOINS_RIGHT != 0 && right_info.0 & CharInfo::JOINS_LEFT != 0 && {
            let bit = Self::bit(left, right);
            self.filter[bit >> 6] >> (bit & 63) & 1 == 1
        }
    }
}

/// Texts of all symbols, found by text.
struct Texts {
    arena: String,
    ends: Vec<u32>,
    /// Symbol + 1; 0 is free.
    slots: Vec<u32>,
    seed: u64,
    /// Which lengths occur, to skip hopeless look-ups.
    lengths: Vec<bool>,
}

impl Texts {
    fn new(expected: usize) -> Self {
        let slots = vec![0; (4 * expected).next_power_of_two().max(64)];
        Self { arena: String::new(), ends: vec![0], slots, seed: seed(), lengths: Vec::new() }
    }
    fn len(&self) -> usize {
        self.ends.len() - 1
    }
    fn get(&self, symbol: u32) -> &str {
        let i = symbol as usize;
        &self.arena[self.ends[i] as usize..self.ends[i + 1] as usize]
    }
    /// The text goes into the arena under the next symbol without being findable.
    fn push(&mut self, text: &str, escape: bool) -> u32 {
        self.arena.extend(text.chars().map(|c| if escape && c == '▁' { ' ' } else { c }));
        self.ends.push(self.arena.len() as u32);
        self.len() as u32 - 1
    }
    /// Makes a symbol findable; false if its text is there already.
    fn index(&mut self, symbol: u32) -> bool {
        if 2 * self.len() > self.slots.len() {
            let old = std::mem::take(&mut self.slots);
            self.slots = vec![0; 4 * old.len()];
            for slot in old.into_iter().filter(|s| *s != 0) {
                self.index(slot - 1);
            }
        }
        let text = self.get(symbol);
        let len = text.len();
        let mut at = hash_bytes(self.seed, text.as_bytes()) as usize & (self.slots.len() - 1);
        while self.slots[at] != 0 {
            if self.get(self.slots[at] - 1) == text {
                return false;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = symbol + 1;
        if self.lengths.len() <= len {
            self.lengths.resize(len + 1, false);
        }
        self.lengths[len] = true;
        true
    }
    fn find(&self, text: &str) -> Option<u32> {
        let mut at = hash_bytes(self.seed, text.as_bytes()) as usize & (self.slots.len() - 1);
        while self.slots[at] != 0 {
            let symbol = self.slots[at] - 1;
            if self.get(symbol) == text {
                return Some(symbol);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }
    fn has_len(&self, len: usize) -> bool {
        self.lengths.get(len).copied().unwrap_or(false)
    }
}

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
        if count > MOST_PIECES || bytes > u32::MAX as usize / 2 {
            return Err(Error::unsupported(format!("a vocabulary of {count} pieces; at most {MOST_PIECES}")));
        }
        let mut texts = Texts::new(count);
        let mut next = mergeable.iter().peekable();
        for id in 0..count as u32 {
            match next.next_if(|m| m.id == id) {
                // Canonical text has no `▁`; a piece with a space in it can never be found there.
                Some(m) if !(escape && m.text.contains(' ')) => {
                    texts.push(m.text, escape);
                    if !texts.index(id) {
                        return Err(Error::invalid(format!("piece {id} {:?} is defined twice", m.text)));
                    }
                }
                _ => {
                    texts.push("", escape);
                }
            }
        }
        let mut vocab = Self {
            chars: CharTable::new(),
            pairs: PairTable::new(&[]),
            borders: Borders { ascii: vec![false; 1 << 14], filter: vec![0; 1 << (Borders::FILTER_BITS - 6)] },
            texts,
            pieces: count as u32,
        };
        let pairs = match order {
            Order::Scores(score) => {
                vocab.add_phantoms();
                vocab.pairs_by_score(score)
            }
            Order::List(merges) => merges
                .iter()
                .enumerate()
                .map(|(rank, &(left, right, symbol))| (left, right, Merge { rank: rank as u32, symbol }))
                .collect(),
        };
        vocab.index_chars();
        vocab.index_borders(&pairs);
        vocab.pairs = PairTable::new(&pairs);
        for c in user_first {
            vocab.chars.get_mut(c).0 |= CharInfo::USER;
        }
        if escape {
            *vocab.chars.get_mut('▁') = vocab.chars.get(' ');
        }
        Ok(vocab)
    }

    /// The text of a symbol, canonical.
    pub(crate) fn text(&self, symbol: u32) -> &str {
        self.texts.get(symbol)
    }

    /// Whether the symbol is a piece, so that it has an id.
    #[inline]
    pub(crate) fn is_piece(&self, symbol: u32) -> bool {
        symbol < self.pieces
    }

    /// Gives a symbol to every character that is in a piece without being one.
    fn add_phantoms(&mut self) {
        let mut seen = [false; 128];
        for piece in 0..self.pieces {
            let range = self.texts.ends[piece as usize] as usize..self.texts.ends[piece as usize + 1] as usize;
            if self.texts.arena[range.clone()].chars().nth(1).is_none() {
                continue;
            }
            let mut at = range.start;
            while at < range.end {
                let Some(c) = self.texts.arena[at..].chars().next() else { break };
                at += c.len_utf8();
                if c.is_ascii() && std::mem::replace(&mut seen[c as usize], true) {
                    continue;
                }
                let mut buffer = [0; 4];
                let text = &*c.encode_utf8(&mut buffer);
                if self.texts.find(text).is_none() {
                    let symbol = self.texts.push(text, false);
                    self.texts.index(symbol);
                }
            }
        }
    }

    /// All ways to put a piece together from two symbols.
    fn pairs_by_score(&self, score: &dyn Fn(u32) -> f32) -> Vec<(u32, u32, Merge)> {
        let mut pairs = Vec::with_capacity(3 * self.pieces as usize);
        for symbol in 0..self.pieces {
            let text = self.text(symbol);
            for (at, _) in text.char_indices().skip(1) {
                if !(self.texts.has_len(at) && self.texts.has_len(text.len() - at)) {
                    continue;
                }
                if let Some(left) = self.texts.find(&text[..at])
                    && let Some(right) = self.texts.find(&text[at..])
                {
                    pairs.push((left, right, Merge { rank: 0, symbol }));
                }
            }
        }
        // Dense ranks: equal scores must have equal ranks, since ties go from left to right in the text.
        let mut order: Vec<(f32, u32)> = (0..self.pieces).map(|id| (score(id), id)).collect();
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut ranks = vec![0; self.pieces as usize];
        let (mut rank, mut last) = (0, None);
        for (score, id) in order {
            if last.is_some_and(|last| last != score) {
                rank += 1;
            }
            last = Some(score);
            ranks[id as usize] = rank;
        }
        for (_, _, merge) in &mut pairs {
            merge.rank = ranks[merge.symbol as usize];
        }
        pairs
    }

    fn index_chars(&mut self) {
        for symbol in 0..self.texts.len() as u32 {
            let mut chars = self.texts.get(symbol).chars();
            if let (Some(c), None) = (chars.next(), chars.next()) {
                *self.chars.get_mut(c) = CharInfo(symbol);
            }
        }
    }

    fn index_borders(&mut self, pairs: &[(u32, u32, Merge)]) {
        for &(left, right, _) in pairs {
            let (Some(a), Some(b)) = (self.text(left).chars().next_back(), self.text(right).chars().next()) else {
                continue;
            };
            self.chars.get_mut(a).0 |= CharInfo::JOINS_RIGHT;
            self.chars.get_mut(b).0 |= CharInfo::JOINS_LEFT;
            if a.is_ascii() && b.is_ascii() {
                self.borders.ascii[(a as usize) << 7 | b as usize] = true;
            }
            let bit = Borders::bit(a, b);
            self.borders.filter[bit >> 6] |= 1 << (bit & 63);
        }
    }
}
