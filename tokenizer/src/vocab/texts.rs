//! The texts of all symbols in one string, and a table to find a symbol by its text.
//!
//! Building the pair table asks for every beginning and every end of every piece. The hash is a polynomial in the
//! bytes, so that those of all beginnings fall out of one walk over the piece, and those of the ends by subtraction.

use std::ops::Range;

use crate::hash::{mix, seed};
use crate::normalize::push_spaced;

pub(super) struct Texts {
    arena: String,
    ends: Vec<u32>,
    /// The upper half of the hash, and the symbol; or free.
    slots: Vec<u64>,
    /// A bit for each text's hash. Half of all questions have no answer, and this small table knows that.
    filter: Vec<u64>,
    /// The point at which the polynomial is taken.
    base: u64,
    /// Powers of the base, up to the length of the longest text.
    powers: Vec<u64>,
}

/// Buffers of [`splits`](Texts::splits).
#[derive(Default)]
pub(super) struct Cuts {
    /// Hashes of all beginnings of the text.
    hashes: Vec<u64>,
    /// Where the filter says that both halves may be symbols, also inside of a character.
    likely: Vec<usize>,
}

impl Texts {
    pub(super) fn new(count: usize, bytes: usize) -> Self {
        let slots = vec![FREE; (2 * count).next_power_of_two().max(64)];
        let mut ends = Vec::with_capacity(count + 1);
        ends.push(0);
        Self {
            arena: String::with_capacity(bytes),
            ends,
            slots,
            filter: vec![0; 1 << (FILTER_BITS - 6)],
            base: seed(),
            powers: vec![1],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    #[inline]
    pub(super) fn get(&self, symbol: u32) -> &str {
        let Range { start, end } = self.range(symbol);
        &self.arena[start as usize..end as usize]
    }

    /// The same as bytes, which need no look at where characters begin.
    #[inline]
    fn bytes(&self, symbol: u32) -> &[u8] {
        let Range { start, end } = self.range(symbol);
        &self.arena.as_bytes()[start as usize..end as usize]
    }

    /// Where in the arena the text of a symbol is.
    #[inline]
    fn range(&self, symbol: u32) -> Range<u32> {
        let i = symbol as usize;
        self.ends[i]..self.ends[i + 1]
    }

    /// All texts, one after the other.
    pub(super) fn all(&self) -> &str {
        &self.arena
    }

    /// The text gets the next symbol, without being findable. With `escape`, `▁` becomes a space.
    pub(super) fn push(&mut self, text: &str, escape: bool) -> u32 {
        push_spaced(&mut self.arena, text, escape);
        self.ends.push(self.arena.len() as u32);
        while self.powers.len() <= text.len() {
            self.powers.push(self.powers[self.powers.len() - 1].wrapping_mul(self.base));
        }
        self.len() as u32 - 1
    }

    /// Makes a symbol findable; false if its text is there already.
    pub(super) fn index(&mut self, symbol: u32) -> bool {
        if 2 * self.len() > self.slots.len() {
            let old = std::mem::take(&mut self.slots);
            self.slots = vec![FREE; 4 * old.len()];
            for slot in old.into_iter().filter(|slot| *slot != FREE) {
                self.index(slot as u32);
            }
        }
        let text = self.get(symbol);
        let hash = finish(hash(self.base, text));
        match self.probe(hash, text.as_bytes()) {
            Ok(_) => false,
            Err(free) => {
                self.slots[free] = hash >> 32 << 32 | u64::from(symbol);
                self.filter[filter_bit(hash) >> 6] |= 1 << (filter_bit(hash) & 63);
                true
            }
        }
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.probe(finish(hash(self.base, text)), text.as_bytes()).ok()
    }

    /// Calls `each` with every place at which `text` falls into two symbols, and with the symbols.
    #[inline]
    pub(super) fn splits(&self, text: &str, cuts: &mut Cuts, mut each: impl FnMut(usize, u32, u32)) {
        let Cuts { hashes, likely } = cuts;
        hashes.clear();
        hashes.push(0);
        let mut hash = 0;
        hashes.extend(text.bytes().map(|byte| {
            hash = step(self.base, hash, byte);
            hash
        }));
        // Mostly one of the two does not exist, which the filter knows for less than what it takes to find the other.
        // Nothing foretells its answers: each place is written down, and counted if it is one.
        likely.resize(text.len(), 0);
        let mut count = 0;
        for at in 1..text.len() {
            let (left, right) = self.half_hashes(text, hashes, at);
            likely[count] = at;
            count += usize::from(self.may_exist(left) & self.may_exist(right));
        }
        for &at in &likely[..count] {
            let (left, right) = self.half_hashes(text, hashes, at);
            let (start, end) = text.as_bytes().split_at(at);
            if let Ok(left) = self.probe(left, start)
                && let Ok(right) = self.probe(right, end)
            {
                each(at, left, right);
            }
        }
    }

    /// The hashes of `text[..at]` and `text[at..]`, from those of all beginnings.
    #[inline]
    fn half_hashes(&self, text: &str, hashes: &[u64], at: usize) -> (u64, u64) {
        let power = self.powers[text.len() - at];
        (finish(hashes[at]), finish(hashes[text.len()].wrapping_sub(hashes[at].wrapping_mul(power))))
    }

    #[inline]
    fn may_exist(&self, hash: u64) -> bool {
        let bit = filter_bit(hash);
        self.filter[bit >> 6] >> (bit & 63) & 1 == 1
    }

    /// The symbol with this text, or the free slot where it would be.
    #[inline]
    fn probe(&self, hash: u64, text: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == FREE {
                return Err(at);
            }
            let symbol = slot as u32;
            if slot >> 32 == hash >> 32 && self.bytes(symbol) == text {
                return Ok(symbol);
            }
            at = (at + 1) & mask;
        }
    }
}

/// No symbol's slot: symbols have 29 bits.
const FREE: u64 = u64::MAX;
const FILTER_BITS: u32 = 18;

#[inline]
fn filter_bit(hash: u64) -> usize {
    (hash >> (64 - FILTER_BITS)) as usize
}

fn step(base: u64, hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(base).wrapping_add(u64::from(byte) + 1)
}

fn hash(base: u64, text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| step(base, hash, byte))
}

fn finish(hash: u64) -> u64 {
    mix(hash, 0x9e37_79b9_7f4a_7c15)
}
