//! Launch of `kernels/rope.cu`.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// Angles that a block keeps (`MAX_HALF` in the kernel).
const MAX_HALF: usize = 128;

/// One block for each token turns all of its heads.
pub fn rope(l: &mut Launcher, x: &View, pos: &View, inv_freq: &View, inverse: bool) -> Result<()> {
    let half = inv_freq.cols;
    if !half.is_multiple_of(PACK) || half > MAX_HALF {
        let why = format!("has {half} angles; the GPU takes multiples of {PACK} up to {MAX_HALF}");
        return Err(l.refused(inv_freq, &why).hint("models of this shape run on the CPU: `--device cpu`"));
    }
    let grid = Grid::blocks(l.grid_rows(x), 256);
    let (rows, cols, half, inverse) = (l.rows(x), x.cols as i32, half as i32, i32::from(inverse));
    let (pos, inv_freq, x) = (l.of(pos, DType::I32)?, l.flat(inv_freq, DType::F32)?, l.packs(x)?);
    l.launch(Family::Rope, "rope", grid, &[&rows, &cols, &half, &inverse, &pos, &inv_freq, &x])
}
