//! The way back from rows sorted by expert to tokens. (The way there is a row gather: `embed` with `source` as ids.)

use super::memory::Matrix;
use super::real::{Real, dot};
use rayon::prelude::*;

/// `out[t] = plus[t] + Σ_k weights[t,k] · y[slots[t,k]]`; returns `[T,D]`.
pub fn combine<A: Real>(y: &Matrix<A>, weights: Option<&Matrix<A>>, slots: &[i32], plus: Option<&Matrix<A>>) -> Vec<A> {
    let tokens = slots.len() / 2;
    let mut out = plus.map_or_else(|| vec![A::zero(); tokens * y.cols], |p| p.data().to_vec());
    out.par_chunks_mut(y.cols).enumerate().for_each(|(t, out)| {
        let w = |k: usize| weights.map_or(A::one(), |w| w.row(t)[k]);
        let (y0, y1) = (y.row(slots[2 * t] as usize), y.row(slots[2 * t + 1] as usize));
        for i in 0..out.len() {
            out[i] += w(0) * y0[i] + w(1) * y1[i];
        }
    });
    out
}

/// Returns `dy[slots[t,k]] = weights[t,k] · dout[t]` and `dweights[t,k] = ⟨dout[t], y[slots[t,k]]⟩`.
pub fn combine_bwd<A: Real>(dout: &Matrix<A>, y: &Matrix<A>, weights: &Matrix<A>, slots: &[i32]) -> (Vec<A>, Vec<A>) {
    let mut dy = vec![A::zero(); y.rows * y.cols];
    let mut dweights = vec![A::zero(); slots.len()];
    for (i, &slot) in slots.iter().enumerate() {
        let (t, slot) = (i / 2, slot as usize);
        let w = weights.row(t)[i % 2];
        let dy = &mut dy[slot * y.cols..(slot + 1) * y.cols];
        dy.iter_mut().zip(dout.row(t)).for_each(|(dy, &d)| *dy = w * d);
        dweights[i] = dot(dout.row(t), y.row(slot));
    }
    (dy, dweights)
}
