//! Launch of `kernels/nf4.cu`.

use super::launch::{Grid, Launcher, PACK};
use super::modules::Family;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Nested, QuantKind, View};

/// Packs of a block (`THREADS · PACKS` in the kernel).
const PACKS_OF_BLOCK: usize = 1024;

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
    if !block.is_power_of_two() || block < PACK {
        return Err(l.refused(codes, &format!("has blocks of {block}; the GPU takes powers of two from {PACK} on")));
    }
    let grid = Grid::blocks(packs.div_ceil(PACKS_OF_BLOCK), 256);
    let (packs, cols, block_bits) = (packs as u32, out.cols as i32, block.trailing_zeros() as i32);
    let fp4 = i32::from(kind == QuantKind::Fp4);
    let none = 0u64;
    let codes = l.flat(codes, DType::U8)?;
    let (absmax, absmax8, nested, offset) = match nested {
        None => (l.flat(absmax, DType::F32)?, none, none, none),
        Some(n) => (none, l.flat(absmax, DType::U8)?, l.flat(&n.absmax, DType::F32)?, l.flat(&n.offset, DType::F32)?),
    };
    let out = l.packs(out)?;
    l.launch(
        Family::Nf4,
        "dequantize",
        grid,
        &[&packs, &cols, &block_bits, &fp4, &codes, &absmax, &absmax8, &nested, &offset, &out],
    )
}
