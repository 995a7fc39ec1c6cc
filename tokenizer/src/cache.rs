//! Remembers the ids of words, so that the second "the" costs one look-up. The cache has a fixed size. It compares
//! whole words, so a hash collision cannot give wrong ids. It has two tables: one for the short words that make up most
//! of any text, one for longer words (mostly indented identifiers). Both are two-way set associative and evict the
//! older entry.

use crate::hash::{hash_bytes, mix, seed};

/// The maximum length, in bytes, of a word in the cache.
pub(crate) const LONGEST: usize = 62;
/// The maximum length, in bytes, of a short word.
pub(crate) const SHORT: usize = 15;
const SHORT_IDS: usize = 4;
const LONG_IDS: usize = 15;

/// Key and ids. The key holds the word in its lower 15 bytes, the word's length in the next four bits, and the number
/// of ids in the top four. All-zero entries are free, so the system provides a fresh table as zeroed pages on first
/// touch.
type Short = [u128; 2];

fn packed_ids(ids: &[u32]) -> u128 {
    ids.iter().rev().fold(0, |packed, id| packed << 32 | u128::from(*id))
}

#[inline(always)]
fn unpacked_ids(packed: u128) -> [u32; SHORT_IDS] {
    [packed as u32, (packed >> 32) as u32, (packed >> 64) as u32, (packed >> 96) as u32]
}

/// 124 bytes; a length of 0 marks a free entry.
#[derive(Clone, Copy)]
struct Long {
    key: [u8; LONGEST],
    len: u8,
    count: u8,
    ids: [u32; LONG_IDS],
}

const FREE: Long = Long { key: [0; LONGEST], len: 0, count: 0, ids: [0; LONG_IDS] };
/// The bits of a short key without the number of ids.
const KEY: u128 = u128::MAX >> 4;

/// A cache of the ids of words. The documentation of the module describes it.
pub(crate) struct WordCache {
    /// Sets of two entries, from [`base`](Self::base) on.
    short: Vec<u128>,
    /// The index of the first set. It aligns every set to a line of the processor's cache.
    base: usize,
    /// The number of sets, less one.
    short_mask: usize,
    long: Vec<[Long; 2]>,
    /// The number of sets of `long`, which is allocated for the first long word.
    long_sets: usize,
    seed: u64,
}

const SHORT_SETS: usize = 1 << 16;
const LONG_SETS: usize = 1 << 12;

/// `MASKS[n]` has the bits of the first `n` bytes.
const MASKS: [u128; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut len = 1;
    while len <= SHORT {
        masks[len] = masks[len - 1] << 8 | 0xff;
        len += 1;
    }
    masks
};

/// Packs `text[start..end]`, of at most [`SHORT`] bytes, and its length into a key.
#[inline(always)]
fn pack(text: &[u8], start: usize, end: usize) -> u128 {
    let len = (end - start).min(SHORT);
    let bytes = match text.get(start..start + 16).and_then(|b| b.first_chunk::<16>()) {
        Some(bytes) => *bytes,
        None => {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&text[start..start + len]);
            bytes
        }
    };
    u128::from_le_bytes(bytes) & MASKS[len] | (len as u128) << 120
}

/// The key of a short word and the index of its set.
#[derive(Clone, Copy, Default)]
pub(crate) struct CacheSlot {
    key: u128,
    set: usize,
}

impl WordCache {
    pub(crate) fn new() -> Self {
        Self::with_sets(SHORT_SETS, LONG_SETS)
    }

    /// Both numbers are powers of two.
    fn with_sets(short_sets: usize, long_sets: usize) -> Self {
        let short = vec![0u128; 4 * short_sets + 3];
        // A vector of these numbers is aligned to 16 bytes, so that the next line is at most three of them away.
        let base = short.as_ptr().align_offset(64).min(3);
        Self { short, base, short_mask: short_sets - 1, long: Vec::new(), long_sets, seed: seed() }
    }

    /// Appends the ids of the word `text[start..end]`, which must not be empty, to `out`. Returns false if the cache
    /// does not hold the word.
    #[inline(always)]
    pub(crate) fn get(&self, text: &[u8], start: usize, end: usize, out: &mut Vec<u32>) -> bool {
        if end - start > SHORT {
            return self.get_long(&text[start..end], out);
        }
        self.get_at(self.slot(text, start, end), out)
    }

