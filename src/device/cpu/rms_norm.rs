//! RMSNorm (Zhang & Sennrich 2019), with the two roundings of HF's `LlamaRMSNorm`: the normalized row is cast to the
//! storage type before it is multiplied by the weight.

use super::memory::Matrix;
use super::real::{Real, dot};
use crate::dtype::DType;
use rayon::prelude::*;

/// x `[T,n·D]`, weight `[1,D]`; returns out `[T,n·D]` and rstd `[T,n]`.
pub fn rms_norm<A: Real>(x: &Matrix<A>, weight: &[A], eps: f64, storage: DType) -> (Vec<A>, Vec<A>) {
    let mut out = vec![A::zero(); x.rows * x.cols];
    let mut rstd = vec![A::zero(); out.len() / weight.len()];
    let parts = x.data().par_chunks(weight.len());
    out.par_chunks_mut(weight.len()).zip(&mut rstd).zip(parts).for_each(|((out, rstd), x)| {
        *rstd = (dot(x, x) / A::of(x.len() as f64) + A::of(eps)).sqrt().recip();
        for (o, (&x, &w)) in out.iter_mut().zip(x.iter().zip(weight)) {
            *o = (x * *rstd).round_to(storage) * w;
        }
    });
    (out, rstd)
}

/// `dx = plus + rstd·(g − x·rstd²·mean(g·x))` with `g = dout·weight`.
pub fn rms_norm_bwd<A: Real>(
    dout: &Matrix<A>,
    x: &Matrix<A>,
    weight: &[A],
    rstd: &[A],
    plus: Option<&Matrix<A>>,
) -> Vec<A> {
    let mut dx = vec![A::zero(); x.rows * x.cols];
    let d = weight.len();
    dx.par_chunks_mut(d).enumerate().for_each(|(i, dx)| {
        let at = i * d..(i + 1) * d;
        let (x, r, plus) = (&x.data()[at.clone()], rstd[i], plus.map(|p| &p.data()[at.clone()]));
        let g: Vec<A> = dout.data()[at.clone()].iter().zip(weight).map(|(&d, &w)| d * w).collect();
        let along = r * r * dot(&g, x) / A::of(x.len() as f64);
        for i in 0..dx.len() {
            dx[i] = r * (g[i] - x[i] * along) + plus.map_or(A::zero(), |p| p[i]);
        }
    });
    dx
}
