//! 4-bit block quantization, bit-equal to bitsandbytes' CUDA kernels (`csrc/kernels.cu`, `kQuantizeBlockwise`,
//! `kDequantizeBlockwise`) in IEEE arithmetic.
//!
//! Blocks are cut from the flattened row-major tensor and may span rows; the last may be short. Element `2i` is the
//! high nibble of byte `i`. One block: `absmax = max |x|`, code = level nearest to `x · (1/absmax)`, with a tie going
//! to the lower level; value = `level · absmax` in one f32 multiply.

use rayon::prelude::*;

use super::QuantKind;
use super::blockwise8;

/// Value of each NF4 code: quantiles of the normal distribution, scaled to [−1, 1].
pub const NF4_LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Value of each FP4 code: bit 3 is the sign, so code 8 is −0.
pub const FP4_LEVELS: [f32; 16] = [
    0.0,
    0.005_208_333_5,
    0.666_666_7,
    1.0,
    0.333_333_34,
    0.5,
    0.166_666_67,
    0.25,
    -0.0,
    -0.005_208_333_5,
    -0.666_666_7,
    -1.0,
    -0.333_333_34,
    -0.5,
    -0.166_666_67,
    -0.25,
];

/// Scaled values above threshold `i` have an NF4 code above `i`. The kernel's own decimals: four of them (0, 8, 12,
/// 14) are one ulp off the f32 midpoint of their levels.
#[allow(clippy::excessive_precision)]
pub const NF4_THRESHOLDS: [f32; 15] = [
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
];

/// The kernel's thresholds on |x| for FP4.
pub const FP4_THRESHOLDS: [f32; 7] = [0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333];

/// The low three bits of the FP4 code whose magnitude has this rank.
pub const FP4_CODE_OF_RANK: [u8; 8] = [0, 1, 6, 7, 4, 5, 2, 3];

/// Value of each code of `kind`.
pub const fn levels(kind: QuantKind) -> &'static [f32; 16] {
    match kind {
        QuantKind::Nf4 => &NF4_LEVELS,
        QuantKind::Fp4 => &FP4_LEVELS,
    }
}

/// Code of a scaled value in [−1, 1]. NaN, which only an all-zero block has (0 · 1/0), becomes code 0.
pub fn encode(kind: QuantKind, x: f32) -> u8 {
    match kind {
        QuantKind::Nf4 => NF4_THRESHOLDS.iter().map(|t| u8::from(x > *t)).sum(),
        QuantKind::Fp4 => {
            let rank: usize = FP4_THRESHOLDS.iter().map(|t| usize::from(x.abs() > *t)).sum();
            FP4_CODE_OF_RANK[rank] | if x < 0.0 { 8 } else { 0 }
        }
    }
}

/// Quantizes `values` in blocks of `blocksize` (even): two codes per byte into `codes` (⌈n/2⌉ bytes), one scale per
/// block into `absmax` (⌈n/blocksize⌉). With odd n the last low nibble is the code of a further zero.
pub fn quantize(kind: QuantKind, blocksize: usize, values: &[f32], codes: &mut [u8], absmax: &mut [f32]) {
    let blocks = values.par_chunks(blocksize).zip(codes.par_chunks_mut(blocksize / 2));
    blocks.zip(absmax).for_each(|((values, codes), absmax)| {
        *absmax = values.iter().fold(0.0, |max, x| x.abs().max(max));
        let reciprocal = 1.0 / *absmax;
        for (byte, pair) in codes.iter_mut().zip(values.chunks(2)) {
            let second = pair.get(1).copied().unwrap_or(0.0);
            *byte = encode(kind, pair[0] * reciprocal) << 4 | encode(kind, second * reciprocal);
        }
    });
}

/// The inverse of [`quantize`]: `store(level · absmax)` for each element of `out`; `store` does the one rounding to
/// the type of `out`.
pub fn dequantize<T: Send>(
    kind: QuantKind,
    blocksize: usize,
    codes: &[u8],
    absmax: &[f32],
    out: &mut [T],
    store: impl Fn(f32) -> T + Sync,
) {
    let levels = levels(kind);
    let blocks = out.par_chunks_mut(blocksize).zip(codes.par_chunks(blocksize / 2));
    blocks.zip(absmax).for_each(|((out, codes), absmax)| {
        for (i, out) in out.iter_mut().enumerate() {
            let code = if i % 2 == 0 { codes[i / 2] >> 4 } else { codes[i / 2] & 15 };
            *out = store(levels[usize::from(code)] * absmax);
        }
    });
}

