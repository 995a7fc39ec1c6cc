//! Launches of `kernels/gemm.cu`: which of its tile shapes serves a product. All of them give the same bits.

use super::launch::{Argument, Grid, Launcher, Mat};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Form, Groups, View};

/// A tile shape of the kernel file: rows and columns of a tile, threads, shared memory.
struct Shape {
    kernels: [&'static str; 3],
    kernels_f32: [&'static str; 3],
    rows: usize,
    cols: usize,
    threads: usize,
    shared: usize,
}

/// Names of one shape's kernels in the order nt, nn, tn.
macro_rules! shape {
    ($name:literal, $rows:literal, $cols:literal, $threads:literal, $shared:literal) => {
        Shape {
            kernels: [
                concat!("gemm_nt_", $name, "_elem"),
                concat!("gemm_nn_", $name, "_elem"),
                concat!("gemm_tn_", $name, "_elem"),
            ],
            kernels_f32: [
                concat!("gemm_nt_", $name, "_f32"),
                concat!("gemm_nn_", $name, "_f32"),
                concat!("gemm_tn_", $name, "_f32"),
            ],
            rows: $rows,
            cols: $cols,
            threads: $threads,
            shared: $shared,
        }
    };
}

const LARGE: Shape = shape!("large", 128, 256, 256, 98304);
const SMALL: Shape = shape!("small", 64, 64, 128, 65536);
const NARROW: Shape = shape!("narrow", 64, 16, 128, 61440);
const SHALLOW: Shape = shape!("shallow", 64, 128, 128, 24576);
const FLAT: Shape = shape!("flat", 16, 128, 128, 55296);
const TALL: Shape = shape!("tall", 128, 16, 128, 55296);

/// Fewer tiles of the large shape than this leave much of a GPU idle.
const FEW_TILES: usize = 64;

impl Shape {
    fn name(&self, form: Form, wide: bool) -> &'static str {
        let names = if wide { &self.kernels_f32 } else { &self.kernels };
        match form {
            Form::Nt => names[0],
            Form::Nn => names[1],
            Form::Tn => names[2],
        }
    }
    fn tiles(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.cols)
    }

    /// For `out[m,n]` of nt and nn.
    fn by_rows(m: usize, n: usize, k: usize) -> Shape {
        match () {
            () if n <= 16 => NARROW,
            () if k <= 64 => SHALLOW,
            () if n <= 64 || LARGE.tiles(m, n) < FEW_TILES => SMALL,
            () => LARGE,
        }
    }
    /// For `out[m,n]` of tn.
    fn over_rows(m: usize, n: usize) -> Shape {
        match () {
            () if m <= 16 => FLAT,
            () if n <= 16 => TALL,
            () if m <= 64 || n <= 64 || LARGE.tiles(m, n) < FEW_TILES => SMALL,
            () => LARGE,
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
    let wide = l.dtype(out) == DType::F32;
    let (rows, live_rows, scale) = (l.rows(a), l.grid_rows(a), scale as f32);
    let (count, offsets) = match groups {
        None => (1, 0),
        Some(g) => (g.count, l.flat(&g.offsets, DType::I32)?),
    };
    let n = out.cols;
    let m = if form == Form::Tn { l.grid_rows(out) / count } else { live_rows };
    let k = a.cols;
    if l.dtype(out) != DType::F32 && l.dtype(out) != l.modules.elem() {
        return Err(l.refused(out, &format!("must be float32 or {}", l.modules.elem().torch_name())));
    }
    let to = l.of(out, l.dtype(out))?;
    let plus = plus.as_ref().map_or(Ok(Mat::NONE), |p| l.of(p, l.dtype(out)))?;
    // Sums run along packs in nt and nn, over rows in tn.
    let (a, b) = match form {
        Form::Nt => (l.packs(a)?, l.packs(b)?),
        Form::Nn => (l.packs(a)?, l.aligned(b)?),
        Form::Tn => (l.aligned(a)?, l.aligned(b)?),
    };
    let (n_arg, count_arg) = (n as i32, count as i32);
    if form != Form::Tn {
        let shape = Shape::by_rows(m, n, k);
        let tiles = (m.div_ceil(shape.rows) + groups.map_or(0, |g| g.count)) * n.div_ceil(shape.cols);
        let tiles = if m == 0 { 0 } else { tiles };
        let grid = Grid { blocks: [tiles, 1, 1], threads: shape.threads, shared: shape.shared };
        let k = k as i32;
        return l.launch(
            Family::Gemm,
            shape.name(form, wide),
            grid,
            &[&to, &plus, &a, &b, &rows, &n_arg, &k, &scale, &offsets, &count_arg],
        );
    }
    let (shape, chunk, m_arg) = (Shape::over_rows(m, n), chunk(m, n), m as i32);
    let grid = |y: usize| Grid { blocks: [shape.tiles(m, n), y, 1], threads: shape.threads, shared: shape.shared };
    let chunk_arg = chunk as i32;
    if chunk == 0 {
        let args: [&dyn Argument; 11] =
            [&to, &plus, &a, &b, &rows, &m_arg, &n_arg, &scale, &offsets, &count_arg, &chunk_arg];
        return l.launch(Family::Gemm, shape.name(form, wide), grid(count), &args);
    }
    let parts = slots(live_rows, chunk, count);
    let partials = l.memory.partials(parts * m * n * 4)?;
    let (slot, none, one) = (Mat { at: partials, ld: n as i64 }, Mat::NONE, 1f32);
    l.launch(
        Family::Gemm,
        shape.name(form, true),
        grid(parts),
        &[&slot, &none, &a, &b, &rows, &m_arg, &n_arg, &one, &offsets, &count_arg, &chunk_arg],
    )?;
    let sum = Grid { blocks: [(m * n).div_ceil(256), count, 1], threads: 256, shared: 0 };
    l.launch(
        Family::Gemm,
        if wide { "gemm_tn_sum_f32" } else { "gemm_tn_sum_elem" },
        sum,
        &[&to, &plus, &partials, &rows, &m_arg, &n_arg, &scale, &offsets, &chunk_arg],
    )
}
