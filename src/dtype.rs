//! Element types of buffers and files.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// How one element is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DType {
    /// 64-bit float: only tests compute in it.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float with the exponent of f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// Byte: packed 4-bit codes (two elements), 8-bit codes.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::U8 => 1,
        }
    }
    /// Whether it is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::Bf16 | DType::F16)
    }
    /// The type in which sums over elements of this type are kept: max(f32, storage).
    pub const fn accumulator(self) -> DType {
        match self {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }
    /// The name that PyTorch uses (`torch_dtype` in config.json).
    pub const fn torch_name(self) -> &'static str {
        match self {
            DType::F64 => "float64",
            DType::F32 => "float32",
            DType::Bf16 => "bfloat16",
            DType::F16 => "float16",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::U8 => "uint8",
        }
    }
    /// The floating-point type that torch calls `name` (with or without "torch."), or its common short name.
    pub fn from_torch_name(name: &str) -> Option<DType> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" | "float" | "fp32" | "f32" => Some(DType::F32),
            "float16" | "half" | "fp16" | "f16" => Some(DType::F16),
            "bfloat16" | "bf16" => Some(DType::Bf16),
            _ => None,
        }
    }
    /// `value` after a round trip through this float type: itself for f32.
    pub fn round(self, value: f32) -> f32 {
        match self {
            DType::Bf16 => bf16::from_f32(value).to_f32(),
            DType::F16 => f16::from_f32(value).to_f32(),
            _ => value,
        }
    }
    /// [`Self::round`] of many values, on all threads.
    pub fn round_all(self, values: &mut [f32]) {
        values.par_chunks_mut(CHUNK).for_each(|values| match self {
            // Slices use F16C; converting one by one would test for it each time.
            DType::F16 => narrow(values).convert_to_f32_slice(values),
            DType::Bf16 => values.iter_mut().for_each(|x| *x = self.round(*x)),
            _ => {}
        });
    }
    /// `values` as they are stored in this type (a float), little-endian; made on all threads.
    pub fn store(self, values: &[f32]) -> Vec<u8> {
        fn each<const N: usize>(out: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
            out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(out, bytes)| *out = bytes);
        }
        let mut out = vec![0; values.len() * self.bytes()];
        out.par_chunks_mut(CHUNK * self.bytes()).zip(values.par_chunks(CHUNK)).for_each(|(out, values)| match self {
            DType::F64 => each(out, values.iter().map(|x| f64::from(*x).to_le_bytes())),
            DType::F32 => each(out, values.iter().map(|x| x.to_le_bytes())),
            DType::Bf16 => each(out, values.iter().map(|x| bf16::from_f32(*x).to_le_bytes())),
            DType::F16 => each(out, narrow(values).iter().map(|x| x.to_le_bytes())),
            DType::I64 | DType::I32 | DType::U8 => unreachable!("floats are not stored as integers"),
        });
        out
    }
}

/// Elements that a thread takes at a time.
const CHUNK: usize = 1 << 14;

fn narrow(values: &[f32]) -> Vec<f16> {
    let mut out = vec![f16::ZERO; values.len()];
    out.convert_from_f32_slice(values);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All f16 and their neighbors, ties, subnormals, overflow, the specials; one by one and all at once.
    #[test]
    fn many_values_are_rounded_like_one() {
        let bits = (0..=u16::MAX).map(|b| f16::from_bits(b).to_f32().to_bits());
        let near = bits.flat_map(|b| [b.wrapping_sub(1), b, b.wrapping_add(1), b.wrapping_add(1 << 12)]);
        let values: Vec<f32> = near.map(f32::from_bits).collect();
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            let mut rounded = values.clone();
            dtype.round_all(&mut rounded);
            let stored = dtype.store(&values);
            for ((value, rounded), stored) in values.iter().zip(&rounded).zip(stored.chunks(dtype.bytes())) {
                let one = dtype.round(*value);
                assert!(one.to_bits() == rounded.to_bits() || one.is_nan() && rounded.is_nan(), "{value} {dtype:?}");
                let read = match dtype {
                    DType::F32 => f32::from_le_bytes(stored.try_into().unwrap()),
                    DType::Bf16 => bf16::from_le_bytes(stored.try_into().unwrap()).to_f32(),
                    _ => f16::from_le_bytes(stored.try_into().unwrap()).to_f32(),
                };
                assert!(one.to_bits() == read.to_bits() || one.is_nan() && read.is_nan(), "{value} {dtype:?}");
            }
        }
    }

    #[test]
    fn types_are_found_by_torch_and_short_names() {
        for (name, dtype) in
            [("torch.bfloat16", DType::Bf16), ("bf16", DType::Bf16), ("fp16", DType::F16), ("float", DType::F32)]
        {
            assert_eq!(DType::from_torch_name(name), Some(dtype), "{name}");
        }
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            assert_eq!(DType::from_torch_name(dtype.torch_name()), Some(dtype));
        }
        for name in ["int8", "uint8", "float64", ""] {
            assert_eq!(DType::from_torch_name(name), None, "{name}");
        }
    }
}
