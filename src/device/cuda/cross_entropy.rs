//! Launch of `kernels/cross_entropy.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// One block for each row of logits.
pub fn cross_entropy(
    l: &mut Launcher,
    logits: &View,
    targets: &View,
    weight: &View,
    control: &View,
    logp: &View,
    hit: &View,
    dlogits: &Option<View>,
) -> Result<()> {
    let grid = Grid::blocks(l.grid_rows(logits), 512);
    let (rows, cols) = (l.rows(logits), logits.cols as i32);
    let (logits, targets, weight) = (l.of(logits, DType::F32)?, l.of(targets, DType::I32)?, l.either(weight)?);
    // The loss scale is the first field of the control buffer.
    let (loss_scale, logp) = (l.flat(control, DType::F32)?, l.either(logp)?);
    let hit = l.of(hit, DType::I32)?;
    let dlogits = l.either_or_none(dlogits)?;
    l.launch(
        Family::CrossEntropy,
        "cross_entropy",
        grid,
        &[&rows, &cols, &logits, &targets, &weight, &loss_scale, &logp, &hit, &dlogits],
    )
}
