//! The next token: from logits to one of them, at random or the largest.
//!
//! Temperature, then top-k, then top-p, in the order and with the rules of HF's logits warpers; then one random number
//! chooses. Probabilities are whole multiples of 2⁻⁴⁰ of the largest one, so their sums do not depend on an order: the GPU
//! adds them up in another one and gets the same.

use crate::random::philox;

/// The result of [`sample`] for a row without a largest number.
pub const UNDEFINED: i32 = -1;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Logits are divided by it; 0: the largest is taken.
    pub temperature: f32,
    /// Only tokens whose logit is at least the k-th largest take part; 0: all.
    pub top_k: usize,
    /// Among these, the most probable ones that together have at least this probability take part; from 1 on: all.
    pub top_p: f32,
}

/// The tokens that take part, by falling logit (equal ones by rising index), and the mass of each.
pub struct Kept {
    /// The tokens that take part.
    pub tokens: Vec<usize>,
    /// `e^((logit − largest) / temperature)` in units of 2⁻⁴⁰, rounded down.
    pub masses: Vec<u64>,
}

impl Kept {
    /// The sum of all masses.
    pub fn total(&self) -> u64 {
        self.masses.iter().sum()
    }
    /// The place at which the masses from the first on reach `target`, which is at least 1 and at most the total.
    fn reaching(&self, target: u64) -> usize {
        let mut sum = 0;
        let reached = self.masses.iter().position(|mass| {
            sum += mass;
            sum >= target
        });
        reached.expect("the target is at most the total")
    }
}

/// The tokens among which a draw decides. The temperature is above 0 and the largest logit finite.
pub fn keep(logits: &[f32], rule: &Rule) -> Kept {
    let mut tokens: Vec<usize> = (0..logits.len()).collect();
    tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let top = logits[tokens[0]];
    if (1..tokens.len()).contains(&rule.top_k) {
        let least = logits[tokens[rule.top_k - 1]];
        tokens.retain(|&i| logits[i] >= least);
    }
    let mass = |&i: &usize| (((logits[i] - top) / rule.temperature).exp() * 2f32.powi(40)) as u64;
    let masses = tokens.iter().map(mass).collect();
    let mut kept = Kept { tokens, masses };
    if rule.top_p < 1.0 {
        let share = (kept.total() as f64 * f64::from(rule.top_p)).ceil() as u64;
        let count = kept.reaching(share.max(1)) + 1;
        kept.tokens.truncate(count);
        kept.masses.truncate(count);
    }
    kept
}

/// One token for each row of `cols` logits; `seed` and the number of the row decide the draw. A row with a NaN or without
/// a finite largest number gives [`UNDEFINED`].
pub fn sample(logits: &[f32], cols: usize, rule: &Rule, seed: [u32; 2]) -> Vec<i32> {
    let choose = |(row, logits): (usize, &[f32])| {
        // −0 becomes 0: they are equal.
        let logits: Vec<f32> = logits.iter().map(|l| l + 0.0).collect();
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !top.is_finite() || logits.iter().any(|l| l.is_nan()) {
            return UNDEFINED;
        }
        if rule.temperature == 0.0 {
            return logits.iter().position(|l| *l == top).map_or(UNDEFINED, |i| i as i32);
        }
        let kept = keep(&logits, rule);
        let random = philox([row as u32, 0, 0, 0], seed);
        let random = u64::from(random[0]) << 32 | u64::from(random[1]);
        let below_total = ((u128::from(random) * u128::from(kept.total())) >> 64) as u64;
        kept.tokens[kept.reaching(below_total + 1)] as i32
    };
    logits.chunks_exact(cols).enumerate().map(choose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rule = Rule { temperature: 1.0, top_k: 0, top_p: 1.0 };

    fn kept(logits: &[f32], rule: Rule) -> Vec<usize> {
        keep(logits, &rule).tokens
    }

    #[test]
    fn top_k_keeps_all_that_equal_the_last() {
        let logits = [1.0, 3.0, 2.0, 3.0, 2.0, -1.0];
        assert_eq!(kept(&logits, Rule { top_k: 1, ..ALL }), [1, 3]);
        assert_eq!(kept(&logits, Rule { top_k: 3, ..ALL }), [1, 3, 2, 4]);
        for top_k in [0, 6, 100_000] {
            assert_eq!(kept(&logits, Rule { top_k, ..ALL }), [1, 3, 2, 4, 0, 5]);
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_set_with_at_least_p() {
        // Probabilities 0.5, 0.25, 0.125, 0.125: exact powers of two.
        let logits = [0.125f32, 0.5, 0.125, 0.25].map(f32::ln);
        for (top_p, want) in [
            (0.0, &[1][..]),
            (0.3, &[1]),
            (0.49, &[1]),
            (0.6, &[1, 3]),
            (0.74, &[1, 3]),
            (0.8, &[1, 3, 0]),
            (0.99, &[1, 3, 0, 2]),
            (1.0, &[1, 3, 0, 2]),
        ] {
            assert_eq!(kept(&logits, Rule { top_p, ..ALL }), want, "{top_p}");
        }
        // After top-k the rest has probability 1: 2/3 and 1/3.
        assert_eq!(kept(&logits, Rule { top_p: 0.6, top_k: 2, ..ALL }), [1]);
        // A low temperature sharpens before top-p: (1/2)⁴ : (1/4)⁴.
        assert_eq!(kept(&logits, Rule { top_p: 0.9, temperature: 0.25, ..ALL }), [1]);
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        let logits = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
        let n = 40_000;
        for (rule, want) in [
            (ALL, [0.1, 0.4, 0.2, 0.3]),
            (Rule { top_k: 2, ..ALL }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (Rule { temperature: 0.5, ..ALL }, [1.0 / 30.0, 16.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0]),
        ] {
            let mut counts = [0.0; 4];
            // Two rows for each seed: they must be independent, too.
            for seed in 0..n / 2 {
                for token in sample(&[logits, logits].concat(), 4, &rule, [seed, 7]) {
                    counts[token as usize] += 1.0;
                }
            }
            for (count, p) in counts.iter().zip(want) {
                let deviation = (f64::from(n) * p * (1.0 - p)).sqrt();
                assert!((count - f64::from(n) * p).abs() <= 5.0 * deviation, "{rule:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let greedy = Rule { temperature: 0.0, ..ALL };
        assert_eq!(sample(&[0.0, 2.0, 2.0, -0.0, 0.0, -5.0], 3, &greedy, [1, 2]), [1, 0]);
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(sample(&[0.0, bad, 2.0], 3, &greedy, [1, 2]), [UNDEFINED]);
            assert_eq!(sample(&[0.0, bad, 2.0], 3, &ALL, [1, 2]), [UNDEFINED]);
        }
        assert_eq!(sample(&[f32::NEG_INFINITY, 1.0], 2, &ALL, [1, 2]), [1]);
    }
}
