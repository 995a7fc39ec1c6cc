//! Launches of `kernels/swiglu.cu`: one thread for each pack of 8.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::error::Result;
use crate::op::View;

/// `out = gate·σ(gate) · up`.
pub fn swiglu(l: &mut Launcher, gate: &View, up: &View, out: &View) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols / PACK);
    let (rows, cols) = (l.rows(out), out.cols as i32);
    let (gate, up, out) = (l.packs(gate)?, l.packs(up)?, l.packs(out)?);
    l.launch(Family::Swiglu, "swiglu", grid, &[&rows, &cols, &gate, &up, &out])
}

/// `dgate = dout·up·silu'(gate)`, `dup = dout·silu(gate)`.
pub fn swiglu_bwd(l: &mut Launcher, dout: &View, gate: &View, up: &View, dgate: &View, dup: &View) -> Result<()> {
    let grid = Grid::items(l.grid_rows(dout) * dout.cols / PACK);
    let (rows, cols) = (l.rows(dout), dout.cols as i32);
    let (dout, gate, up) = (l.packs(dout)?, l.packs(gate)?, l.packs(up)?);
    let (dgate, dup) = (l.packs(dgate)?, l.packs(dup)?);
    l.launch(Family::Swiglu, "swiglu_bwd", grid, &[&rows, &cols, &dout, &gate, &up, &dgate, &dup])
}
