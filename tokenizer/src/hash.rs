//! One multiplication per eight bytes: the hash under the vocabulary, the pair table and the word cache.
//! It is seeded per process, so that a file cannot be made whose pieces all collide.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The process's seed.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(0u64) | 1)
}

/// Both halves of the product, mixed: every bit of the input reaches every bit of the result.
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
