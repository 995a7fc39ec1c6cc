//! The three look-ups of encoding: the symbol of a character, the merge of two symbols, and whether any merge joins two
//! characters.

use crate::hash::{hash_pair, seed};

/// The symbol of a character and its flags, in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CharInfo(u32);

impl CharInfo {
    const SYMBOL: u32 = (1 << 29) - 1;
    const JOINS_RIGHT: u32 = 1 << 29;
    const JOINS_LEFT: u32 = 1 << 30;
    const USER: u32 = 1 << 31;
    /// A character that occurs in no piece.
    const FOREIGN: Self = Self(Self::SYMBOL);

    pub(super) fn of(symbol: u32) -> Self {
        Self(symbol)
    }

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

/// A two-level table over all code points.
pub(crate) struct CharTable {
    page_of: Vec<u16>,
    pages: Vec<[CharInfo; 256]>,
}

impl CharTable {
    pub(super) fn new() -> Self {
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
    pub(super) fn set(&mut self, c: char, info: CharInfo) {
        *self.get_mut(c) = info;
    }
    /// A user-defined piece may start with `c`.
    pub(super) fn starts_user(&mut self, c: char) {
        self.get_mut(c).0 |= CharInfo::USER;
    }
    /// Some merge joins `left` and `right`.
    pub(super) fn join(&mut self, left: char, right: char) {
        self.get_mut(left).0 |= CharInfo::JOINS_RIGHT;
        self.get_mut(right).0 |= CharInfo::JOINS_LEFT;
    }
}

/// The merge of two neighboring symbols.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Merge {
    /// Lower ranks go first, equal ranks from left to right.
    pub(crate) rank: u32,
    /// The symbol that replaces both.
    pub(crate) symbol: u32,
}

#[derive(Clone, Copy)]
struct PairSlot {
    left: u32,
    right: u32,
    merge: Merge,
}

/// A free slot, deliberately not all zero. The system provides zeroed memory page by page on first use, and a page that
/// is read before it is written costs two page faults.
const FREE: PairSlot = PairSlot { left: u32::MAX, right: 0, merge: Merge { rank: 0, symbol: 0 } };

/// A hash table with open addressing and linear probing, at most two thirds full.
pub(crate) struct PairTable {
    slots: Vec<PairSlot>,
    len: usize,
    /// A bit for the hash of every pair. Half of all look-ups find nothing, and this small filter answers most of them.
    filter: Vec<u64>,
    seed: u64,
}

impl PairTable {
    /// An empty table that holds `pairs` before it grows.
    pub(super) fn with_capacity(pairs: usize) -> Self {
        let slots = vec![FREE; (pairs + pairs / 2).max(16)];
        // A filter of 128 kB stays in the processor's cache; a larger one answers more look-ups, but later.
        let words = (pairs / 8).next_power_of_two().min(1 << 14);
        Self { slots, len: 0, filter: vec![0; words], seed: seed() }
    }

    /// Adds a pair, which must be new.
    pub(super) fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        if 3 * (self.len + 1) > 2 * self.slots.len() {
            self.grow();
        }
        let hash = hash_pair(self.seed, left, right);
        let (word, bit) = self.filter_bit(hash);
        self.filter[word] |= bit;
        let mut at = self.home(hash);
        while self.slots[at].left != FREE.left {
            at = self.after(at);
        }
        self.slots[at] = PairSlot { left, right, merge };
        self.len += 1;
    }

    /// The pairs, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.slots.iter().filter(|slot| slot.left != FREE.left).map(|slot| (slot.left, slot.right))
    }

    #[cold]
    fn grow(&mut self) {
        let old = std::mem::replace(self, Self::with_capacity(2 * self.slots.len()));
        for slot in old.slots.into_iter().filter(|slot| slot.left != FREE.left) {
            self.insert(slot.left, slot.right, slot.merge);
        }
    }

    /// The slot where the search for a pair begins: the lower half of the hash, scaled to the number of slots.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.slots.len() as u64) >> 32) as usize
    }

    /// The slot to try next.
    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The filter's word for a hash, and the bit in it.
    #[inline]
    fn filter_bit(&self, hash: u64) -> (usize, u64) {
        ((hash >> 32) as usize & (self.filter.len() - 1), 1 << (hash >> 58))
    }

    #[inline]
    pub(crate) fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let hash = hash_pair(self.seed, left, right);
        let (word, bit) = self.filter_bit(hash);
        if self.filter[word] & bit == 0 {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if slot.left == left && slot.right == right {
                return Some(slot.merge);
            }
            if slot.left == FREE.left {
                return None;
            }
            at = self.after(at);
        }
    }
}

