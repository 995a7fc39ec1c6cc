//! Launches of `kernels/rms_norm.cu`: one block for each row.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// A block for each row, with as many threads as the row has packs, up to 256.
fn grid(l: &Launcher, view: &View) -> Grid {
    Grid::blocks(l.grid_rows(view), (view.cols / PACK).next_multiple_of(32).clamp(32, 256))
}

/// `out = round(x·rstd) · weight`.
pub fn rms_norm(l: &mut Launcher, x: &View, weight: &View, out: &View, rstd: &View, eps: f64) -> Result<()> {
    let grid = grid(l, x);
    let (rows, cols, eps) = (l.rows(x), x.cols as i32, eps as f32);
    l.packs(weight)?;
    let weight = l.address(weight);
    let (x, out, rstd) = (l.packs(x)?, l.packs(out)?, l.of(rstd, DType::F32)?);
    l.launch(Family::RmsNorm, "rms_norm", grid, &[&rows, &cols, &eps, &x, &weight, &out, &rstd])
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
    let grid = grid(l, x);
    let (rows, cols) = (l.rows(x), x.cols as i32);
    l.packs(weight)?;
    let weight = l.address(weight);
    let (dout, x, rstd) = (l.packs(dout)?, l.packs(x)?, l.of(rstd, DType::F32)?);
    let (plus, dx) = (l.packs_or_none(plus)?, l.packs(dx)?);
    l.launch(Family::RmsNorm, "rms_norm_bwd", grid, &[&rows, &cols, &dout, &x, &weight, &rstd, &plus, &dx])
}
