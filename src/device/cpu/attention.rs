//! Softmax attention with grouped key/value heads. Which keys a token sees is data: `lo[t] .. hi[t]`; causality, packed
//! documents, Mistral's window and a cache are all values of these arrays.

use super::memory::{CpuMemory, Matrix};
use super::real::{Real, dot};
use crate::op::{Attention, AttentionBwd};
use rayon::prelude::*;

/// Head `h` of row `t`.
fn head<'a, A: Real>(m: &'a Matrix<A>, t: usize, h: usize, d: usize) -> &'a [A] {
    &m.row(t)[h * d..(h + 1) * d]
}

/// Returns out `[T, heads·d]` and lse `[T, heads]`. A token that sees nothing gets zeros, and an lse of −∞.
pub fn attention<A: Real>(mem: &CpuMemory, op: &Attention, live: usize) -> (Vec<A>, Vec<A>) {
    let Attention { heads, kv_heads, .. } = *op;
    let (q, k, v) = (mem.load::<A>(&op.q, live), mem.load::<A>(&op.k, live), mem.load::<A>(&op.v, live));
    let (lo, hi) = (mem.slice::<i32>(&op.lo, live), mem.slice::<i32>(&op.hi, live));
    let (d, shared_by, scale) = (q.cols / heads, heads / kv_heads, A::of(op.scale));
    let mut out = vec![A::zero(); q.rows * q.cols];
    let mut lse = vec![A::zero(); q.rows * heads];
    out.par_chunks_mut(q.cols).zip(lse.par_chunks_mut(heads)).enumerate().for_each(|(t, (out, lse))| {
        let keys = lo[t] as usize..hi[t].max(lo[t]) as usize;
        for h in 0..heads {
            let (qh, kv) = (head(&q, t, h, d), h / shared_by);
            let mut p: Vec<A> = keys.clone().map(|j| scale * dot(qh, head(&k, j, kv, d))).collect();
            let top = p.iter().copied().fold(A::neg_infinity(), A::max);
            p.iter_mut().for_each(|s| *s = (*s - top).exp());
            let sum: A = p.iter().copied().sum();
            lse[h] = top + sum.ln();
            let out = &mut out[h * d..(h + 1) * d];
            for (p, j) in p.into_iter().zip(keys.clone()) {
                add_scaled(out, p / sum, head(&v, j, kv, d));
            }
        }
    });
    (out, lse)
}

/// Gradients of attention: delta `[T, heads]`, dq, dk, dv.
pub struct AttentionGrads<A> {
    /// `Σ dout · out` of each head.
    pub delta: Vec<A>,
    /// Like q.
    pub dq: Vec<A>,
    /// Like k.
    pub dk: Vec<A>,
    /// Like v.
    pub dv: Vec<A>,
}

/// With `p = exp(scale·q·k − lse)` and `ds = p·(dout·v − delta)`: `dq = scale·Σ_j ds·k`, `dk = scale·Σ_t ds·q`,
/// `dv = Σ_t p·dout` (Dao et al. 2022). dq goes over the keys of a query; dk, dv over the queries of a key.
pub fn attention_bwd<A: Real>(mem: &CpuMemory, op: &AttentionBwd, live: usize) -> AttentionGrads<A> {
    let Attention { heads, kv_heads, .. } = op.forward;
    let matrices = [op.forward.q, op.forward.k, op.forward.v, op.forward.out, op.forward.lse, op.dout];
    let [q, k, v, out, lse, dout] = matrices.map(|view| mem.load::<A>(&view, live));
    let [lo, hi, qlo, qhi] = [op.forward.lo, op.forward.hi, op.qlo, op.qhi].map(|view| mem.slice::<i32>(&view, live));
    let (d, shared_by, scale) = (q.cols / heads, heads / kv_heads, A::of(op.forward.scale));
    let delta: Vec<A> = (0..q.rows * heads)
        .map(|i| dot(head(&out, i / heads, i % heads, d), head(&dout, i / heads, i % heads, d)))
        .collect();
    // p and ds of query t, key j, query head h.
    let pair = |t: usize, j: usize, h: usize| {
        let score = scale * dot(head(&q, t, h, d), head(&k, j, h / shared_by, d));
        let p = (score - lse.row(t)[h]).exp();
        (p, p * (dot(head(&dout, t, h, d), head(&v, j, h / shared_by, d)) - delta[t * heads + h]))
    };
    let mut dq = vec![A::zero(); q.rows * q.cols];
    dq.par_chunks_mut(q.cols).enumerate().for_each(|(t, dq)| {
        for h in 0..heads {
            for j in lo[t]..hi[t] {
                let (_, ds) = pair(t, j as usize, h);
                add_scaled(&mut dq[h * d..(h + 1) * d], scale * ds, head(&k, j as usize, h / shared_by, d));
            }
        }
    });
    let width = k.cols;
    let mut dk = vec![A::zero(); k.rows * width];
    let mut dv = vec![A::zero(); k.rows * width];
    dk.par_chunks_mut(width).zip(dv.par_chunks_mut(width)).enumerate().for_each(|(j, (dk, dv))| {
        for h in 0..heads {
            let at = h / shared_by * d..(h / shared_by + 1) * d;
            for t in qlo[j]..qhi[j] {
                let (p, ds) = pair(t as usize, j, h);
                add_scaled(&mut dk[at.clone()], scale * ds, head(&q, t as usize, h, d));
                add_scaled(&mut dv[at.clone()], p, head(&dout, t as usize, h, d));
            }
        }
    });
    AttentionGrads { delta, dq, dk, dv }
}

/// `y += a·x`.
fn add_scaled<A: Real>(y: &mut [A], a: A, x: &[A]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * x);
}
