//! Launch of `kernels/gemv.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use super::nf4::{Scales, block_bits};
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{GEMV_ROWS, GEMV_STEP, Nested, View};
use crate::quant::QuantKind;

/// Columns of the result that a block makes, and its threads (`ROWS`, `WARPS` in the kernel).
const COLUMNS: usize = 16;
const THREADS: usize = 256;

/// `out = x · Wᵀ` with W in 4 bits.
pub fn gemv(
    l: &mut Launcher,
    kind: QuantKind,
    block: usize,
    x: &View,
    codes: &View,
    absmax: &View,
    nested: &Option<Nested>,
    out: &View,
) -> Result<()> {
    let most = x.rows.count(l.program.tokens);
    if most > GEMV_ROWS || !x.cols.is_multiple_of(GEMV_STEP) {
        let why = format!("is {most} x {}; at most {GEMV_ROWS} rows of a multiple of {GEMV_STEP} are taken", x.cols);
        return Err(l.refused(x, &why));
    }
    let block_bits = block_bits(l, codes, block, GEMV_STEP)?;
    let grid = Grid::blocks(out.cols.div_ceil(COLUMNS), THREADS);
    let (rows, n, k, fp4) = (l.rows(x), out.cols as i32, x.cols as i32, i32::from(kind == QuantKind::Fp4));
    let (x, out) = (l.packs(x)?, l.either(out)?);
    let (flat, s) = (l.flat(codes, DType::U8)?, Scales::new(l, absmax, nested)?);
    if !flat.is_multiple_of(16) {
        return Err(l.refused(codes, "must begin at a multiple of 16 bytes"));
    }
    l.launch(
        Family::Gemv,
        "gemv",
        grid,
        &[&rows, &n, &k, &block_bits, &fp4, &flat, &s.absmax, &s.absmax8, &s.nested, &s.offset, &x, &out],
    )
}
