//! The hash of the vocabulary, the pair table and the word cache: one multiplication per eight bytes. Each process has
//! its own seed, so that no file can be made whose pieces all collide.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The seed of this process.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(0u64) | 1)
}

/// Folds both halves of the product, so that every input bit can change every bit of the result.
#[inline(always)]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
pub(crate) fn hash_word(seed: u64, word: u64) -> u64 {
    mix(word ^ seed, ODD)
}

#[inline]
pub(crate) fn hash_pair(seed: u64, left: u32, right: u32) -> u64 {
    hash_word(seed, u64::from(left) << 32 | u64::from(right))
}

#[inline]
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        state = mix(state ^ u64::from_le_bytes(eight), ODD ^ seed);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(state ^ u64::from_le_bytes(last), ODD)
}

/// Builds hashers for maps with texts or `u64` as keys.
#[derive(Clone)]
pub(crate) struct BuildTextHasher(u64);

impl Default for BuildTextHasher {
    fn default() -> Self {
        Self(seed())
    }
}

impl BuildHasher for BuildTextHasher {
    type Hasher = TextHasher;
    fn build_hasher(&self) -> TextHasher {
        TextHasher(self.0)
    }
}

/// The hasher of [`BuildTextHasher`].
pub(crate) struct TextHasher(u64);

impl Hasher for TextHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_bytes(self.0, bytes);
    }
    fn write_u8(&mut self, _: u8) {
        // `str` writes a terminator after its bytes. The hash of the bytes includes their number, so it can be skipped.
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = hash_word(self.0, word);
    }
}
