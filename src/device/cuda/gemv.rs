//! Launch of `kernels/gemv.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use super::nf4::Weight;
use crate::error::Result;
use crate::op::{GEMV_ROWS, GEMV_STEP, View, Weight4};

/// Columns of the result that a block makes, and its threads (`ROWS`, `WARPS` in the kernel).
const COLUMNS: usize = 16;
const THREADS: usize = 256;

/// `out = x · Wᵀ` with W in 4 bits.
pub fn gemv(l: &mut Launcher, x: &View, weight: &Weight4, out: &View) -> Result<()> {
    let capacity = x.rows.count(l.program.tokens);
    if capacity > GEMV_ROWS || !x.cols.is_multiple_of(GEMV_STEP) {
        let cols = x.cols;
        let why = format!("is {capacity} x {cols}; the GPU takes up to {GEMV_ROWS} rows of a multiple of {GEMV_STEP}");
        return Err(l.refused(x, &why));
    }
    let grid = Grid::blocks(out.cols.div_ceil(COLUMNS), THREADS);
    let (rows, n, k) = (l.rows(x), out.cols as i32, x.cols as i32);
    let (x, w, out) = (l.packs(x)?, Weight::new(l, weight, GEMV_STEP)?, l.f32_or_elem(out)?);
    if !w.codes.is_multiple_of(16) {
        return Err(l.refused(&weight.codes, "must begin at a multiple of 16 bytes"));
    }
    l.launch(
        Family::Gemv,
        "gemv",
        grid,
        &[&rows, &n, &k, &w.block_bits, &w.fp4, &w.codes, &w.absmax, &w.absmax8, &w.nested, &w.offset, &x, &out],
    )
}
