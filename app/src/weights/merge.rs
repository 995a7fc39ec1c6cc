//! Base weights with an adapter added, as PEFT's `merge_and_unload` computes them.
//!
//! delta = (B · A) · scale in f32, scaled after the product; merged = round(base + delta), one rounding to the type
//! of the result. The base is either the checkpoint's weight or the 4-bit weight that was trained on, dequantised.

use rayon::prelude::*;

use crate::weights::adapter::LoraWeights;
use crate::weights::quantize::{Absmax, Quantized, Scheme, load};
use crate::weights::safetensors::Checkpoint;
use crate::weights::targets::AdapterModule;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use halfbyte_core::model::Linear;

/// scale · B · A, `[out_features, in_features]` in f32.
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

/// `base` + `delta` with one rounding to `dtype`; `base` holds values of the type that it is meant to have.
pub fn add(base: &mut [f32], delta: &[f32], dtype: DType) {
    for (w, d) in base.iter_mut().zip(delta) {
        *w = dtype.round(*w + d);
    }
}

/// The base that an adapter is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The checkpoint's weight: what one gets by loading the model again in 16 bit. It is not quite the weight that
    /// the adapter was trained on.
    Original,
    /// The 4-bit weight, dequantised.
    Dequantized(Scheme),
}

/// The weight of `module` in `dtype` (f32 values that it holds exactly), with an adapter added if there is one.
/// `load_as` is the type in which the model was loaded, and quantised.
pub fn merged(
    checkpoint: &Checkpoint,
    module: &Linear,
    adapter: Option<(&AdapterModule, &LoraWeights)>,
    base: Base,
    load_as: DType,
    dtype: DType,
) -> Result<Vec<f32>> {
    let shape = [module.out_features, module.in_features];
    let dequantized = |q: Quantized| q.dequantize().into_iter().map(|x| q.dtype.round(x)).collect();
    let mut weight: Vec<f32> = match (Quantized::read(checkpoint, &module.name, shape)?, base) {
        (Some(stored), _) => dequantized(stored),
        (None, Base::Original) => load(&checkpoint.shaped(&module.weight(), &shape)?, load_as)?,
        (None, Base::Dequantized(scheme)) => {
            dequantized(Quantized::from_checkpoint(checkpoint, &module.name, shape, load_as, scheme)?)
        }
    };
    weight.iter_mut().for_each(|x| *x = dtype.round(*x));
    if let Some((adapted, weights)) = adapter {
        add(&mut weight, &delta(adapted, weights), dtype);
    }
    Ok(weight)
}

/// PEFT's `merge_and_unload` on a 4-bit model: dequantise to the type it was quantised from, add, quantise again.
pub fn requantized(base: &Quantized, adapted: &AdapterModule, weights: &LoraWeights) -> Quantized {
    let mut weight = base.dequantize();
    for (w, d) in weight.iter_mut().zip(delta(adapted, weights)) {
        // The sum is f32 whatever the base's type: PEFT casts up before it adds.
        *w = base.dtype.round(*w) + d;
    }
    let double = matches!(base.absmax, Absmax::Nested(_));
    let scheme = Scheme { kind: base.kind, blocksize: base.blocksize, double };
    Quantized::new(scheme, DType::F32, base.shape, &weight)
}
