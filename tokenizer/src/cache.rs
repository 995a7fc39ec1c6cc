//! What words were encoded to, so that the second "the" costs one look-up. Bounded, and never wrong: whole keys are
//! compared. Two tables, for the short words that make up most of any text and for the longer ones (indented
//! identifiers, mostly); each is two-way associative, and the older entry makes room.

use crate::hash::{hash_bytes, mix, seed};

/// Words of more bytes are not kept.
pub(crate) const LONGEST: usize = 62;
const SHORT: usize = 15;
const SHORT_IDS: usize = 4;
const LONG_IDS: usize = 15;

/// Key and ids. The key holds the word in its lower 15 bytes, its length in the next four bits, the number of ids in
/// the uppermost four. As plain numbers, so that a fresh table is memory that the system zeroes page by page when it
/// is first touched.
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
/// All of a short key but the number of ids.
const KEY: u128 = u128::MAX >> 4;

/// See the head of this file.
pub(crate) struct WordCache {
    short: Vec<[Short; 2]>,
    long: Vec<[Long; 2]>,
    /// How many sets `long` gets when the first long word comes.
    long_sets: usize,
    seed: u64,
}

const SHORT_SETS: usize = 1 << 15;
const LONG_SETS: usize = 1 << 12;

/// `text[start..end]` packed with its length.
#[inline(always)]
fn pack(text: &[u8], start: usize, end: usize) -> u128 {
    let len = end - start;
    let bytes = match text.get(start..start + 16).and_then(|b| b.first_chunk::<16>()) {
        Some(bytes) => *bytes,
        None => {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&text[start..end]);
            bytes
        }
    };
    let mask = (1u128 << (8 * len)) - 1;
    u128::from_le_bytes(bytes) & mask | (len as u128) << 120
}

impl WordCache {
    pub(crate) fn new() -> Self {
        Self::with_sets(SHORT_SETS, LONG_SETS)
    }

    /// Powers of two.
    fn with_sets(short_sets: usize, long_sets: usize) -> Self {
        Self { short: vec![[[0; 2]; 2]; short_sets], long: Vec::new(), long_sets, seed: seed() }
    }

    /// Appends the ids of the word `text[start..end]`, which is not empty, to `out` if they are known.
    #[inline(always)]
    pub(crate) fn get(&self, text: &[u8], start: usize, end: usize, out: &mut Vec<u32>) -> bool {
        if end - start > SHORT {
            return self.get_long(&text[start..end], out);
        }
        let key = pack(text, start, end);
        let set = &self.short[short_hash(key, self.seed) & (self.short.len() - 1)];
        // Chosen without a branch: nothing foretells which of the two it is.
        let entry = set[usize::from(set[1][0] & KEY == key)];
        if entry[0] & KEY != key {
            return false;
        }
        // All ids are copied and the surplus dropped: cheaper than a copy of variable length.
        let count = (entry[0] >> 124) as usize;
        out.extend_from_slice(&unpacked_ids(entry[1]));
        out.truncate(out.len() - (SHORT_IDS - count));
        true
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

    /// Remembers the ids of a word that [`get`](Self::get) did not know.
    pub(crate) fn put(&mut self, word: &[u8], ids: &[u32]) {
        if word.len() <= SHORT && ids.len() <= SHORT_IDS {
            let key = pack(word, 0, word.len());
            let at = short_hash(key, self.seed) & (self.short.len() - 1);
            let set = &mut self.short[at];
            set[1] = set[0];
            set[0] = [key | (ids.len() as u128) << 124, packed_ids(ids)];
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
        // One set of each kind: all words meet there, and what is found must still be right.
        let mut cache = WordCache::with_sets(1, 1);
        // Words of all lengths up to 70, of which many differ in their last letter or their length only.
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
