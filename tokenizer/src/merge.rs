//! Byte-pair merging of a run of symbols. It repeatedly merges the pair with the lowest rank. The leftmost pair goes
//! first if several have this rank.
//!
//! Two algorithms give the same result. [`merge_short`] scans all pairs for each merge, which is fastest for a word.
//! [`merge_long`] keeps the pairs in a queue, so that a megabyte that cannot be cut takes O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::vocab::{Merge, PairTable};

/// The maximum length, in symbols, of a run that is merged without the queue.
pub(crate) const SHORT: usize = 48;

const NO_RANK: u32 = u32::MAX;
const NOTHING: Merge = Merge { rank: NO_RANK, symbol: 0 };
const END: u32 = u32::MAX;

/// The merge of each pair of bytes. The table has 512 kB, but the entries that a text uses stay in the L1 cache. The
/// table of all pairs of symbols is too large for that.
pub(crate) struct BytePairs {
    /// `[first << 8 | second]`
    merges: Vec<Merge>,
}

impl BytePairs {
    /// The merges of the bytes with these symbols.
    pub(crate) fn new(table: &PairTable, symbols: &[u32; 256]) -> Self {
        let pairs = symbols.iter().flat_map(|left| symbols.iter().map(move |right| (*left, *right)));
        Self { merges: pairs.map(|(left, right)| table.get(left, right).unwrap_or(NOTHING)).collect() }
    }
}

/// Merges symbols, and keeps its buffers between calls.
#[derive(Default)]
pub(crate) struct Merger {
    /// Entry `i` is the merge of symbol `i` with its successor.
    pairs: Vec<Merge>,
    prev: Vec<u32>,
    next: Vec<u32>,
    queue: Queue,
}

impl Merger {
    /// Replaces `symbols` by what they merge into.
    #[inline]
    pub(crate) fn merge(&mut self, table: &PairTable, symbols: &mut Vec<u32>) {
        if symbols.len() <= SHORT {
            self.pairs.clear();
            self.pairs.extend(symbols.windows(2).map(|w| table.get(w[0], w[1]).unwrap_or(NOTHING)));
            self.merge_short(table, symbols);
        } else {
            self.merge_long(table, symbols, 1);
        }
    }

    /// The same for the symbols of a word's bytes, whose first merges are known from `bytes`.
    #[inline]
    pub(crate) fn merge_bytes(&mut self, table: &PairTable, bytes: &BytePairs, word: &[u8], symbols: &mut Vec<u32>) {
        if symbols.len() <= SHORT {
            self.pairs.clear();
            self.pairs.extend(word.windows(2).map(|w| bytes.merges[usize::from(w[0]) << 8 | usize::from(w[1])]));
            self.merge_short(table, symbols);
        } else {
            self.merge_long(table, symbols, 1);
        }
    }

    /// The same for a short run whose merges are in `self.pairs`.
    fn merge_short(&mut self, table: &PairTable, symbols: &mut Vec<u32>) {
        let pairs = &mut self.pairs;
        loop {
            let mut best = (NO_RANK, 0);
            for (at, pair) in pairs.iter().enumerate() {
                if pair.rank < best.0 {
                    best = (pair.rank, at);
                }
            }
            let (rank, at) = best;
            if rank == NO_RANK {
                return;
            }
            symbols[at] = pairs[at].symbol;
            symbols.remove(at + 1);
            pairs.remove(at);
            if at > 0 {
                pairs[at - 1] = table.get(symbols[at - 1], symbols[at]).unwrap_or(NOTHING);
            }
            if at < pairs.len() {
                pairs[at] = table.get(symbols[at], symbols[at + 1]).unwrap_or(NOTHING);
            }
        }
    }

