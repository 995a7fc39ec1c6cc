//! Finds tokens whose choice of experts depends on rounding: either choice is correct, and all later values depend on
//! it.

/// Smallest difference in probability between the second and the third expert for which 16-bit results are compared.
const GAP: f64 = 0.05;

/// For each token, whether its choice of experts is far from a tie. `logits` holds `[tokens, experts]` of one layer.
pub fn far_from_ties(logits: &[f64], experts: usize) -> impl Iterator<Item = bool> {
    logits.chunks_exact(experts).map(|logits| {
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        let mut shares: Vec<f64> = logits.iter().map(|l| l.exp() / sum).collect();
        shares.sort_by(|a, b| b.total_cmp(a));
        shares[1] - shares[2] >= GAP
    })
}
