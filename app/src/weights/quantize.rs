//! 4-bit weights: quantized here, or read from a checkpoint that bitsandbytes quantized.

use std::borrow::Cow;

use crate::config::fields::JsonFields;
use crate::config::recipe::LoadDtype;
use crate::weights::safetensors::{Tensor, TensorFiles};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::quant::QuantKind;
pub use halfbyte_core::quant::Scheme;
use halfbyte_core::quant::blockwise8;
use halfbyte_core::quant::codebook4::{self, NestedScales};

/// The scales of a quantized weight, one per block.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    /// Scales in f32.
    Plain(Vec<f32>),
    /// Scales in 8 bits around their mean ("double quantization").
    Nested(NestedScales),
}

/// A 4-bit weight in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    /// Two codes per byte, the first in the high nibble: ⌈elements / 2⌉ bytes.
    pub codes: Vec<u8>,
    /// One scale per block.
    pub absmax: Absmax,
    /// The codebook: NF4 or FP4.
    pub kind: QuantKind,
    /// Elements that share a scale.
    pub blocksize: usize,
    /// The type from which the weight was quantized. Dequantization rounds to it once.
    pub dtype: DType,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
}

/// The type to which transformers casts the weights of `checkpoint` when it loads them, before it quantizes them.
///
/// * A type in the recipe's `torch_dtype` wins.
/// * Without `torch_dtype` it is float16 if the weights are quantized while loading, else float32.
/// * "auto" takes the type that config.json names, else that of the first stored float tensor.
pub fn load_dtype(stated: LoadDtype, config: &ModelConfig, checkpoint: &TensorFiles, quantized: bool) -> DType {
    let stored = || checkpoint.names().filter_map(|n| checkpoint.get(n)).map(|t| t.dtype).find(|d| d.is_float());
    match stated {
        LoadDtype::Named(dtype) => dtype,
        LoadDtype::Unsaid if quantized => DType::F16,
        LoadDtype::Unsaid => DType::F32,
        LoadDtype::Auto => config.torch_dtype.or_else(stored).unwrap_or(DType::F32),
    }
}

/// `tensor` cast to `dtype`, as transformers loads it, then widened to f32.
pub fn load(tensor: &Tensor, dtype: DType) -> Result<Vec<f32>> {
    let mut values = tensor.to_f32()?;
    if tensor.dtype != dtype {
        dtype.round_all(&mut values);
    }
    Ok(values)
}

impl QuantizedWeight {
    /// Quantizes `values`, the elements of a weight of `shape`. They are exact in `dtype`.
    pub fn new(scheme: Scheme, dtype: DType, shape: [usize; 2], values: &[f32]) -> Self {
        let Scheme { kind, blocksize, double } = scheme;
        let mut codes = vec![0; values.len().div_ceil(2)];
        let mut absmax = vec![0.0; values.len().div_ceil(blocksize)];
        codebook4::quantize(kind, blocksize, values, &mut codes, &mut absmax);
        let absmax = match double {
            true => Absmax::Nested(codebook4::nest(&absmax, codebook4::mean(&absmax))),
            false => Absmax::Plain(absmax),
        };
        Self { codes, absmax, kind, blocksize, dtype, shape }
    }

    /// Loads `{module}.weight` as `dtype` and quantizes it.
    pub fn from_checkpoint(
        checkpoint: &TensorFiles,
        module: &str,
        shape: [usize; 2],
        dtype: DType,
        scheme: Scheme,
    ) -> Result<Self> {
        let tensor = checkpoint.shaped(&format!("{module}.weight"), &shape)?;
        Ok(Self::new(scheme, dtype, shape, &load(&tensor, dtype)?))
    }

