//! Base weights with an adapter added, as PEFT's `merge_and_unload` computes them.
//!
//! delta = (B · A) · scale in f32, scaled after the product. merged = round(base + delta), rounded once to the type of
//! the result. The base is either the checkpoint's weight or the dequantized 4-bit weight that was trained on.

use rayon::prelude::*;

use crate::weights::adapter::LoraWeights;
use crate::weights::quantize::{Absmax, QuantizedWeight, Scheme, load};
use crate::weights::safetensors::TensorFiles;
use crate::weights::targets::AdapterModule;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use halfbyte_core::model::Linear;

/// scale · (B · A), `[out_features, in_features]` in f32.
pub fn delta(adapted: &AdapterModule, weights: &LoraWeights) -> Vec<f32> {
    let (r, width) = (adapted.r, adapted.module.in_features);
    let mut out = vec![0.0f32; adapted.module.elements()];
    out.par_chunks_mut(width).zip(weights.b.par_chunks(r)).for_each(|(row, b)| {
        for (b, a) in b.iter().zip(weights.a.chunks_exact(width)) {
            for (sum, a) in row.iter_mut().zip(a) {
                *sum = b.mul_add(*a, *sum);
            }
        }
        for sum in row {
            *sum *= adapted.scale as f32;
        }
    });
    out
}

/// Adds `delta` to `base` and rounds once to `dtype`. The caller has rounded `base` to the type that it should have.
pub fn add(base: &mut [f32], delta: &[f32], dtype: DType) {
    for (w, d) in base.iter_mut().zip(delta) {
        *w = dtype.round(*w + d);
    }
}

/// The base weight to which an adapter is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeBase {
    /// The checkpoint's weight, as after reloading the model in 16 bit. It differs slightly from the 4-bit weight on
    /// which the adapter was trained.
    Original,
    /// The 4-bit weight, dequantized.
    Dequantized(Scheme),
}

/// The weight of `module` with `adapter` added, `[out_features, in_features]`: f32 values that are exact in `dtype`.
/// `load_as` is the type to which the model was cast before it was quantized.
pub fn merged(
    checkpoint: &TensorFiles,
    module: &Linear,
    adapter: Option<(&AdapterModule, &LoraWeights)>,
    base: MergeBase,
    load_as: DType,
    dtype: DType,
) -> Result<Vec<f32>> {
    let shape = [module.out_features, module.in_features];
    let dequantized = |q: QuantizedWeight| q.dequantize().into_iter().map(|x| q.dtype.round(x)).collect();
    let mut weight: Vec<f32> = match (QuantizedWeight::read(checkpoint, &module.name, shape)?, base) {
        (Some(stored), _) => dequantized(stored),
        (None, MergeBase::Original) => load(&checkpoint.shaped(&module.weight(), &shape)?, load_as)?,
        (None, MergeBase::Dequantized(scheme)) => {
            dequantized(QuantizedWeight::from_checkpoint(checkpoint, &module.name, shape, load_as, scheme)?)
        }
    };
    weight.iter_mut().for_each(|x| *x = dtype.round(*x));
    if let Some((adapted, weights)) = adapter {
        add(&mut weight, &delta(adapted, weights), dtype);
    }
    Ok(weight)
}

/// PEFT's `merge_and_unload` on a 4-bit model: dequantize to the type it was quantized from, add, quantize again.
pub fn requantized(base: &QuantizedWeight, adapted: &AdapterModule, weights: &LoraWeights) -> QuantizedWeight {
    let mut weight = base.dequantize();
    for (w, d) in weight.iter_mut().zip(delta(adapted, weights)) {
        // PEFT widens the base to f32 before it adds.
        *w = base.dtype.round(*w) + d;
    }
    let double = matches!(base.absmax, Absmax::Nested(_));
    let scheme = Scheme { kind: base.kind, blocksize: base.blocksize, double };
    QuantizedWeight::new(scheme, DType::F32, base.shape, &weight)
}
