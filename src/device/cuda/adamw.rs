//! Launches of `kernels/adamw.cu`.

use super::launch::{Grid, Launcher};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{AdamState, Betas, View};

/// `Decays` of the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Decays {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
}

/// Bytes of the kernel's `Step`.
const STEP_BYTES: usize = 24;

/// Elements that a block takes at least before another one shares its segment.
const ELEMENTS_OF_PART: usize = 2048;

/// Bytes of scratch memory: what the elements of each segment share.
pub fn scratch(segments: &View) -> usize {
    segments.rows.count(0) * STEP_BYTES
}

/// What AdamW reads beside parameters, gradients and moments.
pub struct Tables<'a> {
    /// `segments` of the op.
    pub segments: &'a View,
    /// `rates` of the op.
    pub rates: &'a View,
    /// `steps` of the op.
    pub steps: &'a View,
    /// `touched` of the op.
    pub touched: &'a View,
    /// `control` of the op.
    pub control: &'a View,
}

/// Prepares one step for each segment, then updates them: a row of blocks for each.
pub fn adamw(
    l: &mut Launcher,
    state: &AdamState,
    betas: &Betas,
    master: &View,
    grads: &View,
    tables: &Tables,
) -> Result<()> {
    let count = l.grid_rows(tables.segments);
    let torch = matches!(state, AdamState::Torch { .. });
    let (beta1, beta2) = (betas.beta1 as f32, betas.beta2 as f32);
    // torch subtracts in f64 and rounds; bitsandbytes rounds and subtracts.
    let decays = match torch {
        true => Decays { beta1, rest1: (1.0 - betas.beta1) as f32, beta2, rest2: (1.0 - betas.beta2) as f32 },
        false => Decays { beta1, rest1: 1.0 - beta1, beta2, rest2: 1.0 - beta2 },
    };
    // Segments differ in length, which only the device knows; a part beyond the end of its segment leaves at once.
    let parts = (master.cols / count.max(1)).div_ceil(ELEMENTS_OF_PART).clamp(1, 512);
    let grid = Grid { blocks: [count, parts, 1], threads: 256, shared: 0 };
    let (segments, rates) = (l.flat(tables.segments, DType::I64)?, l.flat(tables.rates, DType::F32)?);
    let (counts, touched) = (l.flat(tables.steps, DType::I32)?, l.flat(tables.touched, DType::I32)?);
    let (control, steps) = (l.flat(tables.control, DType::F32)?, l.memory.partials(scratch(tables.segments))?);
    let (master, grads) = (l.flat(master, DType::F32)?, l.flat(grads, DType::F32)?);
    let (rows, torch) = (count as i32, i32::from(torch));
    let (b1, b2, eps) = (betas.beta1, betas.beta2, betas.eps);
    l.launch(
        Family::Adamw,
        "adamw_prepare",
        Grid::items(count),
        &[&rows, &torch, &b1, &b2, &eps, &segments, &rates, &counts, &touched, &control, &steps],
    )?;
    match state {
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
