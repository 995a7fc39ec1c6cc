//! Softmax attention with grouped key/value heads. Which keys a token sees is data: `lo[t] .. hi[t]`; causality, packed
//! documents, Mistral's window and a cache are all values of these arrays.

use super::memory::Mat;
use super::real::{Real, dot};
use rayon::prelude::*;

/// The shape of the heads.
#[derive(Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; query head h uses `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Factor on the scores.
    pub scale: f64,
}

impl Heads {
    fn kv(self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }
}

/// Head `h` of row `t`.
fn head<'a, A: Real>(m: &'a Mat<A>, t: usize, h: usize, d: usize) -> &'a [A] {
    &m.row(t)[h * d..(h + 1) * d]
}

/// q `[T, heads·d]`, k and v `[Tk, kv_heads·d]`; returns out `[T, heads·d]` and lse `[T, heads]`.
/// A token that sees nothing gets zeros, and an lse of −∞.
pub fn attention<A: Real>(
    q: &Mat<A>,
    k: &Mat<A>,
    v: &Mat<A>,
    lo: &[i32],
    hi: &[i32],
    shape: Heads,
) -> (Vec<A>, Vec<A>) {
    let d = q.cols / shape.heads;
    let scale = A::of(shape.scale);
    let mut out = vec![A::zero(); q.rows * q.cols];
    let mut lse = vec![A::zero(); q.rows * shape.heads];
    out.par_chunks_mut(q.cols).zip(lse.par_chunks_mut(shape.heads)).enumerate().for_each(|(t, (out, lse))| {
        let keys = lo[t] as usize..hi[t].max(lo[t]) as usize;
        for h in 0..shape.heads {
            let qh = head(q, t, h, d);
            let mut p: Vec<A> = keys.clone().map(|j| scale * dot(qh, head(k, j, shape.kv(h), d))).collect();
            let top = p.iter().copied().fold(A::neg_infinity(), A::max);
            p.iter_mut().for_each(|s| *s = (*s - top).exp());
            let sum: A = p.iter().copied().sum();
            lse[h] = top + sum.ln();
            let out = &mut out[h * d..(h + 1) * d];
            for (p, j) in p.into_iter().zip(keys.clone()) {
                add_scaled(out, p / sum, head(v, j, shape.kv(h), d));
            }
        }
    });
    (out, lse)
}

/// Gradients of attention: delta `[T, heads]`, dq, dk, dv.
pub struct Grads<A> {
    /// `Σ dout · out` of each head.
    pub delta: Vec<A>,
    /// Like q.
    pub dq: Vec<A>,
    /// Like k.
    pub dk: Vec<A>,
    /// Like v.
    pub dv: Vec<A>,
}

/// What the forward left, and the gradient that comes in.
pub struct Saved<'a, A: Real> {
    /// Queries.
    pub q: &'a Mat<'a, A>,
    /// Keys.
    pub k: &'a Mat<'a, A>,
    /// Values.
    pub v: &'a Mat<'a, A>,
    /// Output of the forward.
    pub out: &'a Mat<'a, A>,
    /// Log-sum-exp of the forward.
    pub lse: &'a Mat<'a, A>,
    /// Gradient of the output.
    pub dout: &'a Mat<'a, A>,
}

/// With `p = exp(scale·q·k − lse)` and `ds = p·(dout·v − delta)`: `dq = scale·Σ_j ds·k`, `dk = scale·Σ_t ds·q`,
/// `dv = Σ_t p·dout` (Dao et al. 2022). dq goes over the keys of a query; dk, dv over the queries of a key.
pub fn attention_bwd<A: Real>(
    s: &Saved<A>,
    keys: (&[i32], &[i32]),
    queries: (&[i32], &[i32]),
    shape: Heads,
) -> Grads<A> {
    let d = s.q.cols / shape.heads;
    let scale = A::of(shape.scale);
    let heads = shape.heads;
    let delta: Vec<A> = (0..s.q.rows * heads)
        .map(|i| dot(head(s.out, i / heads, i % heads, d), head(s.dout, i / heads, i % heads, d)))
        .collect();
    // p and ds of query t, key j, query head h.
    let pair = |t: usize, j: usize, h: usize| {
        let score = scale * dot(head(s.q, t, h, d), head(s.k, j, shape.kv(h), d));
        let p = (score - s.lse.row(t)[h]).exp();
        (p, p * (dot(head(s.dout, t, h, d), head(s.v, j, shape.kv(h), d)) - delta[t * heads + h]))
    };
    let mut dq = vec![A::zero(); s.q.rows * s.q.cols];
    dq.par_chunks_mut(s.q.cols).enumerate().for_each(|(t, dq)| {
        for h in 0..heads {
            for j in keys.0[t]..keys.1[t] {
                let (_, ds) = pair(t, j as usize, h);
                add_scaled(&mut dq[h * d..(h + 1) * d], scale * ds, head(s.k, j as usize, shape.kv(h), d));
            }
        }
    });
    let width = s.k.cols;
    let mut dk = vec![A::zero(); s.k.rows * width];
    let mut dv = vec![A::zero(); s.k.rows * width];
    dk.par_chunks_mut(width).zip(dv.par_chunks_mut(width)).enumerate().for_each(|(j, (dk, dv))| {
        for h in 0..heads {
            let at = shape.kv(h) * d..(shape.kv(h) + 1) * d;
            for t in queries.0[j]..queries.1[j] {
                let (p, ds) = pair(t as usize, j, h);
                add_scaled(&mut dk[at.clone()], scale * ds, head(s.q, t as usize, h, d));
                add_scaled(&mut dv[at.clone()], p, head(s.dout, t as usize, h, d));
            }
        }
    });
    Grads { delta, dq, dk, dv }
}

/// `y += a·x`.
fn add_scaled<A: Real>(y: &mut [A], a: A, x: &[A]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * x);
}
