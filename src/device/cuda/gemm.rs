//! Launches of `kernels/gemm.cu`: which of its tile shapes serves a product. All of them give the same bits.

use super::launch::{Either, Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Form, Groups, View};

/// A tile shape of the kernel file: rows and columns of a tile, threads, shared memory.
struct Shape {
    /// nt, nn, tn; empty where the file has none.
    kernels: [&'static str; 3],
    rows: usize,
    cols: usize,
    threads: usize,
    shared: usize,
}

const LARGE: Shape = shape(["gemm_nt_large", "gemm_nn_large", ""], 128, 256, 256, 147_456);
const MEDIUM: Shape = shape(["gemm_nt_medium", "gemm_nn_medium", "gemm_tn_medium"], 128, 128, 128, 98_304);
const SMALL: Shape = shape(["gemm_nt_small", "gemm_nn_small", "gemm_tn_small"], 64, 64, 128, 65_536);
const NARROW: Shape = shape(["gemm_nt_narrow", "gemm_nn_narrow", ""], 64, 16, 128, 61_440);
const SHALLOW: Shape = shape(["gemm_nt_shallow", "gemm_nn_shallow", ""], 64, 128, 128, 24_576);
const FLAT: Shape = shape(["", "", "gemm_tn_flat"], 16, 128, 128, 55_296);
const TALL: Shape = shape(["", "", "gemm_tn_tall"], 128, 16, 128, 55_296);

const fn shape(kernels: [&'static str; 3], rows: usize, cols: usize, threads: usize, shared: usize) -> Shape {
    Shape { kernels, rows, cols, threads, shared }
}

/// Fewer tiles than this leave much of a GPU idle: smaller ones are faster.
const FEW_TILES: usize = 100;

impl Shape {
    fn tiles(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.cols)
    }

    /// For `out[m,n]` of nt and nn, on a card with so much shared memory.
    fn by_rows(m: usize, n: usize, k: usize, shared_memory: usize) -> Shape {
        match () {
            () if n <= 16 => NARROW,
            () if k <= 64 => SHALLOW,
            () if n <= 64 || m <= 64 || MEDIUM.tiles(m, n) < FEW_TILES => SMALL,
            () if LARGE.shared <= shared_memory && LARGE.tiles(m, n) >= FEW_TILES => LARGE,
            () => MEDIUM,
        }
    }
    /// For `out[m,n]` of tn.
    fn over_rows(m: usize, n: usize) -> Shape {
        match () {
            () if m <= 16 => FLAT,
            () if n <= 16 => TALL,
            () if m <= 64 || n <= 64 || MEDIUM.tiles(m, n) < FEW_TILES => SMALL,
            () => MEDIUM,
        }
    }
}

/// Rows of one partial sum of tn, 0: no partial sums. Part of the result's bits, hence a function of the shape alone.
fn chunk(m: usize, n: usize) -> usize {
    match m * n {
        size if size <= 1 << 17 => 512,
        size if size <= 1 << 21 => 1024,
        _ => 0,
    }
}

/// Partial sums of tn over `rows` rows.
fn slots(rows: usize, chunk: usize, groups: usize) -> usize {
    rows.div_ceil(chunk) + groups - 1
}

/// Bytes of scratch memory that a tn product into `out` (one slab of each group) needs for `rows` rows.
pub fn scratch(rows: usize, out: &View, groups: usize) -> usize {
    let (m, n) = (out.rows.count(0) / groups, out.cols);
    match chunk(m, n) {
        0 => 0,
        chunk => slots(rows, chunk, groups) * m * n * 4,
    }
}

/// `out = plus + scale · product(a, b)`.
pub fn gemm(
    l: &mut Launcher,
    form: Form,
    a: &View,
    b: &View,
    scale: f64,
    plus: &Option<View>,
    out: &View,
    groups: &Option<Groups>,
) -> Result<()> {
    let (rows, live_rows, scale) = (l.rows(a), l.grid_rows(a), scale as f32);
    let (count, offsets) = match groups {
        None => (1, 0),
        Some(g) => (g.count, l.flat(&g.offsets, DType::I32)?),
    };
    let (n, k) = (out.cols, a.cols);
    let m = if form == Form::Tn { l.grid_rows(out) / count } else { live_rows };
    if let Some(plus) = plus.filter(|p| l.dtype(p) != l.dtype(out)) {
        return Err(l.refused(&plus, &format!("must be {} like the result", l.dtype(out).torch_name())));
    }
    let (to, plus) = (l.either(out)?, l.either_or_none(plus)?);
    // Sums run along packs in nt and nn, over rows in tn.
    let (a, b) = match form {
        Form::Nt => (l.packs(a)?, l.packs(b)?),
        Form::Nn => (l.packs(a)?, l.aligned(b)?),
        Form::Tn => (l.aligned(a)?, l.aligned(b)?),
    };
    let (n_arg, count_arg) = (n as i32, count as i32);
    if form != Form::Tn {
        let shape = Shape::by_rows(m, n, k, l.shared_memory);
        let kernel = if form == Form::Nt { shape.kernels[0] } else { shape.kernels[1] };
        let row_tiles = if m == 0 { 0 } else { m.div_ceil(shape.rows) + groups.map_or(0, |g| g.count) };
        let tiles = row_tiles * n.div_ceil(shape.cols);
        let grid = Grid { blocks: [tiles, 1, 1], threads: shape.threads, shared: shape.shared };
        let k = k as i32;
        return l.launch(
            Family::Gemm,
            kernel,
            grid,
            &[&to, &plus, &a, &b, &rows, &n_arg, &k, &scale, &offsets, &count_arg],
        );
    }
    let (shape, chunk, m_arg) = (Shape::over_rows(m, n), chunk(m, n), m as i32);
    let (kernel, chunk_arg) = (shape.kernels[2], chunk as i32);
    let grid = |y: usize| Grid { blocks: [shape.tiles(m, n), y, 1], threads: shape.threads, shared: shape.shared };
    if chunk == 0 {
        return l.launch(
            Family::Gemm,
            kernel,
            grid(count),
            &[&to, &plus, &a, &b, &rows, &m_arg, &n_arg, &scale, &offsets, &count_arg, &chunk_arg],
        );
    }
    let parts = slots(live_rows, chunk, count);
    let partials = l.memory.partials(parts * m * n * 4)?;
    let (slot, one) = (Either { at: partials, ld: n as i64, wide: 1 }, 1f32);
    l.launch(
        Family::Gemm,
        kernel,
        grid(parts),
        &[&slot, &Either::NONE, &a, &b, &rows, &m_arg, &n_arg, &one, &offsets, &count_arg, &chunk_arg],
    )?;
    let sum = Grid { blocks: [(m * n).div_ceil(256), count, 1], threads: 256, shared: 0 };
    l.launch(
        Family::Gemm,
        "gemm_tn_sum",
        sum,
        &[&to, &plus, &partials, &rows, &m_arg, &n_arg, &scale, &offsets, &chunk_arg],
    )
}
