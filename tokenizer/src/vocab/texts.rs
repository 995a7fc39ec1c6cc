//! The texts of all symbols in one string, and a table to find a symbol by its text.
//!
//! Building the pair table looks up every prefix and every suffix of every piece. Most are short: up to eight bytes
//! form a number that is the key itself, so the texts need not be compared. The key of a longer text is a polynomial
//! hash of its bytes: one pass over a piece gives the hashes of all prefixes, and subtraction those of the suffixes.

use crate::hash::{hash_word, seed};
use crate::pieces::push_spaced;

pub(super) struct Texts {
    /// [`SHORT`] zeros, so that a word can begin before any text, then all texts.
    arena: String,
    /// The start offset of each text in `arena`, then the end of the last one.
    bounds: Vec<u32>,
    /// A hash table with open addressing and linear probing, at most two thirds full.
    slots: Vec<TextSlot>,
    /// A bit for each text's key. Half of all look-ups find nothing, and this small filter answers most of them.
    filter: Vec<u64>,
    /// The point where the polynomial is evaluated.
    base: u64,
    /// Powers of the base, up to the length of the longest text.
    powers: Vec<u64>,
}

/// The maximum length, in bytes, of a short text. It fits in a 64-bit word.
const SHORT: usize = 8;
/// The length that the key of every longer text has.
const LONG: u32 = SHORT as u32 + 1;

/// The key that a text is indexed by. Two short texts have equal keys only if they are equal.
#[derive(Clone, Copy)]
struct TextKey {
    /// The bytes of a short text, the first byte lowest, or the hash of a long one.
    word: u64,
    /// The length of a short text, or [`LONG`].
    len: u32,
}

impl TextKey {
    /// The key of the highest `len` bytes of a word, at most [`SHORT`].
    #[inline]
    fn ending(word: u64, len: usize) -> Self {
        Self { word: word >> (8 * (SHORT - len)), len: len as u32 }
    }
    /// The key of the lowest `len` bytes of a word, at most [`SHORT`].
    #[inline]
    fn beginning(word: u64, len: usize) -> Self {
        Self { word: word & u64::MAX >> (8 * (SHORT - len)), len: len as u32 }
    }
    #[inline]
    fn long(hash: u64) -> Self {
        Self { word: hash, len: LONG }
    }
}

/// A key and its symbol of 28 bits, in twelve bytes. There are many, and loading mostly waits for fresh memory.
#[derive(Clone, Copy)]
struct TextSlot {
    word: [u32; 2],
    /// `len << 28 | symbol`
    symbol: u32,
}

const SYMBOL: u32 = (1 << 28) - 1;
const FREE: TextSlot = TextSlot { word: [0; 2], symbol: u32::MAX };
const FILTER_BITS: u32 = 18;

impl TextSlot {
    fn new(key: TextKey, symbol: u32) -> Self {
        Self { word: [key.word as u32, (key.word >> 32) as u32], symbol: key.len << 28 | symbol }
    }
    #[inline]
    fn has(&self, key: TextKey) -> bool {
        (u64::from(self.word[0]) | u64::from(self.word[1]) << 32) == key.word && self.symbol >> 28 == key.len
    }
    #[inline]
    fn is_free(&self) -> bool {
        self.symbol == FREE.symbol
    }
}

/// The buffers of [`splits`](Texts::splits).
#[derive(Default)]
pub(super) struct Cuts {
    /// The hashes of all prefixes of the text.
    hashes: Vec<u64>,
    /// The offsets at which both halves pass the filter. Some may be inside a character.
    likely: Vec<usize>,
}