    /// The same for long runs. It stops when `fewest` symbols are left.
    pub(crate) fn merge_long(&mut self, table: &PairTable, symbols: &mut Vec<u32>, fewest: usize) {
        let Self { pairs, prev, next, queue } = self;
        let count = symbols.len() as u32;
        pairs.clear();
        prev.clear();
        next.clear();
        prev.extend((0..count).map(|i| i.wrapping_sub(1)));
        next.extend((1..count).chain([END]));
        let mut left_over = symbols.len();
        let look = |left: u32, right: u32| table.get(left, right).unwrap_or(NOTHING);
        for (at, pair) in symbols.windows(2).enumerate() {
            let merge = look(pair[0], pair[1]);
            pairs.push(merge);
            if merge.rank != NO_RANK {
                queue.push(merge.rank, at as u32);
            }
        }
        pairs.push(NOTHING);
        while let Some((rank, left)) = queue.pop() {
            let at = left as usize;
            // If a side of the pair has merged since, the position has another rank now, or none.
            if pairs[at].rank != rank || left_over <= fewest {
                continue;
            }
            left_over -= 1;
            let gone = next[at] as usize;
            symbols[at] = pairs[at].symbol;
            let after = next[gone];
            next[at] = after;
            pairs[gone].rank = NO_RANK;
            let before = prev[at];
            if before != END {
                let merge = look(symbols[before as usize], symbols[at]);
                pairs[before as usize] = merge;
                if merge.rank != NO_RANK {
                    queue.push(merge.rank, before);
                }
            }
            pairs[at] = NOTHING;
            if after != END {
                prev[after as usize] = left;
                let merge = look(symbols[at], symbols[after as usize]);
                pairs[at] = merge;
                if merge.rank != NO_RANK {
                    queue.push(merge.rank, left);
                }
            }
        }
        let mut kept = 0;
        let mut at = if count == 0 { END } else { 0 };
        while at != END {
            symbols[kept] = symbols[at as usize];
            kept += 1;
            at = next[at as usize];
        }
        symbols.truncate(kept);
    }
}

/// A priority queue of (rank, position). Pairs of one rank mostly arrive from left to right; such a pair is appended to
/// its rank's list in constant time. The others go into a heap. A tree of bits finds the lowest rank with a list.
#[derive(Default)]
struct Queue {
    /// The first and the last node of each rank's list.
    lists: Vec<(u32, u32)>,
    /// The position of a pair, and the next node of the list.
    nodes: Vec<(u32, u32)>,
    /// Level 0 has a bit for each rank with a list, level n + 1 a bit for each nonzero word of level n.
    levels: Vec<Vec<u64>>,
    late: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Queue {
    fn push(&mut self, rank: u32, position: u32) {
        if rank as usize >= self.lists.len() {
            self.grow(rank);
        }
        let node = self.nodes.len() as u32;
        let (first, last) = self.lists[rank as usize];
        if first == END {
            self.lists[rank as usize] = (node, node);
            self.mark(rank);
        } else if self.nodes[last as usize].0 <= position {
            self.nodes[last as usize].1 = node;
            self.lists[rank as usize].1 = node;
        } else {
            self.late.push(Reverse((rank, position)));
            return;
        }
        self.nodes.push((position, END));
    }

    fn pop(&mut self) -> Option<(u32, u32)> {
        let listed = self.first_rank().map(|rank| (rank, self.nodes[self.lists[rank as usize].0 as usize].0));
        match (listed, self.late.peek()) {
            (None, None) => {
                self.nodes.clear();
                return None;
            }
            (Some(listed), Some(&Reverse(late))) if late < listed => {}
            (None, Some(_)) => {}
            (Some((rank, position)), _) => {
                let node = self.lists[rank as usize].0;
                let next = self.nodes[node as usize].1;
                self.lists[rank as usize].0 = next;
                if next == END {
                    self.unmark(rank);
                }
                return Some((rank, position));
            }
        }
        self.late.pop().map(|Reverse(late)| late)
    }

    fn grow(&mut self, rank: u32) {
        let ranks = (rank as usize + 1).next_power_of_two().max(1 << 12);
        self.lists.resize(ranks, (END, END));
        let mut words = ranks.div_ceil(64);
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                // A new level summarizes the level below it.
                let below = level.checked_sub(1).map(|b: usize| self.levels[b].clone()).unwrap_or_default();
                let mut bits = vec![0; words];
                for (i, _) in below.iter().enumerate().filter(|(_, word)| **word != 0) {
                    bits[i >> 6] |= 1 << (i & 63);
                }
                self.levels.push(bits);
            } else {
                self.levels[level].resize(words, 0);
            }
            if words == 1 {
                return;
            }
            words = words.div_ceil(64);
            level += 1;
        }
    }

    fn mark(&mut self, rank: u32) {
        let mut bit = rank as usize;
        for level in &mut self.levels {
            let word = &mut level[bit >> 6];
            let known = *word != 0;
            *word |= 1 << (bit & 63);
            if known {
                return;
            }
            bit >>= 6;
        }
    }

    fn unmark(&mut self, rank: u32) {
        let mut bit = rank as usize;
        for level in &mut self.levels {
            let word = &mut level[bit >> 6];
            *word &= !(1 << (bit & 63));
            if *word != 0 {
                return;
            }
            bit >>= 6;
        }
    }

    fn first_rank(&self) -> Option<u32> {
        let mut word = 0;
        for level in self.levels.iter().rev() {
            let bits = level[word];
            if bits == 0 {
                return None;
            }
            word = word << 6 | bits.trailing_zeros() as usize;
        }
        (!self.levels.is_empty()).then_some(word as u32)
    }
}
