//! Launches of `kernels/route.cu`.

use super::launch::{Argument, F32OrElem, Grid, Launcher, arguments};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Route, View};

/// Layers that one launch can take (`LAYERS` in the kernel).
const LAYERS: usize = 96;
/// Tokens of one partial sum (`CHUNK` in the kernel).
const CHUNK: usize = 256;
/// Experts at most (`EXPERTS` in the kernel): `aux_total` keeps two sums for each in shared memory.
const EXPERTS: usize = 128;

/// `Layers` of the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
struct Layers {
    at: [u64; LAYERS],
    ld: i64,
    wide: i32,
}

arguments!(Layers);

/// Choices of every token, then their order: the second launch is one block.
pub fn route(l: &mut Launcher, op: &Route) -> Result<()> {
    let (rows, count, tokens) = (l.rows(&op.logits), op.logits.cols, l.grid_rows(&op.logits));
    check_experts(l, &op.logits)?;
    let (n, choices, renormalize) = (count as i32, op.weights.cols as i32, i32::from(op.renormalize));
    let (logits, weights) = (l.f32_or_elem(&op.logits)?, l.f32_or_elem(&op.weights)?);
    let experts = l.flat(&op.experts, DType::I32)?;
    let args: [&dyn Argument; 7] = [&rows, &n, &choices, &renormalize, &logits, &weights, &experts];
    l.launch(Family::Route, "route_choose", Grid::items(tokens), &args)?;
    let (slots, source) = (l.flat(&op.slots, DType::I32)?, l.flat(&op.source, DType::I32)?);
    let offsets = l.flat(&op.offsets, DType::I32)?;
    let touched = op.touched.as_ref().map_or(Ok(0), |t| l.flat(t, DType::I32))?;
    // As many threads as shared memory has room for their counts: a power of two. All launches ask for all of that memory.
    let shared = l.shared_memory;
    let threads = (shared / 4 / count).saturating_sub(1).clamp(32, 1024);
    let threads = 1 << threads.ilog2();
    let grid = Grid { blocks: [1, 1, 1], threads, shared };
    l.launch(Family::Route, "route_sort", grid, &[&rows, &n, &choices, &experts, &slots, &source, &offsets, &touched])
}

/// One thread for each token.
pub fn route_bwd(
    l: &mut Launcher,
    dweights: &View,
    logits: &View,
    renormalize: bool,
    experts: &View,
    plus: &Option<View>,
    dlogits: &View,
) -> Result<()> {
    let (grid, rows, n) = (Grid::items(l.grid_rows(logits)), l.rows(logits), logits.cols as i32);
    let (choices, renormalize) = (dweights.cols as i32, i32::from(renormalize));
    let (dweights, logits, experts) = (l.f32_or_elem(dweights)?, l.f32_or_elem(logits)?, l.flat(experts, DType::I32)?);
    let (plus, dlogits) = (l.f32_or_elem_or_none(plus)?, l.f32_or_elem(dlogits)?);
    let args: [&dyn Argument; 9] = [&rows, &n, &choices, &renormalize, &dweights, &logits, &experts, &plus, &dlogits];
    l.launch(Family::Route, "route_bwd", grid, &args)
}

/// Sums over chunks of tokens, their total, the gradients.
pub fn aux_loss(
    l: &mut Launcher,
    logits: &[View],
    choices: usize,
    coef: f64,
    control: &View,
    aux: &View,
    dlogits: &[View],
) -> Result<()> {
    let Some(first) = logits.first() else {
        return Err(Error::run("aux_loss: no layer has a router"));
    };
    check_experts(l, first)?;
    let (rows, experts) = (l.rows(first), first.cols);
    let (n, layers, factor) = (experts as i32, logits.len() as i32, (coef * experts as f64) as f32);
    let choices = choices as i32;
    let chunks = l.grid_rows(first).div_ceil(CHUNK);
    let sums = partial_sums(logits, l.tokens);
    let partials = l.memory.partials(scratch(logits, l.tokens))?;
    let share = partials + sums as u64;
    let (loss_scale, aux) = (l.flat(control, DType::F32)?, l.flat(aux, DType::F32)?);
    let from = layers_of(l, logits)?;
    let grid = Grid { blocks: [chunks, logits.len(), 1], threads: CHUNK, shared: 0 };
    l.launch(Family::Route, "aux_partials", grid, &[&rows, &n, &choices, &from, &partials])?;
    l.launch(
        Family::Route,
        "aux_total",
        Grid::blocks(1, 2 * EXPERTS),
        &[&rows, &n, &layers, &factor, &partials, &share, &aux],
    )?;
    if dlogits.is_empty() {
        return Ok(()); // an evaluation
    }
    let to = layers_of(l, dlogits)?;
    l.launch(Family::Route, "aux_grad", grid, &[&rows, &n, &layers, &factor, &loss_scale, &share, &from, &to])
}

/// Bytes of the partial sums of all layers, with `tokens` tokens.
fn partial_sums(logits: &[View], tokens: usize) -> usize {
    let one_layer = logits.first().map_or(0, |l| l.rows.count(tokens).div_ceil(CHUNK) * 2 * l.cols * 4);
    (logits.len() * one_layer).next_multiple_of(256)
}

/// Bytes of scratch memory of `aux_loss`: partial sums, and the share of each expert.
pub fn scratch(logits: &[View], tokens: usize) -> usize {
    partial_sums(logits, tokens) + EXPERTS * 4
}

fn check_experts(l: &Launcher, logits: &View) -> Result<()> {
    if logits.cols > EXPERTS {
        return Err(l.refused(logits, &format!("has {} experts; the GPU takes up to {EXPERTS}", logits.cols)));
    }
    Ok(())
}

/// The addresses of all layers, which must be laid out alike.
fn layers_of(l: &Launcher, views: &[View]) -> Result<Layers> {
    if views.len() > LAYERS {
        return Err(Error::run(format!("aux_loss: {} layers; the GPU takes up to {LAYERS}", views.len())));
    }
    let F32OrElem { ld, wide, .. } = l.f32_or_elem(&views[0])?;
    let mut layers = Layers { at: [0; LAYERS], ld, wide };
    for (at, view) in layers.at.iter_mut().zip(views) {
        let layer = l.f32_or_elem(view)?;
        if (layer.ld, layer.wide) != (ld, wide) {
            return Err(l.refused(view, "must be laid out like the first layer's"));
        }
        *at = layer.at;
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::launch::seam::constant;
    use crate::op::MAX_CHOICES;

    #[test]
    fn limits_are_those_of_the_kernel_file() {
        let source = include_str!("../../../kernels/route.cu");
        for (name, limit) in [("LAYERS", LAYERS), ("CHUNK", CHUNK), ("EXPERTS", EXPERTS)] {
            assert_eq!(constant(source, name), limit, "{name}");
        }
        for source in [source, include_str!("../../../kernels/permute.cu")] {
            assert_eq!(constant(source, "MAX_CHOICES"), MAX_CHOICES);
        }
        assert!(source.contains("sums[2 * EXPERTS]"), "aux_total keeps two sums for each expert");
    }
}
