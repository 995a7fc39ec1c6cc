//! Launches of `kernels/permute.cu`.

use super::launch::{Argument, Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::View;

/// `out[t] = plus[t] + Σ_k weights[t,k] · y[slots[t,k]]`: one thread for each pack of 8.
pub fn combine(
    l: &mut Launcher,
    y: &View,
    weights: &Option<View>,
    slots: &View,
    plus: &Option<View>,
    out: &View,
) -> Result<()> {
    let grid = Grid::items(l.grid_rows(out) * out.cols / PACK);
    let (rows, cols, choices) = (l.rows(out), out.cols as i32, slots.cols as i32);
    let (y, weights, slots) = (l.packs(y)?, l.f32_or_elem_or_none(weights)?, l.flat(slots, DType::I32)?);
    let (plus, out) = (l.packs_or_none(plus)?, l.packs(out)?);
    l.launch(Family::Permute, "combine", grid, &[&rows, &cols, &choices, &y, &weights, &slots, &plus, &out])
}

/// `dy[slots[t,k]] = weights[t,k] · dout[t]`, `dweights[t,k] = ⟨dout[t], y[slots[t,k]]⟩`: one block for each token.
pub fn combine_bwd(
    l: &mut Launcher,
    dout: &View,
    y: &View,
    weights: &View,
    slots: &View,
    dy: &View,
    dweights: &View,
) -> Result<()> {
    let grid = Grid::blocks(l.grid_rows(dout), (dout.cols / PACK).next_multiple_of(32).clamp(32, 256));
    let (rows, cols, choices) = (l.rows(dout), dout.cols as i32, slots.cols as i32);
    let (dout, y, weights) = (l.packs(dout)?, l.packs(y)?, l.f32_or_elem(weights)?);
    let (slots, dy, dweights) = (l.flat(slots, DType::I32)?, l.packs(dy)?, l.f32_or_elem(dweights)?);
    let args: [&dyn Argument; 9] = [&rows, &cols, &choices, &dout, &y, &weights, &slots, &dy, &dweights];
    l.launch(Family::Permute, "combine_bwd", grid, &args)
}
