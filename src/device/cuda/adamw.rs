//! Launches of `kernels/adamw.cu`.

use super::launch::{Grid, Launcher, arguments};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{AdamState, AdamW, Betas, View};

/// `Decays` of the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
struct Decays {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
}

arguments!(Decays);

/// Bytes of the kernel's `Step`.
const STEP_BYTES: usize = 24;

/// Elements that a block takes at least before another one shares its segment.
const ELEMENTS_OF_PART: usize = 2048;

/// Bytes of scratch memory: what the elements of each segment share.
pub fn scratch(segments: &View) -> usize {
    segments.rows.count(0) * STEP_BYTES
}

/// Prepares one step for each segment, then updates them: a row of blocks for each.
pub fn adamw(l: &mut Launcher, op: &AdamW) -> Result<()> {
    let count = l.grid_rows(&op.segments);
    let torch = matches!(op.state, AdamState::Torch { .. });
    let Betas { beta1: b1, beta2: b2, eps } = op.betas;
    let (beta1, beta2) = (b1 as f32, b2 as f32);
    // torch subtracts in f64 and rounds; bitsandbytes rounds and subtracts.
    let decays = match torch {
        true => Decays { beta1, rest1: (1.0 - b1) as f32, beta2, rest2: (1.0 - b2) as f32 },
        false => Decays { beta1, rest1: 1.0 - beta1, beta2, rest2: 1.0 - beta2 },
    };
    // Segments differ in length, which only the device knows; a part beyond the end of its segment leaves at once.
    let parts = (op.master.cols / count.max(1)).div_ceil(ELEMENTS_OF_PART).clamp(1, 512);
    let grid = Grid { blocks: [count, parts, 1], threads: 256, shared: 0 };
    let (segments, rates) = (l.flat(&op.segments, DType::I64)?, l.flat(&op.rates, DType::F32)?);
    let (counts, touched) = (l.flat(&op.steps, DType::I32)?, l.flat(&op.touched, DType::I32)?);
    let (control, steps) = (l.flat(&op.control, DType::F32)?, l.memory.partials(scratch(&op.segments))?);
    let (master, grads) = (l.flat(&op.master, DType::F32)?, l.flat(&op.grads, DType::F32)?);
    let (rows, torch) = (count as i32, i32::from(torch));
    l.launch(
        Family::Adamw,
        "adamw_prepare",
        Grid::items(count),
        &[&rows, &torch, &b1, &b2, &eps, &segments, &rates, &counts, &touched, &control, &steps],
    )?;
    match &op.state {
        AdamState::Torch { m, v } | AdamState::Bitsandbytes { m, v } => {
            let (m, v) = (l.flat(m, DType::F32)?, l.flat(v, DType::F32)?);
            l.launch(
                Family::Adamw,
                "adamw_32",
                grid,
                &[&torch, &decays, &segments, &steps, &control, &grads, &master, &m, &v],
            )
        }
        AdamState::Blockwise8 { m, v, absmax_m, absmax_v } => {
            let (m, v) = (l.flat(m, DType::U8)?, l.flat(v, DType::U8)?);
            let (absmax_m, absmax_v) = (l.flat(absmax_m, DType::F32)?, l.flat(absmax_v, DType::F32)?);
            l.launch(
                Family::Adamw,
                "adamw_8",
                grid,
                &[&decays, &segments, &steps, &control, &grads, &master, &m, &v, &absmax_m, &absmax_v],
            )
        }
    }
}
