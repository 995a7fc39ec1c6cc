//! Launches of `kernels/grad_norm.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{ControlRule, View};

/// Partial sums, then their sum: two launches in a fixed order.
pub fn grad_norm(l: &mut Launcher, grads: &View, partials: &View, norm: &View) -> Result<()> {
    let (n, count) = (grads.cols as i64, partials.cols as i32);
    let runs = partials.cols;
    let (grads, partials) = (l.flat(grads, DType::F32)?, l.flat(partials, DType::F32)?);
    let norm = l.flat(norm, DType::F32)?;
    l.launch(Family::GradNorm, "grad_norm_partials", Grid::blocks(runs, 512), &[&n, &grads, &partials])?;
    l.launch(Family::GradNorm, "grad_norm", Grid::blocks(1, 512), &[&count, &partials, &norm])
}

/// One thread decides.
pub fn control(l: &mut Launcher, rule: &ControlRule, norm: &View, rates: &View, control: &View) -> Result<()> {
    let max_norm = rule.max_norm.map_or(0.0, |m| m as f32);
    let (growth_interval, rate_count) =
        (rule.growth_interval.unwrap_or(0) as i32, (l.grid_rows(rates) * rates.cols) as i32);
    let (norm, rates) = (l.flat(norm, DType::F32)?, l.flat(rates, DType::F32)?);
    let control = l.flat(control, DType::F32)?;
    l.launch(
        Family::GradNorm,
        "control",
        Grid::blocks(1, 1),
        &[&max_norm, &growth_interval, &rate_count, &norm, &rates, &control],
    )
}
