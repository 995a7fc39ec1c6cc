//! Element types of buffers and files.

use half::{bf16, f16};

/// How one element is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DType {
    /// 64-bit float: only tests compute in it.
    F64,
    /// 32-bit float.
    F32,
    /// bfloat16.
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
    /// `value` after a round trip through this type (identity for f32; integers are not meant).
    pub fn round(self, value: f32) -> f32 {
        match self {
            DType::Bf16 => bf16::from_f32(value).to_f32(),
            DType::F16 => f16::from_f32(value).to_f32(),
            _ => value,
        }
    }
}

/// The two 4-bit codebooks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QuantKind {
    /// NormalFloat: quantiles of the normal distribution.
    Nf4,
    /// A 4-bit float (sign, two exponent bits, one mantissa bit).
    Fp4,
}

impl QuantKind {
    /// `bnb_4bit_quant_type`.
    pub fn name(self) -> &'static str {
        match self {
            QuantKind::Nf4 => "nf4",
            QuantKind::Fp4 => "fp4",
        }
    }
    /// The inverse of [`Self::name`].
    pub fn parse(name: &str) -> Option<Self> {
        [QuantKind::Nf4, QuantKind::Fp4].into_iter().find(|k| k.name() == name)
    }
}

/// How to quantise a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The codebook.
    pub kind: QuantKind,
    /// Elements that share a scale: a power of two from 32 to 4096.
    pub blocksize: usize,
    /// Whether the scales are stored in 8 bits.
    pub double: bool,
}
