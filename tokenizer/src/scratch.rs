//! Buffers that encoding reuses.

use std::sync::{Mutex, PoisonError};

use crate::cache::WordCache;
use crate::merge::Merger;

/// The buffers of one encoding at a time.
pub(crate) struct Scratch {
    /// The ids of words, which are what the text is cut into.
    pub(crate) words: WordCache,
    /// The ids of parts of long words, where these differ from the ids of a word of the same bytes.
    pub(crate) parts: WordCache,
    pub(crate) merger: Merger,
    pub(crate) symbols: Vec<u32>,
    /// The first part of a text with the space that is put before it.
    pub(crate) first: String,
    pub(crate) normalized: String,
}

/// The scratches that are not in use. Taking or returning one holds a lock for one pop or push.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Scratch>>);

impl Pool {
    /// Buffers of more than this many bytes are freed after use.
    const MOST_KEPT: usize = 1 << 20;

    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = idle.unwrap_or_else(|| Scratch {
            words: WordCache::new(),
            parts: WordCache::new(),
            merger: Merger::default(),
            symbols: Vec::new(),
            first: String::new(),
            normalized: String::new(),
        });
        let result = work(&mut scratch);
        if scratch.symbols.capacity() > Self::MOST_KEPT {
            scratch.merger = Merger::default();
            scratch.symbols = Vec::new();
        }
        if scratch.normalized.capacity() > Self::MOST_KEPT || scratch.first.capacity() > Self::MOST_KEPT {
            scratch.normalized = String::new();
            scratch.first = String::new();
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }
}