/// Block scales in 8 bits ("double quantization"): `absmax ≈ map[code] · nested + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct NestedScales {
    /// One code of the signed dynamic map per scale.
    pub codes: Vec<u8>,
    /// One scale per 256 codes.
    pub absmax: Vec<f32>,
    /// The mean of the scales, subtracted before quantizing.
    pub offset: f32,
}

/// The mean of `absmax`, which double quantization subtracts. Summed in f64: bitsandbytes leaves the order of its f32
/// sum to the backend, so its last bits are not defined. Ours is the GPU's: 1024 interleaved sums, then added in halves.
pub fn mean(absmax: &[f32]) -> f32 {
    const SUMS: usize = 1024;
    let mut sums = [0f64; SUMS];
    absmax.iter().enumerate().for_each(|(i, x)| sums[i % SUMS] += f64::from(*x));
    let mut half = SUMS / 2;
    while half > 0 {
        (0..half).for_each(|i| sums[i] += sums[i + half]);
        half /= 2;
    }
    (sums[0] / absmax.len() as f64) as f32
}

/// Quantizes the scales `absmax` around `offset` (see [`mean`]).
pub fn nest(absmax: &[f32], offset: f32) -> NestedScales {
    let centered: Vec<f32> = absmax.iter().map(|x| x - offset).collect();
    let mut nested = NestedScales {
        codes: vec![0; absmax.len()],
        absmax: vec![0.0; absmax.len().div_ceil(blockwise8::BLOCK)],
        offset,
    };
    blockwise8::quantize(&blockwise8::SIGNED, &centered, &mut nested.codes, &mut nested.absmax);
    nested
}

impl NestedScales {
    /// The scales that dequantization uses: `map[code] · nested`, rounded, then `+ offset`, rounded.
    pub fn restore(&self) -> Vec<f32> {
        let mut absmax = vec![0.0; self.codes.len()];
        blockwise8::dequantize(&blockwise8::SIGNED, &self.codes, &self.absmax, &mut absmax);
        absmax.iter().map(|x| x + self.offset).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [QuantKind; 2] = [QuantKind::Nf4, QuantKind::Fp4];

    #[test]
    fn every_level_keeps_its_code() {
        for kind in KINDS {
            for (code, level) in levels(kind).iter().enumerate() {
                // −0 scales to a value that is not below 0
                let want = if level.to_bits() == (-0f32).to_bits() { 0 } else { code as u8 };
                assert_eq!(encode(kind, *level), want, "{kind:?} {level}");
            }
        }
        assert_eq!(encode(QuantKind::Fp4, -1e-9), 8);
    }

    #[test]
    fn a_tie_goes_to_the_lower_code() {
        for (code, t) in NF4_THRESHOLDS.iter().enumerate() {
            assert_eq!(encode(QuantKind::Nf4, *t), code as u8);
            assert_eq!(encode(QuantKind::Nf4, t.next_up()), code as u8 + 1);
        }
    }

    #[test]
    fn error_stays_within_half_a_level_at_every_size() {
        // 0.2 of the largest value is half the widest gap between levels (NF4: 0.152, FP4: 1/6)
        let values: Vec<f32> = (0..4099).map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 0.01).collect();
        for kind in KINDS {
            for blocksize in [32, 64, 4096] {
                for n in [1usize, 31, 64, 333, 4099] {
                    let mut codes = vec![0; n.div_ceil(2)];
                    let mut absmax = vec![0.0; n.div_ceil(blocksize)];
                    quantize(kind, blocksize, &values[..n], &mut codes, &mut absmax);
                    let mut out = vec![0.0; n];
                    dequantize(kind, blocksize, &codes, &absmax, &mut out, |x| x);
                    for i in 0..n {
                        let limit = absmax[i / blocksize] * 0.1668;
                        assert!((out[i] - values[i]).abs() <= limit, "{kind:?} {blocksize} {n} {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_all_zero_block_has_code_0() {
        for kind in KINDS {
            let (mut codes, mut absmax) = (vec![255; 16], vec![1.0]);
            quantize(kind, 32, &[0.0; 32], &mut codes, &mut absmax);
            assert_eq!((codes, absmax), (vec![0; 16], vec![0.0]));
        }
    }

    #[test]
    fn a_single_scale_is_its_own_mean() {
        let nested = nest(&[0.37], mean(&[0.37]));
        assert_eq!((nested.codes[0], nested.offset), (0, 0.37));
        assert_eq!(nested.restore(), [0.37]);
    }
}
