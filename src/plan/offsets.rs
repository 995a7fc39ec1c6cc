//! Packs blocks into the arena: dynamic storage allocation with known lifetimes.

use super::lifetimes::ArenaBlock;
use std::cmp::Reverse;
use std::collections::HashMap;

/// The arena with all blocks placed.
pub struct Packed {
    /// Byte offset of each block.
    pub offset: Vec<usize>,
    /// Size of the arena.
    pub bytes: usize,
    /// The largest sum of bytes alive at one op.
    pub lower_bound: usize,
}

/// Tries a few orders of placing; takes the first that meets the lower bound, else the best.
pub fn pack(blocks: &[ArenaBlock]) -> Packed {
    let lower_bound = most_alive(blocks);
    fn length(s: &ArenaBlock) -> usize {
        s.life.last - s.life.first
    }
    // The smallest key is placed first; the second key breaks ties.
    type Order = dyn Fn(&ArenaBlock) -> (Reverse<usize>, Reverse<usize>);
    let orders: [&Order; 3] =
        [&|s| (Reverse(s.bytes), Reverse(length(s))), &|s| (Reverse(length(s)), Reverse(s.bytes)), &|s| {
            (Reverse(s.bytes * (1 + length(s))), Reverse(s.bytes))
        }];
    let mut best: Option<Packed> = None;
    for order in orders {
        let mut sequence: Vec<usize> = (0..blocks.len()).collect();
        sequence.sort_by_key(|&i| (order(&blocks[i]), i));
        let (offset, bytes) = place(blocks, &sequence);
        if best.as_ref().is_none_or(|b| bytes < b.bytes) {
            best = Some(Packed { offset, bytes, lower_bound });
        }
        // Half a percent is below what alignment and the driver take; trying another order is not worth its time.
        if best.as_ref().is_some_and(|b| b.bytes <= lower_bound + lower_bound / 200) {
            break;
        }
    }
    best.unwrap_or(Packed { offset: Vec::new(), bytes: 0, lower_bound })
}

/// Sweeps over the ops of each phase.
fn most_alive(blocks: &[ArenaBlock]) -> usize {
    let mut change: HashMap<usize, Vec<i64>> = HashMap::new();
    for s in blocks {
        let c = change.entry(s.life.phase).or_default();
        c.resize(c.len().max(s.life.last + 2), 0);
        c[s.life.first] += s.bytes as i64;
        c[s.life.last + 1] -= s.bytes as i64;
    }
    let peak = |c: &Vec<i64>| {
        let mut alive = 0;
        c.iter().fold(0, |most, d| {
            alive += d;
            most.max(alive)
        })
    };
    change.values().map(peak).max().unwrap_or(0) as usize
}

/// Gives each block, in this order, the lowest offset that is free over its whole life.
fn place(blocks: &[ArenaBlock], sequence: &[usize]) -> (Vec<usize>, usize) {
    // Blocks that are placed, listed under every stretch of ops that they touch, so that only neighbors in time are looked at.
    const STRETCH: usize = 64;
    let mut index: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    let mut offset = vec![0; blocks.len()];
    let mut bytes = 0;
    let mut busy: Vec<(usize, usize)> = Vec::new();
    for &i in sequence {
        let s = &blocks[i];
        busy.clear();
        for stretch in s.life.first / STRETCH..=s.life.last / STRETCH {
            for &j in index.get(&(s.life.phase, stretch)).map_or(&[][..], Vec::as_slice) {
                let o = &blocks[j];
                // Seen once: in the first stretch that both touch.
                let seen_here = stretch == (o.life.first / STRETCH).max(s.life.first / STRETCH);
                if seen_here && o.life.first <= s.life.last && s.life.first <= o.life.last {
                    busy.push((offset[j], offset[j] + o.bytes));
                }
            }
            index.entry((s.life.phase, stretch)).or_default().push(i);
        }
        busy.sort_unstable();
        let mut at = 0;
        for &(from, to) in &busy {
            if at + s.bytes <= from {
                break;
            }
            at = at.max(to);
        }
        offset[i] = at;
        bytes = bytes.max(at + s.bytes);
    }
    (offset, bytes)
}
