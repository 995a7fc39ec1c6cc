//! A few rows times a 4-bit weight.

use crate::harness::{Build, Case};
use halfbyte::dtype::{DType, QuantKind};
use halfbyte::op::{Nested, Op, Rows};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Rows that are no multiple of a tile, inner sizes that are no multiple of a warp's step or of all warps' together.
    for (live, n, k, block) in [
        (1, 16, 32, 32),
        (1, 77, 96, 64),
        (2, 40, 1184, 64),
        (3, 130, 4096, 64),
        (4, 33, 2048, 4096),
        (4, 11008, 256, 128),
    ] {
        for kind in [QuantKind::Nf4, QuantKind::Fp4] {
            for (double, wide) in [(true, false), (false, true)] {
                let name = format!("gemv/{kind:?} T={live} {n}x{k} block={block} double={double} f32={wide}");
                let mut case = Case::new(name, live, move |b| {
                    let fixed = Rows::Fixed;
                    let x = b.normal(Rows::Tokens(1), k, 1.0);
                    let codes = (0..n * k / 2).map(|_| b.below(256) as u8).collect();
                    let codes = b.u8(fixed(n), k / 2, codes);
                    let blocks = (n * k).div_ceil(block);
                    let positive = |b: &mut Build, n: usize| {
                        let view = b.buf(fixed(1), n, DType::F32);
                        let values = (0..n).map(|_| 0.01 + b.gauss().abs() * 0.02).collect();
                        b.float(view, values)
                    };
                    let (absmax, nested) = if double {
                        let scales = (0..blocks).map(|_| b.below(256) as u8).collect();
                        let absmax = b.u8(fixed(1), blocks, scales);
                        let nested = Nested { absmax: positive(b, blocks.div_ceil(256)), offset: positive(b, 1) };
                        (absmax, Some(nested))
                    } else {
                        (positive(b, blocks), None)
                    };
                    // A slice of a wider result.
                    let rows = Rows::Tokens(1);
                    let y = if wide { b.buf(rows, n + 24, DType::F32) } else { b.elem(rows, n + 24) };
                    Op::Gemv { kind, block, x, codes, absmax, nested, out: y.columns(8, n) }
                })
                // Weights are rounded to 16 bits: an f32 result holds that error.
                .limits(3e-3, 2e-5);
                // At most four rows are planned.
                case.capacity = 4;
                cases.push(case);
            }
        }
    }
    cases
}
