//! Launches of `kernels/nf4.cu`.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Nested, View};
use crate::quant::QuantKind;
use crate::quant::blockwise8::BLOCK;

/// Packs of a block (`THREADS · PACKS` in the kernel).
const PACKS_OF_BLOCK: usize = 1024;
/// Threads of a block, and the blocks of elements that it quantises: one for each warp.
const THREADS: usize = 256;
const WARP: usize = 32;

/// `Scales` of `nf4.cuh`, one argument after the other: addresses, or 0.
pub struct Scales {
    /// F32 scales.
    pub absmax: u64,
    /// Or 8-bit codes of them,
    pub absmax8: u64,
    /// with their own scales
    pub nested: u64,
    /// and offset.
    pub offset: u64,
}

impl Scales {
    /// The scales of a weight.
    pub fn new(l: &Launcher, absmax: &View, nested: &Option<Nested>) -> Result<Self> {
        Ok(match nested {
            None => Self { absmax: l.flat(absmax, DType::F32)?, absmax8: 0, nested: 0, offset: 0 },
            Some(n) => Self {
                absmax: 0,
                absmax8: l.flat(absmax, DType::U8)?,
                nested: l.flat(&n.absmax, DType::F32)?,
                offset: l.flat(&n.offset, DType::F32)?,
            },
        })
    }
}

/// log₂ of a block size of at least `least`.
pub fn block_bits(l: &Launcher, codes: &View, block: usize, least: usize) -> Result<i32> {
    if !block.is_power_of_two() || block < least {
        return Err(l.refused(codes, &format!("has blocks of {block}; the GPU takes powers of two from {least} on")));
    }
    Ok(block.trailing_zeros() as i32)
}

/// `out = level[code] · absmax`.
pub fn dequantize(
    l: &mut Launcher,
    kind: QuantKind,
    block: usize,
    codes: &View,
    absmax: &View,
    nested: &Option<Nested>,
    out: &View,
) -> Result<()> {
    let packs = l.grid_rows(out) * out.cols / PACK;
    let block_bits = block_bits(l, codes, block, PACK)?;
    let grid = Grid::blocks(packs.div_ceil(PACKS_OF_BLOCK), THREADS);
    let (packs, cols, fp4) = (packs as u32, out.cols as i32, i32::from(kind == QuantKind::Fp4));
    let (codes, s, out) = (l.flat(codes, DType::U8)?, Scales::new(l, absmax, nested)?, l.packs(out)?);
    l.launch(
        Family::Nf4,
        "dequantize",
        grid,
        &[&packs, &cols, &block_bits, &fp4, &codes, &s.absmax, &s.absmax8, &s.nested, &s.offset, &out],
    )
}

/// Codes and scales of x; double quantised, the scales lie in scratch memory until they have their codes.
pub fn quantize(
    l: &mut Launcher,
    kind: QuantKind,
    block: usize,
    x: &View,
    codes: &View,
    absmax: &View,
    nested: &Option<Nested>,
) -> Result<()> {
    if x.ld != x.cols || !block.is_multiple_of(2) {
        return Err(
            l.refused(x, &format!("is quantised in blocks of {block}; they must be even, and the rows contiguous"))
        );
    }
    let n = l.grid_rows(x) * x.cols;
    let blocks = n.div_ceil(block);
    let grid = Grid::blocks((blocks * WARP).div_ceil(THREADS), THREADS);
    let (n, block, fp4, count) = (n as i64, block as i32, i32::from(kind == QuantKind::Fp4), blocks as i32);
    let (x, codes) = (l.either(x)?, l.flat(codes, DType::U8)?);
    let scales = match nested {
        None => l.flat(absmax, DType::F32)?,
        Some(_) => l.memory.partials(scratch(absmax))?,
    };
    l.launch(Family::Nf4, "quantize", grid, &[&n, &block, &fp4, &x, &codes, &scales])?;
    let Some(to) = nested else { return Ok(()) };
    let (offset, second) = (l.flat(&to.offset, DType::F32)?, l.flat(&to.absmax, DType::F32)?);
    let absmax = l.flat(absmax, DType::U8)?;
    l.launch(Family::Nf4, "scales_mean", Grid::blocks(1, 1024), &[&count, &scales, &offset])?;
    let grid = Grid::blocks(blocks.div_ceil(BLOCK), BLOCK);
    l.launch(Family::Nf4, "nest", grid, &[&count, &scales, &offset, &absmax, &second])
}

/// Bytes of scratch memory of a double quantisation: the scales in F32.
pub fn scratch(absmax: &View) -> usize {
    absmax.cols * 4
}
