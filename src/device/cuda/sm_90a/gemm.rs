//! Launches of `kernels/sm_90a/gemm.cu`: which of its tiles serves a product. All of them give the same bits.

use crate::device::cuda::gemm::{offsets, term};
use crate::device::cuda::gpu::Arch;
use crate::device::cuda::launch::{Grid, Launcher, Mat, PACK};
use crate::device::cuda::modules::Family;
use crate::device::cuda::tensor_map::{BoxedTensor, TensorMap};
use crate::error::Result;
use crate::op::{Form, Gemm};

/// Whether these kernels serve an nt or nn product of n columns and k terms. The choice must not depend on the number of rows,
/// because the sm_80 kernels round differently.
pub fn serves(arch: Arch, n: usize, k: usize) -> bool {
    arch == Arch::Sm90a && n > 64 && k > 64
}

/// The nt and nn kernels of one tile. A cluster's blocks work on tiles that are adjacent in m.
struct WgmmaTile {
    kernels: [&'static str; 2],
    bn: usize,
    cluster: usize,
    shared: usize,
}

/// Rows of a tile.
const BM: usize = 128;
const THREADS: usize = 384;
/// Width of a box: 128 bytes, in elements.
const BOX: usize = 64;

const WIDE_PAIR: WgmmaTile = tile(["gemm_nt_256x2", "gemm_nn_256x2"], 256, 2, 4);
const WIDE: WgmmaTile = tile(["gemm_nt_256", "gemm_nn_256"], 256, 1, 4);
const MIDDLE: WgmmaTile = tile(["gemm_nt_192", "gemm_nn_192"], 192, 1, 4);
const SLIM: WgmmaTile = tile(["gemm_nt_128", "gemm_nn_128"], 128, 1, 6);

const fn tile(kernels: [&'static str; 2], bn: usize, cluster: usize, stages: usize) -> WgmmaTile {
    // `Ring::BYTES` of the kernel: alignment, the stages with two barriers each, and four boxes of results.
    let shared = 1024 + stages * ((BM + bn) * BOX * 2 + 16) + 4 * BOX * BOX * 2;
    WgmmaTile { kernels, bn, cluster, shared }
}

/// From this many rows on, it is faster to share b in a cluster.
const MANY_ROWS: usize = 1024;

/// Fixed cost of a tile, expressed in columns: the pipeline has to fill, and the results have to be stored.
const PER_TILE: usize = 21;

impl WgmmaTile {
    /// The tile for which the busiest multiprocessor has the least work.
    fn of(m: usize, n: usize, grouped: bool, multiprocessors: usize) -> WgmmaTile {
        // A cluster's tiles must lie in one group.
        let wide = if m >= MANY_ROWS && !grouped { WIDE_PAIR } else { WIDE };
        let cost = |t: &WgmmaTile| (m.div_ceil(BM) * n.div_ceil(t.bn)).div_ceil(multiprocessors) * (t.bn + PER_TILE);
        [MIDDLE, SLIM].into_iter().fold(wide, |best, t| if cost(&t) < cost(&best) { t } else { best })
    }
}

/// `out = plus + scale · product(a, b)`, forms nt and nn.
pub fn gemm(l: &mut Launcher, op: &Gemm) -> Result<()> {
    let (rows, m, n, k) = (l.rows(&op.a), l.grid_rows(&op.a), op.out.cols, op.a.cols);
    let (out, plus, offsets) = (l.f32_or_elem(&op.out)?, l.f32_or_elem_or_none(&op.plus)?, offsets(l, op)?);
    let (a, b) = (l.packs(&op.a)?, if op.form == Form::Nt { l.packs(&op.b)? } else { l.aligned(&op.b)? });
    let (term_a, term_b, ranks) = term(l, op)?;
    let (groups, grouped, elem) = (op.slabs(), op.groups.is_some(), l.modules.elem());
    let tile = WgmmaTile::of(m, n, grouped, l.multiprocessors);
    // A group may start at any row, so each can add one partial tile.
    let row_tiles = if m == 0 { 0 } else { m.div_ceil(BM) + if grouped { groups } else { 0 } };
    let units = row_tiles.div_ceil(tile.cluster) * n.div_ceil(tile.bn);
    let blocks = units.min(l.multiprocessors / tile.cluster) * tile.cluster;

    // Maps cover the capacity. A box of b has half the columns of a tile in nt, and 64 rows of k in nn.
    let capacity = op.a.rows.count(l.program.tokens);
    let matrix = |at, dims, ld, rows| BoxedTensor { at, dims, strides: [1, ld], box_dims: [BOX, rows] };
    let (kernel, box_rows) = match op.form {
        Form::Nt => (tile.kernels[0], tile.bn / 2),
        _ => (tile.kernels[1], BOX),
    };
    let mut factors = |a: Mat, b: Mat, k: usize| -> Result<[TensorMap; 2]> {
        let [inner, outer] = if op.form == Form::Nt { [k, n] } else { [n, k] };
        let strides = [1, b.ld as usize, b.ld as usize * outer];
        let stack = BoxedTensor { at: b.at, dims: [inner, outer, groups], strides, box_dims: [BOX, box_rows, 1] };
        let a = matrix(a.at, [k, capacity], a.ld as usize, BM);
        Ok([l.maps.matrix(elem, a)?, l.maps.stack(elem, stack)?])
    };
    let [map_a, map_b] = factors(a, b, k)?;
    let [term_a, term_b] = match ranks {
        0 => [TensorMap::NONE; 2],
        _ => factors(term_a, term_b, ranks as usize)?,
    };
    // The copy engine stores 16-bit results whose rows start at multiples of 16 bytes. Other results are stored by the threads.
    let ldo = out.ld as usize;
    let boxes = out.wide == 0 && plus.at == 0 && out.at.is_multiple_of(16) && ldo.is_multiple_of(PACK);
    let map_out = match boxes {
        true => l.maps.matrix(elem, matrix(out.at, [n, capacity], ldo, BOX))?,
        false => TensorMap::NONE,
    };

    let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS, shared: tile.shared };
    let (boxes, n, k, groups, scale) = (i32::from(boxes), n as i32, k as i32, groups as i32, op.scale as f32);
    l.launch_of(
        Arch::Sm90a,
        Family::Gemm,
        kernel,
        grid,
        &[
            &map_a, &map_b, &term_a, &term_b, &map_out, &boxes, &out, &plus, &rows, &n, &k, &ranks, &scale, &offsets,
            &groups,
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_that_were_fastest_on_an_h200() {
        // (rows, columns, width): measured with 132 multiprocessors.
        for (m, n, bn) in [
            (8192, 6144, 256),
            (8192, 28672, 256),
            (8192, 14336, 256),
            (2048, 6144, 256),
            (2048, 4096, 256),
            (512, 6144, 192),
            (512, 4096, 128),
            (512, 28672, 128),
        ] {
            assert_eq!(WgmmaTile::of(m, n, false, 132).bn, bn, "{m} rows, {n} columns");
        }
        let clusters = [(8192, false), (512, false), (8192, true)]
            .map(|(m, grouped)| WgmmaTile::of(m, 6144, grouped, 132).cluster);
        assert_eq!(clusters, [2, 1, 1]);
    }

    #[test]
    fn shared_memory_is_what_the_kernel_lays_out() {
        assert_eq!([&WIDE, &MIDDLE, &SLIM].map(|s| s.shared), [230_464, 197_696, 230_496]);
    }
}
