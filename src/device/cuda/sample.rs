//! Launch of `kernels/sample.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// One block for each row of logits.
pub fn sample(l: &mut Launcher, logits: &View, rule: &View, seed: &View, token: &View) -> Result<()> {
    let grid = Grid::blocks(l.grid_rows(logits), 1024);
    let (rows, cols) = (l.rows(logits), logits.cols as i32);
    let (logits, token) = (l.of(logits, DType::F32)?, l.of(token, DType::I32)?);
    let (rule, seed) = (l.flat(rule, DType::F32)?, l.flat(seed, DType::I32)?);
    l.launch(Family::Sample, "sample", grid, &[&rows, &cols, &logits, &rule, &seed, &token])
}
