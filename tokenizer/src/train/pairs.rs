//! Repeatedly turns the most frequent pair of neighbors into a piece.

use std::collections::{BinaryHeap, HashMap};

use rayon::prelude::*;

use super::words::Words;

type Pair = (u32, u32);

/// The minimum number of words for which a merge runs on several threads.
const WORTH_THREADS: usize = 512;

struct Word {
    symbols: Vec<u32>,
    count: i64,
}

#[derive(Default)]
struct Occurrences {
    count: i64,
    /// The words that have or had the pair. A word may be listed twice.
    words: Vec<u32>,
}

struct Learner {
    words: Vec<Word>,
    texts: Vec<String>,
    lengths: Vec<usize>,
    by_text: HashMap<String, u32>,
    pairs: HashMap<Pair, Occurrences>,
    /// Candidates by count, then by smaller ids. Counts may be out of date and are checked when they come up.
    queue: BinaryHeap<(i64, std::cmp::Reverse<Pair>)>,
    longest: usize,
}

/// Learns up to `wanted` pieces and returns them in this order. `allowed` decides which texts may become pieces. A pair
/// that occurs only once does not.
pub(super) fn learn(
    words: &Words,
    chars: &[char],
    wanted: usize,
    longest: usize,
    allowed: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut learner = Learner::new(words, chars, longest);
    let mut learned = Vec::new();
    while learned.len() < wanted {
        let Some(pair) = learner.best() else { break };
        let text = format!("{}{}", learner.texts[pair.0 as usize], learner.texts[pair.1 as usize]);
        if !allowed(&text) {
            continue;
        }
        // If another pair has produced the same piece already ("a"+"bc" after "ab"+"c"), the symbol is the same.
        let symbol = match learner.by_text.get(&text) {
            Some(symbol) => *symbol,
            None => {
                learned.push(text.clone());
                learner.add_symbol(text)
            }
        };
        learner.merge(pair, symbol);
    }
    learned
}

impl Learner {
    fn new(words: &Words, chars: &[char], longest: usize) -> Self {
        let mut learner = Self {
            words: Vec::new(),
            texts: Vec::new(),
            lengths: Vec::new(),
            by_text: HashMap::new(),
            pairs: HashMap::new(),
            queue: BinaryHeap::new(),
            longest,
        };
        let symbols: HashMap<char, u32> = chars.iter().map(|c| (*c, learner.add_symbol(c.to_string()))).collect();
        learner.words = words
            .par_iter()
            .flat_map_iter(|(word, count)| {
                // A character without a piece never merges: it splits the word.
                let all: Vec<Option<u32>> = word.chars().map(|c| symbols.get(&c).copied()).collect();
                let parts: Vec<Vec<u32>> =
                    all.split(Option::is_none).map(|part| part.iter().copied().flatten().collect()).collect();
                parts.into_iter().filter(|p| p.len() > 1).map(|symbols| Word { symbols, count: *count as i64 })
            })
            .collect();
        for (i, word) in learner.words.iter().enumerate() {
            for pair in word.symbols.windows(2) {
                let at = learner.pairs.entry((pair[0], pair[1])).or_default();
                at.count += word.count;
                at.words.push(i as u32);
            }
        }
        let all: Vec<Pair> = learner.pairs.keys().copied().collect();
        all.into_iter().for_each(|pair| learner.offer(pair));
        learner
    }

    fn add_symbol(&mut self, text: String) -> u32 {
        let symbol = self.texts.len() as u32;
        self.lengths.push(text.chars().count());
        self.by_text.insert(text.clone(), symbol);
        self.texts.push(text);
        symbol
    }

    fn offer(&mut self, pair: Pair) {
        let count = self.pairs.get(&pair).map_or(0, |p| p.count);
        if count > 1 && self.lengths[pair.0 as usize] + self.lengths[pair.1 as usize] <= self.longest {
            self.queue.push((count, std::cmp::Reverse(pair)));
        }
    }

    fn best(&mut self) -> Option<Pair> {
        while let Some((count, std::cmp::Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |p| p.count);
            if now == count {
                return Some(pair);
            }
            // The pair has become rarer since it was queued. Queue it again with its current count.
            if now < count {
                self.offer(pair);
            }
        }
        None
    }

    fn merge(&mut self, pair: Pair, symbol: u32) {
        let Some(mut found) = self.pairs.remove(&pair) else { return };
        found.words.sort_unstable();
        found.words.dedup();
        let words = &self.words;
        let rewrite = |i: &u32| (*i, rewritten(&words[*i as usize].symbols, pair, symbol));
        let new: Vec<(u32, Vec<u32>)> = match found.words.len() {
            ..WORTH_THREADS => found.words.iter().map(rewrite).collect(),
            _ => found.words.par_iter().map(rewrite).collect(),
        };
        let mut changed = Vec::new();
        for (i, symbols) in new {
            let word = &mut self.words[i as usize];
            let old = std::mem::replace(&mut word.symbols, symbols);
            let windows = |s: &[u32]| s.windows(2).map(|p| (p[0], p[1])).collect::<Vec<_>>();
            for p in windows(&old).into_iter().filter(|p| *p != pair) {
                self.pairs.entry(p).or_default().count -= word.count;
            }
            for p in windows(&word.symbols) {
                let at = self.pairs.entry(p).or_default();
                at.count += word.count;
                if p.0 == symbol || p.1 == symbol {
                    at.words.push(i);
                    changed.push(p);
                }
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().for_each(|p| self.offer(p));
    }
}

/// `symbols` with every `pair`, from left to right, replaced by `symbol`.
fn rewritten(symbols: &[u32], pair: Pair, symbol: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(symbols.len());
    let mut at = 0;
    while at < symbols.len() {
        if symbols[at] == pair.0 && symbols.get(at + 1) == Some(&pair.1) {
            out.push(symbol);
            at += 2;
        } else {
            out.push(symbols[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_pair_comes_first_and_counts_follow_the_merges() {
        let words: Words = vec![("abc".into(), 5), ("bc".into(), 2), ("ab".into(), 1), ("aaaa".into(), 3)];
        let learned = learn(&words, &['a', 'b', 'c'], 10, 16, |_| true);
        // aa: 9, then bc: 7; of ab only one is left then. "a"+"bc" occurs 5 times, "aa"+"aa" 3 times.
        assert_eq!(learned, ["aa", "bc", "abc", "aaaa"]);
    }

    #[test]
    fn no_piece_is_longer_than_allowed() {
        let words: Words = vec![("aaaaaaaa".into(), 9)];
        assert_eq!(learn(&words, &['a'], 10, 4, |_| true), ["aa", "aaaa"]);
    }
}
