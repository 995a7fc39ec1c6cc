//! 4-bit weights: decoding and encoding with the codebooks of [`codebook4`].

use super::memory::Memory;
use super::real::Real;
use crate::op::{Nested, View};
use crate::quant::{QuantKind, codebook4};

pub fn dequantize<A: Real>(
    mem: &Memory,
    kind: QuantKind,
    block: usize,
    codes: &View,
    absmax: &View,
    nested: Option<&Nested>,
) -> Vec<A> {
    let restored = nested.map(|nested| {
        codebook4::Nested {
            codes: mem.ints::<u8>(absmax, 0).to_vec(),
            absmax: mem.ints::<f32>(&nested.absmax, 0).to_vec(),
            offset: mem.ints::<f32>(&nested.offset, 0)[0],
        }
        .restore()
    });
    let absmax = restored.as_deref().unwrap_or_else(|| mem.ints::<f32>(absmax, 0));
    let codes = mem.ints::<u8>(codes, 0);
    let mut values = vec![A::zero(); 2 * codes.len()];
    codebook4::dequantize(kind, block, codes, absmax, &mut values, |x| A::of(f64::from(x)));
    values
}

pub fn quantize(
    mem: &mut Memory,
    kind: QuantKind,
    block: usize,
    values: &[f32],
    codes: &View,
    absmax: &View,
    nested: Option<&Nested>,
) {
    let mut found = vec![0; values.len().div_ceil(2)];
    let mut scales = vec![0.0; values.len().div_ceil(block)];
    codebook4::quantize(kind, block, values, &mut found, &mut scales);
    mem.store_ints(codes, &found);
    let Some(to) = nested else { return mem.store_ints(absmax, &scales) };
    let second = codebook4::nest(&scales, codebook4::mean(&scales));
    mem.store_ints(absmax, &second.codes);
    mem.store_ints(&to.absmax, &second.absmax);
    mem.store_ints(&to.offset, &[second.offset]);
}
