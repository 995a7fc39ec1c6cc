//! Finds tokens whose choice of experts depends on rounding: either choice is correct, and all later values depend on
//! it.

/// Smallest difference between the logits of the last chosen expert and of the next for which 16-bit results are compared.
/// The logits of the recorded models are of the size of 1, so this is some 30 roundings to bf16.
const GAP: f64 = 0.125;

/// For each token, whether its choice of `choices` experts is far from a tie. `logits` holds `[tokens, experts]` of one
/// layer.
pub fn far_from_ties(logits: &[f64], experts: usize, choices: usize) -> impl Iterator<Item = bool> {
    logits.chunks_exact(experts).map(move |logits| {
        let mut logits = logits.to_vec();
        logits.sort_by(|a, b| b.total_cmp(a));
        logits[choices - 1] - logits[choices] >= GAP
    })
}
