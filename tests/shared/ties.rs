//! Tokens whose experts hang on a rounding: both choices are right then, and what follows from them differs.

/// Results in 16 bits are compared where the second and the third most probable expert are this far apart, in every layer.
const GAP: f64 = 0.05;
/// So many tokens must be left for a comparison to mean something.
pub const SHARE: f64 = 0.25;

/// Of each token, whether its choice is far from a tie; logits `[tokens, experts]` of one layer.
pub fn far_from_ties(logits: &[f64], experts: usize) -> impl Iterator<Item = bool> {
    logits.chunks_exact(experts).map(|logits| {
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        let mut shares: Vec<f64> = logits.iter().map(|l| l.exp() / sum).collect();
        shares.sort_by(|a, b| b.total_cmp(a));
        shares[1] - shares[2] >= GAP
    })
}