    /// The slot of the word `text[start..end]`. For a word of more than [`SHORT`] bytes, the slot is valid but
    /// meaningless.
    #[inline(always)]
    pub(crate) fn slot(&self, text: &[u8], start: usize, end: usize) -> CacheSlot {
        let key = pack(text, start, end);
        CacheSlot { key, set: self.set(key) }
    }

    /// Reads from a slot to bring it into the processor's cache. The reads of several slots overlap.
    #[inline(always)]
    pub(crate) fn touch(&self, slot: CacheSlot) -> u64 {
        self.short[slot.set] as u64
    }

    /// The same as [`get`](Self::get) for a word of at most [`SHORT`] bytes.
    #[inline(always)]
    pub(crate) fn get_at(&self, CacheSlot { key, set }: CacheSlot, out: &mut Vec<u32>) -> bool {
        let set = &self.short[set..set + 4];
        // Selected without a branch, which would be unpredictable.
        let second = 2 * usize::from(set[2] & KEY == key);
        let entry: Short = [set[second], set[second + 1]];
        if entry[0] & KEY != key {
            return false;
        }
        // Copying all four ids and dropping the surplus is cheaper than a copy of variable length.
        let count = (entry[0] >> 124) as usize;
        out.extend_from_slice(&unpacked_ids(entry[1]));
        out.truncate(out.len() - (SHORT_IDS - count));
        true
    }

    /// The index in `short` of the first entry of a key's set.
    #[inline(always)]
    fn set(&self, key: u128) -> usize {
        self.base + 4 * (short_hash(key, self.seed) & self.short_mask)
    }

    fn get_long(&self, word: &[u8], out: &mut Vec<u32>) -> bool {
        if word.len() > LONGEST || self.long.is_empty() {
            return false;
        }
        let at = hash_bytes(self.seed, word) as usize & (self.long_sets - 1);
        let set = &self.long[at];
        let is = |entry: &Long| usize::from(entry.len) == word.len() && entry.key[..word.len()] == *word;
        let Some(entry) = set.iter().find(|entry| is(entry)) else { return false };
        out.extend_from_slice(&entry.ids[..usize::from(entry.count)]);
        true
    }

    /// Stores the ids of a word that [`get`](Self::get) did not find.
    pub(crate) fn put(&mut self, word: &[u8], ids: &[u32]) {
        if word.len() <= SHORT && ids.len() <= SHORT_IDS {
            let key = pack(word, 0, word.len());
            let set = self.set(key);
            let set = &mut self.short[set..set + 4];
            set.copy_within(..2, 2);
            set[..2].copy_from_slice(&[key | (ids.len() as u128) << 124, packed_ids(ids)]);
        } else if word.len() > SHORT && word.len() <= LONGEST && ids.len() <= LONG_IDS {
            if self.long.is_empty() {
                self.long = vec![[FREE; 2]; self.long_sets];
            }
            let at = hash_bytes(self.seed, word) as usize & (self.long_sets - 1);
            let set = &mut self.long[at];
            set[1] = set[0];
            set[0].len = word.len() as u8;
            set[0].count = ids.len() as u8;
            set[0].key[..word.len()].copy_from_slice(word);
            set[0].ids[..ids.len()].copy_from_slice(ids);
        }
    }
}

#[inline(always)]
fn short_hash(key: u128, seed: u64) -> usize {
    mix(key as u64 ^ seed, (key >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_or_are_unknown() {
        // With one set of each kind, all words collide. Every id that is found must still be right.
        let mut cache = WordCache::with_sets(1, 1);
        // Words of all lengths up to 70; many differ in their last letter or their length only.
        let word =
            |i: usize| format!("{}{}", "x".repeat(i % 71), if i.is_multiple_of(3) { "y" } else { "" }).into_bytes();
        let ids = |i: usize| (0..i % 18).map(|k| (i % 1000 + k) as u32).collect::<Vec<_>>();
        let mut last: std::collections::HashMap<Vec<u8>, usize> = std::collections::HashMap::new();
        let (mut found, mut asked) = (0, 0u64);
        for i in 0..50_000 {
            asked = asked.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let w = word((asked >> 40) as usize % 200);
            if w.is_empty() {
                continue;
            }
            let mut out = vec![7];
            if cache.get(&w, 0, w.len(), &mut out) {
                assert_eq!(out[1..], ids(last[&w]), "{w:?}");
                found += 1;
            } else {
                cache.put(&w, &ids(i));
                last.insert(w, i);
            }
            assert_eq!(out[0], 7);
        }
        assert!(found > 500, "{found}");
    }
}
