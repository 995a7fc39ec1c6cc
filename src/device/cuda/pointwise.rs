//! Launches of `kernels/pointwise.cu`.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// `out = a + b`: one thread for each pack of 8.
pub fn add(l: &mut Launcher, a: &View, b: &View, out: &View) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols / PACK);
    let (rows, cols) = (l.rows(out), out.cols as i32);
    let (a, b, out) = (l.packs(a)?, l.packs(b)?, l.packs(out)?);
    l.launch(Family::Pointwise, "add", grid, &[&rows, &cols, &a, &b, &out])
}

/// `out = plus + x·keep/(1 − p)`: one thread for each pack of 8.
pub fn dropout(
    l: &mut Launcher,
    x: &View,
    seed: &View,
    site: u32,
    p: f64,
    plus: &Option<View>,
    out: &View,
) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols / PACK);
    let (rows, cols, seed) = (l.rows(out), out.cols as i32, l.flat(seed, DType::I32)?);
    // As on the CPU: p as a threshold on 32 random bits, and the scale rounded once.
    let (threshold, scale) = ((p * 4_294_967_296.0) as u64, (1.0 - p).recip() as f32);
    let (x, plus, out) = (l.packs(x)?, l.packs_or_none(plus)?, l.packs(out)?);
    l.launch(Family::Pointwise, "dropout", grid, &[&rows, &cols, &seed, &site, &threshold, &scale, &x, &plus, &out])
}

/// `out = x + magnitude·u`: one thread for each pack of 8.
pub fn noise(l: &mut Launcher, x: &View, seed: &View, site: u32, magnitude: &View, out: &View) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols / PACK);
    let (rows, cols) = (l.rows(out), out.cols as i32);
    let (seed, magnitude) = (l.flat(seed, DType::I32)?, l.flat(magnitude, DType::F32)?);
    let (x, out) = (l.packs(x)?, l.packs(out)?);
    l.launch(Family::Pointwise, "noise", grid, &[&rows, &cols, &seed, &site, &magnitude, &x, &out])
}

/// Each slab of x to its place in its slab of out: one thread for each element of out.
pub fn cast(l: &mut Launcher, x: &View, out: &View, parts: usize, at: [usize; 2], scale: f64) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols);
    let rows = l.rows(out);
    let capacity = |v: &View| (v.rows.count(l.program.tokens) / parts) as i32;
    let (from_rows, to_rows) = (capacity(x), capacity(out));
    let (from_cols, to_cols, [row, col], scale) = (x.cols as i32, out.cols as i32, at.map(|i| i as i32), scale as f32);
    let (x, out) = (l.f32_or_elem(x)?, l.f32_or_elem(out)?);
    l.launch(
        Family::Pointwise,
        "cast",
        grid,
        &[&rows, &from_rows, &from_cols, &to_rows, &to_cols, &row, &col, &scale, &x, &out],
    )
}

/// Zeros: one thread for each 16 bytes, or for each byte where they are not aligned.
pub fn zero(l: &mut Launcher, out: &View) -> Result<()> {
    let size = l.dtype(out).bytes();
    let (rows, bytes, pitch) = (l.rows(out), out.cols * size, out.ld * size);
    let aligned = [bytes, pitch, l.address(out) as usize].iter().all(|n| n.is_multiple_of(16));
    let (wide, unit) = if aligned { (1i32, 16) } else { (0, 1) };
    let grid = Grid::items(l.grid_rows(out) * bytes / unit);
    let width = bytes as i64;
    let mut bytes = l.of(out, l.dtype(out))?;
    bytes.ld = pitch as i64;
    l.launch(Family::Pointwise, "zero", grid, &[&rows, &width, &wide, &bytes])
}
