//! Blockwise 8-bit quantization with bitsandbytes' dynamic maps: the second level of double quantization and the
//! state of 8-bit AdamW. Formulas: bitsandbytes `functional.py` (`create_dynamic_map`) and `csrc/kernels.cu`
//! (`dQuantize`, `quantize_2D`).

use std::sync::LazyLock;

/// Elements that share a scale.
pub const BLOCK: usize = 256;

/// The code of zero in the signed map.
pub const SIGNED_ZERO: u8 = 127;

/// 256 ascending values in [−1, 1]: value of each code.
pub type Map = [f32; 256];

/// The signed map, `[-0.9929688, …, 0, …, 1]`; code 127 is zero.
pub static SIGNED: LazyLock<Map> = LazyLock::new(|| dynamic_map(true));

/// The unsigned map, `[0, …, 1]`.
pub static UNSIGNED: LazyLock<Map> = LazyLock::new(|| dynamic_map(false));

/// Seven decades 10⁻⁶ … 1, each cut into twice as many steps as the one below: small values keep few digits but
/// their magnitude. Evaluated in f32 in the order of `create_dynamic_map`, because every bit of it matters.
fn dynamic_map(signed: bool) -> Map {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let scale = 10f64.powi(decade - 6) as f32;
        let steps = if signed { 1usize << decade } else { 2 << decade };
        let edges = linspace(0.1, 1.0, steps + 1);
        for pair in edges.windows(2) {
            let value = scale * ((pair[0] + pair[1]) / 2.0);
            values.push(value);
            if signed {
                values.push(-value);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    std::array::from_fn(|code| values[code])
}

/// `torch.linspace(start, end, count)` in f32: counted from both ends towards the middle, each value one fused
/// multiply-add.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    let value = |i: usize| match i < count / 2 {
        true => step.mul_add(i as f32, start),
        false => (-step).mul_add((count - 1 - i) as f32, end),
    };
    (0..count).map(value).collect()
}

/// The code whose value is nearest to `x`. A tie goes to the even code, where the kernel's binary search stops;
/// NaN (0/0 of an all-zero block) becomes code 0.
pub fn nearest(map: &Map, x: f32) -> u8 {
    // codes below `above` have values < x
    let above = map.partition_point(|value| *value < x);
    if above == 0 {
        return 0;
    }
    if above == map.len() {
        return 255;
    }
    let middle = (map[above - 1] + map[above]) * 0.5;
    let code = match x.partial_cmp(&middle) {
        Some(std::cmp::Ordering::Greater) => above,
        Some(std::cmp::Ordering::Less) => above - 1,
        _ => above & !1,
    };
    code as u8
}

/// Quantizes blocks of [`BLOCK`] `values`: `absmax[b] = max |x|`, code = nearest of `x · (1/absmax)`.
/// `codes` has one per value, `absmax` one per block (the last may be short).
pub fn quantize(map: &Map, values: &[f32], codes: &mut [u8], absmax: &mut [f32]) {
    let blocks = values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK));
    for ((values, codes), absmax) in blocks.zip(absmax) {
        *absmax = values.iter().fold(0.0, |max, x| x.abs().max(max));
        let reciprocal = 1.0 / *absmax;
        for (code, x) in codes.iter_mut().zip(values) {
            *code = nearest(map, x * reciprocal);
        }
    }
}

/// The inverse: `map[code] · absmax[block]`.
pub fn dequantize(map: &Map, codes: &[u8], absmax: &[f32], values: &mut [f32]) {
    let blocks = values.chunks_mut(BLOCK).zip(codes.chunks(BLOCK));
    for ((values, codes), absmax) in blocks.zip(absmax) {
        for (value, code) in values.iter_mut().zip(codes) {
            *value = map[usize::from(*code)] * absmax;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_the_documented_corners() {
        assert_eq!((SIGNED[0], SIGNED[127], SIGNED[255]), (-0.992_968_74, 0.0, 1.0));
        assert_eq!((UNSIGNED[0], UNSIGNED[255]), (0.0, 1.0));
        for map in [&*SIGNED, &*UNSIGNED] {
            assert!(map.windows(2).all(|w| w[0] < w[1]));
        }
    }

    #[test]
    fn every_value_finds_its_code_and_ties_go_to_even() {
        for map in [&*SIGNED, &*UNSIGNED] {
            for code in 0..=255u8 {
                assert_eq!(nearest(map, map[usize::from(code)]), code);
            }
            for code in 0..255usize {
                let middle = (map[code] + map[code + 1]) * 0.5;
                assert_eq!(nearest(map, middle) % 2, 0, "tie above code {code}");
            }
        }
        assert_eq!(nearest(&SIGNED, f32::NAN), 0);
        assert_eq!((nearest(&SIGNED, -2.0), nearest(&SIGNED, 2.0)), (0, 255));
    }
}
