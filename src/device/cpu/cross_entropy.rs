//! Cross-entropy of a chunk of rows: log-probabilities, which targets are the most probable token, and the gradient of
//! the logits in the same pass.

use super::memory::Matrix;
use super::real::Real;
use crate::op::IGNORED;
use rayon::prelude::*;

/// Results of [`cross_entropy`] for n rows.
pub struct Loss<A> {
    /// `[n]`: log-probability of the target, 0 where there is none.
    pub logp: Vec<A>,
    /// `[n]`: 1 where the target's logit is the largest, and no token before it has an equal one; else 0.
    pub hit: Vec<i32>,
    /// `[n,V]`: `loss_scale · weight · (softmax − onehot)`, zero in the rows that are ignored.
    pub dlogits: Option<Vec<A>>,
}

/// logits `[n,V]`, targets and weight `[n]`; `gradient`: with dlogits.
pub fn cross_entropy<A: Real>(
    logits: &Matrix<A>,
    targets: &[i32],
    weight: &[A],
    loss_scale: A,
    gradient: bool,
) -> Loss<A> {
    let mut logp = vec![A::zero(); logits.rows];
    let largest = |row: &[A]| row.iter().copied().fold(A::neg_infinity(), A::max);
    let log_sum = |row: &[A]| {
        let top = largest(row);
        // Sums of sums: added one by one, the terms of a large vocabulary would lose the last digits of an f32.
        let sum = |part: &[A]| part.iter().map(|&l| (l - top).exp()).sum::<A>();
        top + row.chunks(256).map(sum).sum::<A>().ln()
    };
    let kept = |t: usize| targets[t] != IGNORED;
    logp.par_iter_mut().enumerate().filter(|(t, _)| kept(*t)).for_each(|(t, logp)| {
        *logp = logits.row(t)[targets[t] as usize] - log_sum(logits.row(t));
    });
    let hit = (0..logits.rows).into_par_iter().map(|t| {
        let row = logits.row(t);
        i32::from(
            kept(t) && {
                let (top, target) = (largest(row), targets[t] as usize);
                row[target] == top && !row[..target].contains(&top)
            },
        )
    });
    let hit = hit.collect();
    let dlogits = gradient.then(|| {
        let mut d = vec![A::zero(); logits.rows * logits.cols];
        d.par_chunks_mut(logits.cols).enumerate().filter(|(t, _)| kept(*t)).for_each(|(t, d)| {
            let (lse, scale) = (log_sum(logits.row(t)), loss_scale * weight[t]);
            d.iter_mut().zip(logits.row(t)).for_each(|(d, &l)| *d = scale * (l - lse).exp());
            d[targets[t] as usize] -= scale;
        });
        d
    });
    Loss { logp, hit, dlogits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_vocabulary_costs_no_digits() {
        let row: Vec<f32> = (0..150_000).map(|i| ((i * 7919) % 1000) as f32 * -0.012).collect();
        let exact = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        let loss = cross_entropy(&Matrix::new(1, row.len(), row), &[0], &[1.0], 1.0, false);
        assert!((f64::from(loss.logp[0]) + exact).abs() < 2e-6, "{} and {}", loss.logp[0], -exact);
    }

    #[test]
    fn a_hit_is_the_first_of_the_largest() {
        let row = [1.0f32, 3.0, -2.0, 3.0];
        let logits = Matrix::new(5, 4, row.repeat(5));
        let loss = cross_entropy(&logits, &[1, 3, 0, IGNORED, 2], &[1.0; 5], 1.0, false);
        assert_eq!(loss.hit, [1, 0, 0, 0, 0]);
        // −0 and 0 are equal.
        let logits = Matrix::new(2, 2, vec![-0.0f32, 0.0, 0.0, -0.0]);
        assert_eq!(cross_entropy(&logits, &[0, 0], &[1.0; 2], 1.0, false).hit, [1, 1]);
    }
}
