//! Launches of `kernels/rms_norm.cu`: one block for each part of a row that is normalized on its own.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// The parts of a row, and a block for each of them with as many threads as the part has packs, up to 256.
fn grid(l: &Launcher, x: &View, weight: &View) -> (i32, Grid) {
    let parts = x.cols / weight.cols;
    let threads = (weight.cols / PACK).next_multiple_of(32).clamp(32, 256);
    (parts as i32, Grid::blocks(l.grid_rows(x) * parts, threads))
}

/// `out = round(x·rstd) · weight`.
pub fn rms_norm(l: &mut Launcher, x: &View, weight: &View, out: &View, rstd: &View, eps: f64) -> Result<()> {
    let (parts, grid) = grid(l, x, weight);
    let (rows, cols, eps) = (l.rows(x), weight.cols as i32, eps as f32);
    l.packs(weight)?;
    let weight = l.address(weight);
    let (x, out, rstd) = (l.packs(x)?, l.packs(out)?, l.of(rstd, DType::F32)?);
    l.launch(Family::RmsNorm, "rms_norm", grid, &[&rows, &parts, &cols, &eps, &x, &weight, &out, &rstd])
}

/// `dx = plus + rstd·(g − x·rstd²·mean(g·x))`.
pub fn rms_norm_bwd(
    l: &mut Launcher,
    dout: &View,
    x: &View,
    weight: &View,
    rstd: &View,
    plus: &Option<View>,
    dx: &View,
) -> Result<()> {
    let (parts, grid) = grid(l, x, weight);
    let (rows, cols) = (l.rows(x), weight.cols as i32);
    l.packs(weight)?;
    let weight = l.address(weight);
    let (dout, x, rstd) = (l.packs(dout)?, l.packs(x)?, l.of(rstd, DType::F32)?);
    let (plus, dx) = (l.packs_or_none(plus)?, l.packs(dx)?);
    l.launch(Family::RmsNorm, "rms_norm_bwd", grid, &[&rows, &parts, &cols, &dout, &x, &weight, &rstd, &plus, &dx])
}