    /// Reads the bitsandbytes tensors of `module` (`weight`, `weight.absmax`, `weight.quant_map`, `weight.nested_*`,
    /// `weight.quant_state.bitsandbytes__nf4`); `None` if the module is not quantized.
    pub fn read(checkpoint: &TensorFiles, module: &str, shape: [usize; 2]) -> Result<Option<Self>> {
        let Some((Scheme { kind, blocksize, .. }, state)) = state(checkpoint, module)? else { return Ok(None) };
        let weight = format!("{module}.weight");
        let dtype = state.text("dtype")?.and_then(DType::from_torch_name);
        let dtype = dtype.ok_or_else(|| state.wrong("dtype", "expected float32, float16 or bfloat16"))?;
        if state.get("shape") != Some(&serde_json::json!(shape)) {
            return Err(state.wrong("shape", &format!("config.json implies {shape:?}")));
        }
        let elements = shape[0] * shape[1];
        let blocks = elements.div_ceil(blocksize);
        let codes = bytes(checkpoint, &weight, elements.div_ceil(2))?;
        check_table(checkpoint, &format!("{weight}.quant_map"), codebook4::levels(kind))?;
        let scales = format!("{weight}.absmax");
        let absmax = if state.get("nested_offset").is_none() {
            Absmax::Plain(floats(checkpoint, &scales, blocks)?)
        } else {
            if state.count("nested_blocksize")? != Some(blockwise8::BLOCK) {
                return Err(state.wrong("nested_blocksize", "expected 256"));
            }
            check_table(checkpoint, &format!("{weight}.nested_quant_map"), &*blockwise8::SIGNED)?;
            Absmax::Nested(NestedScales {
                codes: bytes(checkpoint, &scales, blocks)?,
                absmax: floats(checkpoint, &format!("{weight}.nested_absmax"), blocks.div_ceil(blockwise8::BLOCK))?,
                // bitsandbytes prints the f32 as a decimal f64.
                offset: state.number("nested_offset")?.unwrap_or_default() as f32,
            })
        };
        Ok(Some(Self { codes, absmax, kind, blocksize, dtype, shape }))
    }

    /// The scheme of the bitsandbytes tensors of `module`; `None` if the module is not quantized.
    pub fn stored_scheme(checkpoint: &TensorFiles, module: &str) -> Result<Option<Scheme>> {
        Ok(state(checkpoint, module)?.map(|(scheme, _)| scheme))
    }

    /// The scales in f32, one per block, as dequantization uses them.
    pub fn scales(&self) -> Cow<'_, [f32]> {
        match &self.absmax {
            Absmax::Plain(absmax) => Cow::Borrowed(absmax),
            Absmax::Nested(nested) => Cow::Owned(nested.restore()),
        }
    }

    /// The elements as `level · absmax` in f32, not yet rounded to [`Self::dtype`].
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape[0] * self.shape[1]];
        codebook4::dequantize(self.kind, self.blocksize, &self.codes, &self.scales(), &mut out, |x| x);
        out
    }
}

/// The scheme and the `quant_state` of a module that bitsandbytes quantized; `None` if the module is not quantized.
fn state(checkpoint: &TensorFiles, module: &str) -> Result<Option<(Scheme, JsonFields)>> {
    let state = [QuantKind::Nf4, QuantKind::Fp4].into_iter().find_map(|kind| {
        let state = checkpoint.get(&format!("{module}.weight.quant_state.bitsandbytes__{}", kind.name()))?;
        Some((kind, state))
    });
    let Some((kind, state)) = state else { return Ok(None) };
    let place = checkpoint.path().join(state.name);
    let text = std::str::from_utf8(state.bytes()?)
        .map_err(|e| Error::input(format!("{}: not valid UTF-8: {e}", place.display())))?;
    let state = JsonFields::parse(text, &place)?;
    let blocksize = state.required_count("blocksize")?;
    if !(32..=4096).contains(&blocksize) || !blocksize.is_power_of_two() {
        return Err(state.wrong("blocksize", "expected a power of two from 32 to 4096"));
    }
    if state.text("quant_type")? != Some(kind.name()) {
        return Err(state.wrong("quant_type", &format!("expected {}", kind.name())));
    }
    let double = state.get("nested_offset").is_some();
    Ok(Some((Scheme { kind, blocksize, double }, state)))
}

fn sized<'a>(checkpoint: &'a TensorFiles, name: &str, count: usize) -> Result<Tensor<'a>> {
    let tensor = checkpoint.tensor(name)?;
    match tensor.len() == count {
        true => Ok(tensor),
        false => {
            let path = checkpoint.path().display();
            Err(Error::input(format!("{path}: `{name}` has {} elements, expected {count}", tensor.len())))
        }
    }
}

fn bytes(checkpoint: &TensorFiles, name: &str, count: usize) -> Result<Vec<u8>> {
    Ok(sized(checkpoint, name, count)?.bytes()?.to_vec())
}

fn floats(checkpoint: &TensorFiles, name: &str, count: usize) -> Result<Vec<f32>> {
    sized(checkpoint, name, count)?.to_f32()
}

/// Checks that a stored table of levels equals ours.
fn check_table(checkpoint: &TensorFiles, name: &str, ours: &[f32]) -> Result<()> {
    if floats(checkpoint, name, ours.len())? != ours {
        let path = checkpoint.path().display();
        return Err(Error::input(format!("{path}: `{name}` differs from the table of bitsandbytes"))
            .hint("halfbyte reads checkpoints that bitsandbytes 0.41 or later has quantized to NF4 or FP4"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "quantize_tests.rs"]
mod tests;
