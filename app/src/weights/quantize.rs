//! 4-bit weights: quantised here, or read from a checkpoint that bitsandbytes has quantised.

use std::borrow::Cow;

use crate::config::fields::Fields;
use crate::config::recipe::LoadDtype;
use crate::weights::safetensors::{Checkpoint, Tensor};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::quant::QuantKind;
pub use halfbyte_core::quant::Scheme;
use halfbyte_core::quant::blockwise8;
use halfbyte_core::quant::codebook4::{self, NestedScales};

/// The scales of a quantised weight, one per block.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    /// In f32.
    Plain(Vec<f32>),
    /// In 8 bits around their mean ("double quantisation").
    Nested(NestedScales),
}

/// A weight in 4 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Two codes per byte, the first in the high nibble: ⌈elements/2⌉ bytes.
    pub codes: Vec<u8>,
    /// One scale per block.
    pub absmax: Absmax,
    /// The codebook.
    pub kind: QuantKind,
    /// Elements that share a scale.
    pub blocksize: usize,
    /// The type the weight had when it was quantised: dequantisation rounds to it once.
    pub dtype: DType,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
}

/// The type in which transformers loads the weights of `checkpoint`, before anything else happens to them: the one
/// that the recipe's `torch_dtype` names; float16 when it names none and they are quantised while they are loaded
/// (float32 otherwise); with "auto" the one that config.json names, else the one that the first float is stored in.
pub fn load_dtype(said: LoadDtype, config: &ModelConfig, checkpoint: &Checkpoint, quantised: bool) -> DType {
    let stored = || checkpoint.names().filter_map(|n| checkpoint.get(n)).map(|t| t.dtype).find(|d| d.is_float());
    match said {
        LoadDtype::Named(dtype) => dtype,
        LoadDtype::Unsaid if quantised => DType::F16,
        LoadDtype::Unsaid => DType::F32,
        LoadDtype::Auto => config.torch_dtype.or_else(stored).unwrap_or(DType::F32),
    }
}

/// `tensor` widened to f32 after a cast to `dtype`, as transformers loads it.
pub fn load(tensor: &Tensor, dtype: DType) -> Result<Vec<f32>> {
    let mut values = tensor.to_f32()?;
    if tensor.dtype != dtype {
        dtype.round_all(&mut values);
    }
    Ok(values)
}

impl Quantized {
    /// Quantises `values`, the elements of a weight of `shape`, which hold values of type `dtype`.
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