/// The pairs of neighboring characters that some merge joins. A hash collision can report a pair that no merge joins,
/// so that the text is cut into fewer parts. No joined pair is missed.
pub(crate) struct Borders {
    /// Whether a text must be cut between two ASCII characters, `[left << 7 | right]`: nothing joins them, or a
    /// user-defined piece may start with the second.
    ascii_stops: Box<[bool; 1 << 14]>,
    /// A bit for the hash of every joined pair.
    filter: Vec<u64>,
}

/// The ASCII characters at the start of a block of 64 bytes.
pub(crate) struct AsciiBlock {
    /// The number of ASCII characters, at most 64.
    pub(crate) len: usize,
    /// Bit i is set if the text may have to be cut before character i of the block.
    pub(crate) stops: u64,
}

impl Borders {
    const FILTER_BITS: u32 = 18;

    pub(super) fn new() -> Self {
        Self { ascii_stops: Box::new([true; 1 << 14]), filter: vec![0; 1 << (Self::FILTER_BITS - 6)] }
    }
    pub(super) fn join(&mut self, left: char, right: char) {
        if left.is_ascii() && right.is_ascii() {
            self.ascii_stops[(left as usize) << 7 | right as usize] = false;
        }
        let bit = Self::bit(left, right);
        self.filter[bit >> 6] |= 1 << (bit & 63);
    }
    /// Whether these are two ASCII characters that are known to be joined.
    #[inline]
    pub(super) fn joins_ascii(&self, left: u8, right: u8) -> bool {
        left.is_ascii() && right.is_ascii() && !self.ascii_stops[usize::from(left) << 7 | usize::from(right)]
    }
    /// Records that a user-defined piece may start with `c`. Call it after all joins.
    pub(super) fn starts_user(&mut self, c: char) {
        if c.is_ascii() {
            (0..128).for_each(|left| self.ascii_stops[left << 7 | c as usize] = true);
        }
    }
    fn bit(left: char, right: char) -> usize {
        let key = u64::from(left as u32) << 21 | u64::from(right as u32);
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::FILTER_BITS)) as usize
    }
    /// Whether some merge may join two characters with these entries. For most scripts the entries alone decide.
    #[inline]
    pub(crate) fn joins(&self, left: char, left_info: CharInfo, right: char, right_info: CharInfo) -> bool {
        left_info.0 & CharInfo::JOINS_RIGHT != 0 && right_info.0 & CharInfo::JOINS_LEFT != 0 && {
            let bit = Self::bit(left, right);
            self.filter[bit >> 6] >> (bit & 63) & 1 == 1
        }
    }
    /// The block of `text` at `at`. It is fast because no branch depends on the text.
    #[inline(always)]
    pub(crate) fn ascii_block(&self, text: &[u8], at: usize) -> AsciiBlock {
        let rest = &text[at..];
        let block = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0x80; 64];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        });
        let mut foreign = 0;
        let mut stops = 0;
        let mut left = text.get(at.wrapping_sub(1)).copied().unwrap_or_default();
        for (i, right) in block.into_iter().enumerate() {
            let stop = self.ascii_stops[usize::from(left & 127) << 7 | usize::from(right & 127)];
            stops |= u64::from(stop) << i;
            foreign |= u64::from(right >> 7) << i;
            left = right;
        }
        let len = foreign.trailing_zeros();
        AsciiBlock { len: len as usize, stops: stops & ((1u128 << len) - 1) as u64 }
    }
}
