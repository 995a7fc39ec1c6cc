//! The quantized formats that bitsandbytes defines: 4-bit codebooks with block scales, and blockwise 8-bit maps.

pub mod blockwise8;
pub mod codebook4;

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

/// How to quantize a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The codebook.
    pub kind: QuantKind,
    /// Elements that share a scale: a power of two from 32 to 4096.
    pub blocksize: usize,
    /// Whether the scales are stored in 8 bits.
    pub double: bool,
}