    /// Loads the weight `{module}.weight` as `dtype` and quantises it.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        module: &str,
        shape: [usize; 2],
        dtype: DType,
        scheme: Scheme,
    ) -> Result<Self> {
        let tensor = checkpoint.shaped(&format!("{module}.weight"), &shape)?;
        Ok(Self::new(scheme, dtype, shape, &load(&tensor, dtype)?))
    }

    /// Reads the bitsandbytes tensors of `module` (`weight`, `weight.absmax`, `weight.quant_map`, `weight.nested_*`,
    /// `weight.quant_state.bitsandbytes__nf4`); None when the module is stored unquantised.
    pub fn read(checkpoint: &Checkpoint, module: &str, shape: [usize; 2]) -> Result<Option<Self>> {
        let Some((Scheme { kind, blocksize, .. }, state)) = state(checkpoint, module)? else { return Ok(None) };
        let weight = format!("{module}.weight");
        let dtype = state.text("dtype")?.and_then(DType::from_torch_name);
        let dtype = dtype.ok_or_else(|| state.wrong("dtype", "expected float32, float16 or bfloat16"))?;
        if state.get("shape") != Some(&serde_json::json!(shape)) {
            return Err(state.wrong("shape", &format!("config.json asks for {shape:?}")));
        }
        let elements = shape[0] * shape[1];
        let blocks = elements.div_ceil(blocksize);
        let codes = bytes(checkpoint, &weight, elements.div_ceil(2))?;
        map(checkpoint, &format!("{weight}.quant_map"), codebook4::levels(kind))?;
        let scales = format!("{weight}.absmax");
        let absmax = if state.get("nested_offset").is_none() {
            Absmax::Plain(floats(checkpoint, &scales, blocks)?)
        } else {
            if state.count("nested_blocksize")? != Some(blockwise8::BLOCK) {
                return Err(state.wrong("nested_blocksize", "expected 256"));
            }
            map(checkpoint, &format!("{weight}.nested_quant_map"), &*blockwise8::SIGNED)?;
            Absmax::Nested(NestedScales {
                codes: bytes(checkpoint, &scales, blocks)?,
                absmax: floats(checkpoint, &format!("{weight}.nested_absmax"), blocks.div_ceil(blockwise8::BLOCK))?,
                // An f32 printed as a decimal f64: parse, then round.
                offset: state.number("nested_offset")?.unwrap_or_default() as f32,
            })
        };
        Ok(Some(Self { codes, absmax, kind, blocksize, dtype, shape }))
    }

    /// How the bitsandbytes tensors of `module` were quantised; None when the module is stored unquantised.
    pub fn stored_scheme(checkpoint: &Checkpoint, module: &str) -> Result<Option<Scheme>> {
        Ok(state(checkpoint, module)?.map(|(scheme, _)| scheme))
    }

    /// The scales that dequantisation uses, in f32.
    pub fn scales(&self) -> Cow<'_, [f32]> {
        match &self.absmax {
            Absmax::Plain(absmax) => Cow::Borrowed(absmax),
            Absmax::Nested(nested) => Cow::Owned(nested.restore()),
        }
    }

    /// The weight as f32 values, `level · absmax`, not rounded to [`Self::dtype`].
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape[0] * self.shape[1]];
        codebook4::dequantize(self.kind, self.blocksize, &self.codes, &self.scales(), &mut out, |x| x);
        out
    }
}

/// The `quant_state` of a module that bitsandbytes has quantised, and the scheme that it names.
fn state(checkpoint: &Checkpoint, module: &str) -> Result<Option<(Scheme, Fields)>> {
    let state = [QuantKind::Nf4, QuantKind::Fp4].into_iter().find_map(|kind| {
        let state = checkpoint.get(&format!("{module}.weight.quant_state.bitsandbytes__{}", kind.name()))?;
        Some((kind, state))
    });
    let Some((kind, state)) = state else { return Ok(None) };
    let place = checkpoint.path().join(state.name);
    let text = std::str::from_utf8(state.bytes()?)
        .map_err(|e| Error::input(format!("{}: not valid UTF-8: {e}", place.display())))?;
    let state = Fields::parse(text, &place)?;
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

fn sized<'a>(checkpoint: &'a Checkpoint, name: &str, count: usize) -> Result<Tensor<'a>> {
    let tensor = checkpoint.tensor(name)?;
    match tensor.len() == count {
        true => Ok(tensor),
        false => {
            let path = checkpoint.path().display();
            Err(Error::input(format!("{path}: `{name}` has {} elements, expected {count}", tensor.len())))
        }
    }
}

fn bytes(checkpoint: &Checkpoint, name: &str, count: usize) -> Result<Vec<u8>> {
    Ok(sized(checkpoint, name, count)?.bytes()?.to_vec())
}

fn floats(checkpoint: &Checkpoint, name: &str, count: usize) -> Result<Vec<f32>> {
    sized(checkpoint, name, count)?.to_f32()
}

/// Checks that a stored table is the one that we compute with.
fn map(checkpoint: &Checkpoint, name: &str, ours: &[f32]) -> Result<()> {
    if floats(checkpoint, name, ours.len())? != ours {
        let path = checkpoint.path().display();
        return Err(Error::input(format!("{path}: `{name}` is not the table of bitsandbytes"))
            .hint("halfbyte reads checkpoints that bitsandbytes 0.41 or later has quantised to NF4 or FP4"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "quantize_tests.rs"]
mod tests;
