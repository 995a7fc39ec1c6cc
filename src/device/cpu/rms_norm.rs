//! RMSNorm (Zhang & Sennrich 2019), with the two roundings of HF's `LlamaRMSNorm`: the normalized row is cast to the
//! storage type before it is multiplied by the weight.

use super::memory::Matrix;
use super::real::{Real, dot};
use crate::dtype::DType;
use rayon::prelude::*;

/// x `[T,D]`, weight `[1,D]`; returns out `[T,D]` and rstd `[T,1]`.
pub fn rms_norm<A: Real>(x: &Matrix<A>, weight: &[A], eps: f64, storage: DType) -> (Vec<A>, Vec<A>) {
    let mut out = vec![A::zero(); x.rows * x.cols];
    let mut rstd = vec![A::zero(); x.rows];
    out.par_chunks_mut(x.cols).zip(&mut rstd).enumerate().for_each(|(t, (out, rstd))| {
        let x = x.row(t);
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
    dx.par_chunks_mut(x.cols).enumerate().for_each(|(t, dx)| {
        let (x, r) = (x.row(t), rstd[t]);
        let g: Vec<A> = dout.row(t).iter().zip(weight).map(|(&d, &w)| d * w).collect();
        let along = r * r * dot(&g, x) / A::of(x.len() as f64);
        for i in 0..dx.len() {
            dx[i] = r * (g[i] - x[i] * along) + plus.map_or(A::zero(), |p| p.row(t)[i]);
        }
    });
    dx
}
