//! Launches of `kernels/attention.cu`: compiled for four head sizes.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// The kernels of one head size.
struct Kernels {
    forward: &'static str,
    delta: &'static str,
    keys: &'static str,
    queries: &'static str,
    /// Shared memory of the kernels that keep two tiles of keys and values, and of the one that keeps one.
    shared: [usize; 2],
}

macro_rules! kernels {
    ($d:literal, $shared:expr) => {
        Kernels {
            forward: concat!("attention_", $d),
            delta: concat!("attention_delta_", $d),
            keys: concat!("attention_dkdv_", $d),
            queries: concat!("attention_dq_", $d),
            shared: $shared,
        }
    };
}

fn kernels(l: &Launcher, q: &View, heads: usize) -> Result<Kernels> {
    match q.cols / heads {
        32 => Ok(kernels!("32", [25600, 16384])),
        64 => Ok(kernels!("64", [50176, 32768])),
        96 => Ok(kernels!("96", [99328, 65536])),
        128 => Ok(kernels!("128", [99328, 65536])),
        d => Err(l
            .refused(q, &format!("has heads of size {d}; the GPU takes 32, 64, 96 and 128"))
            .hint("models of this shape run on the CPU: `--device cpu`")),
    }
}

/// Queries, keys and values of an op, and who sees whom.
pub struct Inputs<'a> {
    /// `[T, heads·d]`
    pub q: &'a View,
    /// `[Tk, kv_heads·d]`
    pub k: &'a View,
    /// `[Tk, kv_heads·d]`
    pub v: &'a View,
    /// First key row of each query.
    pub lo: &'a View,
    /// One past its last.
    pub hi: &'a View,
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Factor of the scores.
    pub scale: f64,
}

/// A block for each head and 128 queries.
pub fn attention(l: &mut Launcher, inputs: &Inputs, out: &View, lse: &View) -> Result<()> {
    let Inputs { q, k, v, lo, hi, heads, kv_heads, scale } = *inputs;
    let kernels = kernels(l, q, heads)?;
    let rows = l.rows(q);
    let grid = Grid { blocks: [heads, l.grid_rows(q).div_ceil(128), 1], threads: 128, shared: kernels.shared[0] };
    let (q, k, v, out) = (l.packs(q)?, l.packs(k)?, l.packs(v)?, l.packs(out)?);
    let (lse, lo, hi) = (l.of(lse, DType::F32)?, l.flat(lo, DType::I32)?, l.flat(hi, DType::I32)?);
    let (heads, kv_heads, scale) = (heads as i32, kv_heads as i32, scale as f32);
    l.launch(
        Family::Attention,
        kernels.forward,
        grid,
        &[&out, &lse, &q, &k, &v, &lo, &hi, &rows, &heads, &kv_heads, &scale],
    )
}

/// What the backward pass takes beside the inputs.
pub struct Backward<'a> {
    /// First query row of each key.
    pub qlo: &'a View,
    /// One past its last.
    pub qhi: &'a View,
    /// Output of the forward pass.
    pub out: &'a View,
    /// Its log-sums.
    pub lse: &'a View,
    /// Gradient of the output.
    pub dout: &'a View,
    /// Receives `Σ dout·out`.
    pub delta: &'a View,
    /// Receives the gradient of the queries.
    pub dq: &'a View,
    /// Receives the gradient of the keys.
    pub dk: &'a View,
    /// Receives the gradient of the values.
    pub dv: &'a View,
}

/// `Σ dout·out`, then the gradients of keys and values (a block for each key head and 64 keys), then those of queries (a
/// block for each head and 64 queries).
pub fn attention_bwd(l: &mut Launcher, inputs: &Inputs, backward: &Backward) -> Result<()> {
    let Inputs { q, k, v, lo, hi, heads, kv_heads, scale } = *inputs;
    let kernels = kernels(l, q, heads)?;
    let (rows, keys) = (l.rows(q), l.rows(k));
    let (row_count, key_count) = (l.grid_rows(q), l.grid_rows(k));
    let (q, k, v) = (l.packs(q)?, l.packs(k)?, l.packs(v)?);
    let (out, dout) = (l.packs(backward.out)?, l.packs(backward.dout)?);
    let (lse, delta) = (l.of(backward.lse, DType::F32)?, l.of(backward.delta, DType::F32)?);
    let (dq, dk, dv) = (l.packs(backward.dq)?, l.packs(backward.dk)?, l.packs(backward.dv)?);
    let (lo, hi) = (l.flat(lo, DType::I32)?, l.flat(hi, DType::I32)?);
    let (qlo, qhi) = (l.flat(backward.qlo, DType::I32)?, l.flat(backward.qhi, DType::I32)?);
    let (h, kv, scale) = (heads as i32, kv_heads as i32, scale as f32);
    let grid = Grid::blocks((row_count * heads).div_ceil(8), 128);
    l.launch(Family::Attention, kernels.delta, grid, &[&delta, &out, &dout, &rows, &h])?;
    let grid = Grid { blocks: [kv_heads, key_count.div_ceil(64), 1], threads: 128, shared: kernels.shared[0] };
    l.launch(
        Family::Attention,
        kernels.keys,
        grid,
        &[&dk, &dv, &q, &k, &v, &dout, &lse, &delta, &qlo, &qhi, &keys, &h, &kv, &scale],
    )?;
    let grid = Grid { blocks: [heads, row_count.div_ceil(64), 1], threads: 128, shared: kernels.shared[1] };
    l.launch(
        Family::Attention,
        kernels.queries,
        grid,
        &[&dq, &q, &k, &v, &dout, &lse, &delta, &lo, &hi, &rows, &h, &kv, &scale],
    )
}
