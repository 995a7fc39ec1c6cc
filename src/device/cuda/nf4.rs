//! Launches of `kernels/nf4.cu`.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{View, Weight4};
use crate::quant::QuantKind;
use crate::quant::blockwise8::BLOCK;

/// Packs of a block (`THREADS · PACKS` in the kernel).
const PACKS_OF_BLOCK: usize = 1024;
/// Threads of a block, and the blocks of elements that it quantizes: one for each warp.
const THREADS: usize = 256;
const WARP: usize = 32;

/// A 4-bit weight as kernels take it: codes, then `Scales` of `nf4.cuh`, one argument after the other. Addresses, or 0.
pub struct Weight {
    /// log₂ of the block size.
    pub block_bits: i32,
    /// 1 for FP4, 0 for NF4.
    pub fp4: i32,
    /// Packed 4-bit codes.
    pub codes: u64,
    /// F32 scales,
    pub absmax: u64,
    /// or 8-bit codes of them,
    pub absmax8: u64,
    /// with their own scales
    pub nested: u64,
    /// and offset.
    pub offset: u64,
}

impl Weight {
    /// The arguments of a weight whose blocks have at least `least` elements.
    pub fn new(l: &Launcher, weight: &Weight4, least: usize) -> Result<Self> {
        let Weight4 { kind, block, codes, absmax, nested } = weight;
        if !block.is_power_of_two() || *block < least {
            let why = format!("has blocks of {block}; the GPU takes powers of two from {least} on");
            return Err(l.refused(codes, &why));
        }
        let (block_bits, fp4, codes) = (block.trailing_zeros() as i32, fp4(*kind), l.flat(codes, DType::U8)?);
        let (mut absmax32, mut absmax8, mut second, mut offset) = (0, 0, 0, 0);
        match nested {
            None => absmax32 = l.flat(absmax, DType::F32)?,
            Some(n) => {
                absmax8 = l.flat(absmax, DType::U8)?;
                (second, offset) = (l.flat(&n.absmax, DType::F32)?, l.flat(&n.offset, DType::F32)?);
            }
        }
        Ok(Self { block_bits, fp4, codes, absmax: absmax32, absmax8, nested: second, offset })
    }
}

fn fp4(kind: QuantKind) -> i32 {
    i32::from(kind == QuantKind::Fp4)
}

/// `out = level[code] · absmax`.
pub fn dequantize(l: &mut Launcher, weight: &Weight4, out: &View) -> Result<()> {
    let packs = l.grid_rows(out) * out.cols / PACK;
    let grid = Grid::blocks(packs.div_ceil(PACKS_OF_BLOCK), THREADS);
    let (packs, cols) = (packs as u32, out.cols as i32);
    let (w, out) = (Weight::new(l, weight, PACK)?, l.packs(out)?);
    l.launch(
        Family::Nf4,
        "dequantize",
        grid,
        &[&packs, &cols, &w.block_bits, &w.fp4, &w.codes, &w.absmax, &w.absmax8, &w.nested, &w.offset, &out],
    )
}

/// Codes and scales of x; double quantized, the scales lie in scratch memory until they have their codes.
pub fn quantize(l: &mut Launcher, x: &View, weight: &Weight4) -> Result<()> {
    let Weight4 { kind, block, codes, absmax, nested } = weight;
    if x.ld != x.cols || !block.is_multiple_of(2) {
        let why = format!("is quantized in blocks of {block}; they must be even, and the rows contiguous");
        return Err(l.refused(x, &why));
    }
    let n = l.grid_rows(x) * x.cols;
    let blocks = n.div_ceil(*block);
    let grid = Grid::blocks((blocks * WARP).div_ceil(THREADS), THREADS);
    let (n, block, fp4, count) = (n as i64, *block as i32, fp4(*kind), blocks as i32);
    let (x, codes) = (l.f32_or_elem(x)?, l.flat(codes, DType::U8)?);
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

/// Bytes of scratch memory of a double quantization: the scales in F32.
pub fn scratch(absmax: &View) -> usize {
    absmax.cols * 4
}
