//! 4-bit weights: decoding and encoding with the codebooks of [`codebook4`].

use super::memory::CpuMemory;
use super::real::Real;
use crate::op::Weight4;
use crate::quant::codebook4::{self, NestedScales};

/// The values of a 4-bit weight, row by row.
pub fn dequantize<A: Real>(mem: &CpuMemory, weight: &Weight4) -> Vec<A> {
    let restored = weight.nested.map(|nested| {
        NestedScales {
            codes: mem.slice::<u8>(&weight.absmax, 0).to_vec(),
            absmax: mem.slice::<f32>(&nested.absmax, 0).to_vec(),
            offset: mem.slice::<f32>(&nested.offset, 0)[0],
        }
        .restore()
    });
    let absmax = restored.as_deref().unwrap_or_else(|| mem.slice::<f32>(&weight.absmax, 0));
    let codes = mem.slice::<u8>(&weight.codes, 0);
    let mut values = vec![A::zero(); 2 * codes.len()];
    codebook4::dequantize(weight.kind, weight.block, codes, absmax, &mut values, |x| A::of(f64::from(x)));
    values
}

/// Quantizes `values` and stores codes and scales.
pub fn quantize(mem: &mut CpuMemory, values: &[f32], weight: &Weight4) {
    let mut codes = vec![0; values.len().div_ceil(2)];
    let mut scales = vec![0.0; values.len().div_ceil(weight.block)];
    codebook4::quantize(weight.kind, weight.block, values, &mut codes, &mut scales);
    mem.write_slice(&weight.codes, &codes);
    let Some(to) = weight.nested else { return mem.write_slice(&weight.absmax, &scales) };
    let second = codebook4::nest(&scales, codebook4::mean(&scales));
    mem.write_slice(&weight.absmax, &second.codes);
    mem.write_slice(&to.absmax, &second.absmax);
    mem.write_slice(&to.offset, &[second.offset]);
}
