//! Launches of `kernels/attention.cu`: compiled for five head sizes.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use super::sm_90a;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Attention, AttentionBwd};

/// Threads of a block (`THREADS` in the kernel).
const THREADS: usize = 128;
/// Queries of a forward block (`QUERIES` in the kernel).
const QUERIES: usize = 128;
/// Keys of a tile, and queries of one in the backward kernels (`TILE` in the kernel).
const TILE: usize = 64;
/// Rows of a block of `attention_delta`: each half of a warp sums one head of one row.
const DELTA_ROWS: usize = 2 * THREADS / 32;
/// Bytes of the statistics behind the tiles: a range of each query (forward), or two rings of log-sums and deltas (keys).
const STATISTICS: usize = 1024;

/// The kernels of one head size.
struct Kernels {
    forward: &'static str,
    delta: &'static str,
    keys: &'static str,
    queries: &'static str,
    head_dim: usize,
}

macro_rules! kernels {
    ($d:literal) => {
        Kernels {
            forward: concat!("attention_", $d),
            delta: concat!("attention_delta_", $d),
            keys: concat!("attention_dkdv_", $d),
            queries: concat!("attention_dq_", $d),
            head_dim: $d,
        }
    };
}

impl Kernels {
    /// Bytes of a tile in shared memory. Rows are as wide as the next power of two (`PITCH` in the kernel).
    const fn tile(&self) -> usize {
        TILE * self.head_dim.next_power_of_two() * 2
    }
    /// Dynamic shared memory of the forward kernel and of `attention_dkdv`: six tiles, and statistics.
    const fn shared(&self) -> usize {
        6 * self.tile() + STATISTICS
    }
    /// Dynamic shared memory of `attention_dq`: two tiles of keys and two of values.
    const fn shared_queries(&self) -> usize {
        4 * self.tile()
    }
}

fn kernels(l: &Launcher, op: &Attention) -> Result<Kernels> {
    match op.q.cols / op.heads {
        16 => Ok(kernels!(16)),
        32 => Ok(kernels!(32)),
        64 => Ok(kernels!(64)),
        96 => Ok(kernels!(96)),
        128 => Ok(kernels!(128)),
        d => Err(l
            .refused(&op.q, &format!("has heads of size {d}; the GPU takes 16, 32, 64, 96 and 128"))
            .hint("models of this shape run on the CPU: `--device cpu`")),
    }
}

/// A block for each head and 128 queries.
pub fn attention(l: &mut Launcher, op: &Attention) -> Result<()> {
    if let Some(kernels) = sm_90a::attention::kernels(l.arch, op.q.cols / op.heads) {
        return sm_90a::attention::attention(l, op, &kernels);
    }
    let kernels = kernels(l, op)?;
    let rows = l.rows(&op.q);
    let blocks = [op.heads, l.grid_rows(&op.q).div_ceil(QUERIES), 1];
    let grid = Grid { blocks, threads: THREADS, shared: kernels.shared() };
    let (q, k, v, out) = (l.packs(&op.q)?, l.packs(&op.k)?, l.packs(&op.v)?, l.packs(&op.out)?);
    let (lse, lo, hi) = (l.of(&op.lse, DType::F32)?, l.flat(&op.lo, DType::I32)?, l.flat(&op.hi, DType::I32)?);
    let (heads, kv_heads, scale) = (op.heads as i32, op.kv_heads as i32, op.scale as f32);
    l.launch(
        Family::Attention,
        kernels.forward,
        grid,
        &[&out, &lse, &q, &k, &v, &lo, &hi, &rows, &heads, &kv_heads, &scale],
    )
}

/// `Σ dout·out`, then the gradients of keys and values (a block for each key head and 64 keys), then those of queries (a
/// block for each head and 64 queries).
pub fn attention_bwd(l: &mut Launcher, op: &AttentionBwd) -> Result<()> {
    let Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale } = op.forward;
    let kernels = kernels(l, &op.forward)?;
    let on_hopper = sm_90a::attention::kernels(l.arch, kernels.head_dim);
    let (rows, keys) = (l.rows(&q), l.rows(&k));
    let (row_count, key_count) = (l.grid_rows(&q), l.grid_rows(&k));
    let (q, k, v) = (l.packs(&q)?, l.packs(&k)?, l.packs(&v)?);
    let (out, dout) = (l.packs(&out)?, l.packs(&op.dout)?);
    let (lse, delta) = (l.of(&lse, DType::F32)?, l.of(&op.delta, DType::F32)?);
    let (dq, dk, dv) = (l.packs(&op.dq)?, l.packs(&op.dk)?, l.packs(&op.dv)?);
    let (lo, hi) = (l.flat(&lo, DType::I32)?, l.flat(&hi, DType::I32)?);
    let (qlo, qhi) = (l.flat(&op.qlo, DType::I32)?, l.flat(&op.qhi, DType::I32)?);
    let (h, kv, scale) = (heads as i32, kv_heads as i32, scale as f32);
    let grid = Grid::blocks((row_count * heads).div_ceil(DELTA_ROWS), THREADS);
    l.launch(Family::Attention, kernels.delta, grid, &[&delta, &out, &dout, &rows, &h])?;
    if let Some(kernels) = on_hopper {
        return sm_90a::attention::gradients(l, op, &kernels);
    }
    let grid = Grid { blocks: [kv_heads, key_count.div_ceil(TILE), 1], threads: THREADS, shared: kernels.shared() };
    l.launch(
        Family::Attention,
        kernels.keys,
        grid,
        &[&dk, &dv, &q, &k, &v, &dout, &lse, &delta, &qlo, &qhi, &keys, &h, &kv, &scale],
    )?;
    let grid =
        Grid { blocks: [heads, row_count.div_ceil(TILE), 1], threads: THREADS, shared: kernels.shared_queries() };
    l.launch(
        Family::Attention,
        kernels.queries,
        grid,
        &[&dq, &q, &k, &v, &dout, &lse, &delta, &lo, &hi, &rows, &h, &kv, &scale],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::launch::seam::constant;

    const SOURCE: &str = include_str!("../../../kernels/attention.cu");

    /// Sizes of blocks and tiles are the kernel file's, and bytes of shared memory those of its header.
    #[test]
    fn sizes_are_those_of_the_kernel_file() {
        for (name, size) in [("THREADS", THREADS), ("QUERIES", QUERIES), ("TILE", TILE)] {
            assert_eq!(constant(SOURCE, name), size, "{name}");
        }
        assert!(SOURCE.contains("PITCH = D == 96 ? 128 : D;"), "rows of a tile have another width");
        let all = [kernels!(16), kernels!(32), kernels!(64), kernels!(96), kernels!(128)];
        for (kernel, bytes) in [
            ("attention_D", all.each_ref().map(Kernels::shared)),
            ("attention_dkdv_D", all.each_ref().map(Kernels::shared)),
            ("attention_dq_D", all.each_ref().map(Kernels::shared_queries)),
        ] {
            let row = SOURCE.lines().find(|line| line.contains(&format!(" {kernel} "))).expect(kernel);
            let want = format!(" {THREADS}  {}", bytes.map(|b| b.to_string()).join(", "));
            assert!(row.ends_with(&want), "{row}\nhas not {want}");
        }
    }
}
