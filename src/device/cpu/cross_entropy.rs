//! Cross-entropy of a chunk of rows: log-probabilities, and the gradient of the logits in the same pass.

use super::memory::Mat;
use super::real::Real;
use crate::op::IGNORED;
use rayon::prelude::*;

/// logits `[n,V]`, targets and weight `[n]`. Returns logp `[n]` and, where asked, dlogits `[n,V]`:
/// `loss_scale · weight · (softmax − onehot)`, zero in the rows that are ignored.
pub fn cross_entropy<A: Real>(
    logits: &Mat<A>,
    targets: &[i32],
    weight: &[A],
    loss_scale: A,
    gradient: bool,
) -> (Vec<A>, Option<Vec<A>>) {
    let mut logp = vec![A::zero(); logits.rows];
    let log_sum = |row: &[A]| {
        let top = row.iter().copied().fold(A::neg_infinity(), A::max);
        top + row.iter().map(|&l| (l - top).exp()).sum::<A>().ln()
    };
    let kept = |t: usize| targets[t] != IGNORED;
    logp.par_iter_mut().enumerate().filter(|(t, _)| kept(*t)).for_each(|(t, logp)| {
        *logp = logits.row(t)[targets[t] as usize] - log_sum(logits.row(t));
    });
    let dlogits = gradient.then(|| {
        let mut d = vec![A::zero(); logits.rows * logits.cols];
        d.par_chunks_mut(logits.cols).enumerate().filter(|(t, _)| kept(*t)).for_each(|(t, d)| {
            let (lse, scale) = (log_sum(logits.row(t)), loss_scale * weight[t]);
            d.iter_mut().zip(logits.row(t)).for_each(|(d, &l)| *d = scale * (l - lse).exp());
            d[targets[t] as usize] -= scale;
        });
        d
    });
    (logp, dlogits)
}