impl Texts {
    pub(super) fn new(count: usize, bytes: usize) -> Self {
        let mut arena = String::with_capacity(SHORT + bytes);
        arena.extend(['\0'; SHORT]);
        let mut bounds = Vec::with_capacity(count + 1);
        bounds.push(SHORT as u32);
        Self {
            arena,
            bounds,
            slots: vec![FREE; count + count / 2 + 64],
            filter: vec![0; 1 << (FILTER_BITS - 6)],
            base: seed(),
            powers: vec![1],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    #[inline]
    pub(super) fn get(&self, symbol: u32) -> &str {
        let (start, end) = self.range(symbol);
        &self.arena[start..end]
    }

    /// The text of a symbol as bytes. Slicing bytes needs no check of character boundaries.
    #[inline]
    fn bytes(&self, symbol: u32) -> &[u8] {
        let (start, end) = self.range(symbol);
        &self.arena.as_bytes()[start..end]
    }

    /// The byte range of a symbol's text in the arena.
    #[inline]
    fn range(&self, symbol: u32) -> (usize, usize) {
        let i = symbol as usize;
        (self.bounds[i] as usize, self.bounds[i + 1] as usize)
    }

    /// All texts, one after the other.
    pub(super) fn all(&self) -> &str {
        &self.arena[SHORT..]
    }

    /// Gives the next symbol to a text, without indexing it. With `escape`, `▁` becomes a space.
    pub(super) fn push(&mut self, text: &str, escape: bool) -> u32 {
        push_spaced(&mut self.arena, text, escape);
        self.bounds.push(self.arena.len() as u32);
        while self.powers.len() <= text.len() {
            self.powers.push(self.powers[self.powers.len() - 1].wrapping_mul(self.base));
        }
        self.len() as u32 - 1
    }

    /// Indexes a symbol, so that its text is found. Returns false if the text is indexed already.
    pub(super) fn index(&mut self, symbol: u32) -> bool {
        if 3 * self.len() > 2 * self.slots.len() {
            let size = 2 * self.slots.len();
            for slot in std::mem::replace(&mut self.slots, vec![FREE; size]) {
                if !slot.is_free() {
                    self.index(slot.symbol & SYMBOL);
                }
            }
        }
        let text = self.bytes(symbol);
        let key = match text.len() {
            // One load from the arena, for every piece of the vocabulary.
            len @ 1..=SHORT => TextKey::ending(self.word_before(self.range(symbol).1), len),
            _ => self.key(text),
        };
        match self.probe(key, text) {
            Ok(_) => false,
            Err(free) => {
                let bit = filter_bit(self.hash(key));
                self.slots[free] = TextSlot::new(key, symbol);
                self.filter[bit >> 6] |= 1 << (bit & 63);
                true
            }
        }
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.probe(self.key(text.as_bytes()), text.as_bytes()).ok()
    }

    /// Calls `each` with every offset at which the text of `symbol` splits into two symbols, and with these symbols.
    #[inline]
    pub(super) fn splits(&self, symbol: u32, cuts: &mut Cuts, each: impl FnMut(usize, u32, u32)) {
        let text = self.bytes(symbol);
        let len = text.len();
        if len < 2 {
            return;
        }
        let (start, end) = self.range(symbol);
        let last = self.word_before(end);
        if len <= SHORT {
            let word = TextKey::ending(last, len).word;
            let halves = |at| (TextKey::beginning(word, at), TextKey::ending(last, len - at));
            return self.splits_at(text, &mut cuts.likely, halves, each);
        }
        let first = self.word_before(start + SHORT);
        let hashes = &mut cuts.hashes;
        hashes.clear();
        hashes.push(0);
        let mut hash = 0;
        hashes.extend(text.iter().map(|byte| {
            hash = step(self.base, hash, *byte);
            hash
        }));
        let ending = |at: usize| hash.wrapping_sub(hashes[at].wrapping_mul(self.powers[len - at]));
        let halves = |at| {
            let rest = len - at;
            let left = if at <= SHORT { TextKey::beginning(first, at) } else { TextKey::long(hashes[at]) };
            let right = if rest <= SHORT { TextKey::ending(last, rest) } else { TextKey::long(ending(at)) };
            (left, right)
        };
        self.splits_at(text, &mut cuts.likely, halves, each);
    }

    /// The same for the keys that `halves` gives for both sides of an offset.
    #[inline]
    fn splits_at(
        &self,
        text: &[u8],
        likely: &mut Vec<usize>,
        halves: impl Fn(usize) -> (TextKey, TextKey),
        mut each: impl FnMut(usize, u32, u32),
    ) {
        // Usually one of the halves does not exist, and asking the filter is cheaper than finding the other half. A
        // branch on its answer would be unpredictable: every offset is written, and kept by advancing the count.
        if likely.len() < text.len() {
            likely.resize(text.len(), 0);
        }
        let mut count = 0;
        for at in 1..text.len() {
            let (left, right) = halves(at);
            likely[count] = at;
            count += usize::from(self.may_exist(left) & self.may_exist(right));
        }
        for &at in &likely[..count] {
            let (left, right) = halves(at);
            let (start, end) = text.split_at(at);
            if let Ok(left) = self.probe(left, start)
                && let Ok(right) = self.probe(right, end)
            {
                each(at, left, right);
            }
        }
    }

    /// The word that ends at this byte of the arena.
    #[inline]
    fn word_before(&self, end: usize) -> u64 {
        let mut word = [0; SHORT];
        word.copy_from_slice(&self.arena.as_bytes()[end - SHORT..end]);
        u64::from_le_bytes(word)
    }

    fn key(&self, text: &[u8]) -> TextKey {
        if text.len() <= SHORT {
            let word = text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            return TextKey { word, len: text.len() as u32 };
        }
        TextKey::long(text.iter().fold(0, |hash, byte| step(self.base, hash, *byte)))
    }

    #[inline]
    fn hash(&self, key: TextKey) -> u64 {
        hash_word(self.base, key.word)
    }

    #[inline]
    fn may_exist(&self, key: TextKey) -> bool {
        let bit = filter_bit(self.hash(key));
        self.filter[bit >> 6] >> (bit & 63) & 1 == 1
    }

    /// The symbol with this text, or the free slot where it would be.
    #[inline]
    fn probe(&self, key: TextKey, text: &[u8]) -> Result<u32, usize> {
        let slots = self.slots.as_slice();
        let mut at = ((u64::from(self.hash(key) as u32) * slots.len() as u64) >> 32) as usize;
        loop {
            let slot = slots[at];
            let symbol = slot.symbol & SYMBOL;
            if slot.has(key) && (key.len != LONG || self.bytes(symbol) == text) {
                return Ok(symbol);
            }
            if slot.is_free() {
                return Err(at);
            }
            at = if at + 1 == slots.len() { 0 } else { at + 1 };
        }
    }
}

#[inline]
fn filter_bit(hash: u64) -> usize {
    (hash >> (64 - FILTER_BITS)) as usize
}

#[inline]
fn step(base: u64, hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(base).wrapping_add(u64::from(byte) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts around the length of a word, with zero bytes, and with splits inside characters.
    #[test]
    fn texts_are_found_and_split() {
        let texts =
            ["a", "a\0", "\0", "\0a", "1234567", "12345678", "123456781", "1", "2345678", "23456781", "x", "é", "éx"];
        let mut table = Texts::new(0, 0);
        for (symbol, text) in (0..).zip(texts) {
            assert_eq!(table.push(text, false), symbol);
            assert!(table.index(symbol), "{text:?} is there already");
        }
        for (symbol, text) in (0..).zip(texts) {
            assert_eq!(table.find(text), Some(symbol));
            assert!(!table.index(symbol));
            let mut found = Vec::new();
            table.splits(symbol, &mut Cuts::default(), |at, left, right| found.push((at, left, right)));
            let halves = (1..text.len()).filter(|at| text.is_char_boundary(*at)).filter_map(|at| {
                let find = |half| texts.iter().position(|text| *text == half).map(|symbol| symbol as u32);
                Some((at, find(&text[..at])?, find(&text[at..])?))
            });
            assert_eq!(found, halves.collect::<Vec<_>>(), "{text:?}");
        }
        for absent in ["", "\0\0", "a\0\0", "123", "123456789", "1234567812345678"] {
            assert_eq!(table.find(absent), None, "{absent:?}");
        }
    }
}
