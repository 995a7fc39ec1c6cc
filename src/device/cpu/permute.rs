//! The way back from rows sorted by expert to tokens. (The way there is a row gather: `embed` with `source` as ids.)

use super::memory::Matrix;
use super::real::{Real, dot};
use rayon::prelude::*;

/// `out[t] = plus[t] + Σ_k weights[t,k] · y[slots[t,k]]` over `choices` values of k; returns `[T,D]`.
pub fn combine<A: Real>(
    y: &Matrix<A>,
    weights: Option<&Matrix<A>>,
    slots: &[i32],
    choices: usize,
    plus: Option<&Matrix<A>>,
) -> Vec<A> {
    let mut out = plus.map_or_else(|| vec![A::zero(); slots.len() / choices * y.cols], |p| p.data().to_vec());
    out.par_chunks_mut(y.cols).zip(slots.par_chunks(choices)).enumerate().for_each(|(t, (out, slots))| {
        for (k, &slot) in slots.iter().enumerate() {
            let w = weights.map_or(A::one(), |w| w.row(t)[k]);
            out.iter_mut().zip(y.row(slot as usize)).for_each(|(out, &y)| *out += w * y);
        }
    });
    out
}

/// Returns `dy[slots[t,k]] = weights[t,k] · dout[t]` and `dweights[t,k] = ⟨dout[t], y[slots[t,k]]⟩`.
pub fn combine_bwd<A: Real>(dout: &Matrix<A>, y: &Matrix<A>, weights: &Matrix<A>, slots: &[i32]) -> (Vec<A>, Vec<A>) {
    let mut dy = vec![A::zero(); y.rows * y.cols];
    let mut dweights = vec![A::zero(); slots.len()];
    for (i, &slot) in slots.iter().enumerate() {
        let (t, slot, w) = (i / weights.cols, slot as usize, weights.data()[i]);
        let dy = &mut dy[slot * y.cols..(slot + 1) * y.cols];
        dy.iter_mut().zip(dout.row(t)).for_each(|(dy, &d)| *dy = w * d);
        dweights[i] = dot(dout.row(t), y.row(slot));
    }
    (dy, dweights)
}
