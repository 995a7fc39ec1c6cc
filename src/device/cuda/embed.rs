//! Launch of `kernels/embed.cu`.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// `out[i] = table[ids[i]]`: one thread for each pack of 8.
pub fn embed(l: &mut Launcher, ids: &View, table: &View, out: &View) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols / PACK);
    let (rows, cols) = (l.rows(out), out.cols as i32);
    let (ids, table, out) = (l.of(ids, DType::I32)?, l.packs(table)?, l.packs(out)?);
    l.launch(Family::Embed, "embed", grid, &[&rows, &cols, &ids, &table, &out])
}
