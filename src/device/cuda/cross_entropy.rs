//! Launch of `kernels/cross_entropy.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::CrossEntropy;

/// One block for each row of logits.
pub fn cross_entropy(l: &mut Launcher, op: &CrossEntropy) -> Result<()> {
    let grid = Grid::blocks(l.grid_rows(&op.logits), 512);
    let (rows, cols) = (l.rows(&op.logits), op.logits.cols as i32);
    let (logits, targets) = (l.of(&op.logits, DType::F32)?, l.of(&op.targets, DType::I32)?);
    // The loss scale is the first field of the control buffer.
    let (weight, loss_scale) = (l.f32_or_elem(&op.weight)?, l.flat(&op.control, DType::F32)?);
    let (logp, hit) = (l.f32_or_elem(&op.logp)?, l.of(&op.hit, DType::I32)?);
    let dlogits = l.f32_or_elem_or_none(&op.dlogits)?;
    l.launch(
        Family::CrossEntropy,
        "cross_entropy",
        grid,
        &[&rows, &cols, &logits, &targets, &weight, &loss_scale, &logp, &hit, &dlogits],
    )
}
