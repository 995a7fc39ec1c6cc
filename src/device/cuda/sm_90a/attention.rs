//! Launches of `kernels/sm_90a/attention.cu`: heads of 64 and 128 elements.

use crate::device::cuda::gpu::Arch;
use crate::device::cuda::launch::{Argument, Grid, Launcher, Mat};
use crate::device::cuda::modules::Family;
use crate::device::cuda::tensor_map::{BoxedTensor, TensorMap};
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Attention, AttentionBwd, View};

/// The kernels of one head size, and their dynamic shared memory in bytes.
pub struct WgmmaKernels {
    forward: &'static str,
    backward: &'static str,
    shared: usize,
}

/// The kernels for heads of this size, if they serve it. The choice must not depend on the number of rows, because the sm_80
/// kernels round differently.
pub fn kernels(arch: Arch, head_dim: usize) -> Option<WgmmaKernels> {
    let (forward, backward) = match head_dim {
        _ if arch != Arch::Sm90a => return None,
        64 => ("attention_64", "attention_bwd_64"),
        128 => ("attention_128", "attention_bwd_128"),
        _ => return None,
    };
    // `Layout::BYTES` of the kernels: six tiles, and staging for the 16 rows of each of eight warps.
    Some(WgmmaKernels { forward, backward, shared: 6 * BLOCK * head_dim * 2 + 8 * 16 * head_dim * 2 })
}

/// Rows of a job (`BLOCK` in the kernel).
const BLOCK: usize = 128;
const THREADS: usize = 384;
/// Rows and columns of a box.
const BOX: usize = 64;

/// Persistent blocks: one per multiprocessor, or one per job if there are fewer jobs.
fn grid(l: &Launcher, jobs: usize, shared: usize) -> Grid {
    Grid { blocks: [jobs.min(l.multiprocessors), 1, 1], threads: THREADS, shared }
}

fn map(l: &mut Launcher, view: &View) -> Result<TensorMap> {
    let Mat { at, ld } = l.packs(view)?;
    let (elem, rows) = (l.modules.elem(), view.rows.count(l.program.tokens));
    l.maps.matrix(elem, BoxedTensor { at, dims: [view.cols, rows], strides: [1, ld as usize], box_dims: [BOX, BOX] })
}

/// Output and log-sums.
pub fn attention(l: &mut Launcher, op: &Attention, kernels: &WgmmaKernels) -> Result<()> {
    let rows = l.rows(&op.q);
    let grid = grid(l, l.grid_rows(&op.q).div_ceil(BLOCK) * op.heads, kernels.shared);
    let (q, k, v) = (map(l, &op.q)?, map(l, &op.k)?, map(l, &op.v)?);
    let (out, lse) = (l.packs(&op.out)?, l.of(&op.lse, DType::F32)?);
    let (lo, hi) = (l.flat(&op.lo, DType::I32)?, l.flat(&op.hi, DType::I32)?);
    let (heads, kv_heads, scale) = (op.heads as i32, op.kv_heads as i32, op.scale as f32);
    l.launch_of(
        Arch::Sm90a,
        Family::Attention,
        kernels.forward,
        grid,
        &[&out, &lse, &q, &k, &v, &lo, &hi, &rows, &heads, &kv_heads, &scale],
    )
}

/// Gradients of queries, keys and values, after the kernel that computes delta.
pub fn gradients(l: &mut Launcher, op: &AttentionBwd, kernels: &WgmmaKernels) -> Result<()> {
    let Attention { q, k, v, lo, hi, lse, heads, kv_heads, scale, .. } = op.forward;
    let jobs = l.grid_rows(&k).div_ceil(BLOCK) * kv_heads + l.grid_rows(&q).div_ceil(BLOCK) * heads;
    let grid = grid(l, jobs, kernels.shared);
    let (rows, keys) = (l.rows(&q), l.rows(&k));
    let (q, k, v, dout) = (map(l, &q)?, map(l, &k)?, map(l, &v)?, map(l, &op.dout)?);
    let (lse, delta) = (l.of(&lse, DType::F32)?, l.of(&op.delta, DType::F32)?);
    let (dq, dk, dv) = (l.packs(&op.dq)?, l.packs(&op.dk)?, l.packs(&op.dv)?);
    let (lo, hi) = (l.flat(&lo, DType::I32)?, l.flat(&hi, DType::I32)?);
    let (qlo, qhi) = (l.flat(&op.qlo, DType::I32)?, l.flat(&op.qhi, DType::I32)?);
    let (heads, kv_heads, scale) = (heads as i32, kv_heads as i32, scale as f32);
    #[rustfmt::skip]
    let args: [&dyn Argument; 18] = [
        &dq, &dk, &dv, &q, &k, &v, &dout, &lse, &delta, &lo, &hi, &qlo, &qhi, &rows, &keys, &heads, &kv_heads, &scale,
    ];
    l.launch_of(Arch::Sm90a, Family::Attention, kernels.backward, grid, &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_what_the_kernels_lay_out() {
        let shared = |arch| [64, 96, 128].map(|head_dim| kernels(arch, head_dim).map(|k| k.shared));
        assert_eq!(shared(Arch::Sm90a), [Some(114_688), None, Some(229_376)]);
        assert_eq!(shared(Arch::Sm80), [None; 3]);
    }
}
