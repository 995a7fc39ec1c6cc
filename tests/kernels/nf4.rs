//! 4-bit quantization and dequantization, bit-equal to the CPU's, which the golden tests compare with bitsandbytes.

use crate::harness::{Build, Case};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Nested, Op, Rows, View, Weight4};
use halfbyte_core::quant::QuantKind;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [QuantKind::Nf4, QuantKind::Fp4] {
        // Row lengths that are not a multiple of the block; enough blocks for several nested scales.
        for (rows, cols, block) in [(1, 64, 64), (24, 40, 64), (520, 256, 64), (33, 4096, 128)] {
            for double in [false, true] {
                let name = format!("nf4/{kind:?} {rows}x{cols} block={block} double={double}");
                cases.push(
                    Case::new(name, 1, move |b| {
                        let (codes, absmax, nested) = weight(b, rows, cols, block, double);
                        Op::Dequantize {
                            out: b.elem(Rows::Fixed(rows), cols),
                            weight: Weight4 { kind, block, codes, absmax, nested },
                        }
                    })
                    .bits(),
                );
            }
        }
    }
    for kind in [QuantKind::Nf4, QuantKind::Fp4] {
        // Odd element counts, short last blocks, several blocks of scales, more scales than the mean has interleaved
        // sums.
        for (rows, cols, block) in
            [(1, 64, 64), (3, 111, 64), (24, 40, 32), (520, 256, 64), (33, 4096, 4096), (1, 7, 128)]
        {
            for (double, wide) in [(false, false), (true, true), (true, false)] {
                let name = format!("quantize/{kind:?} {rows}x{cols} block={block} double={double} f32={wide}");
                cases.push(
                    Case::new(name, 1, move |b| {
                        let (n, fixed) = (rows * cols, Rows::Fixed);
                        let view = if wide { b.buf(fixed(rows), cols, DType::F32) } else { b.elem(fixed(rows), cols) };
                        let mut values: Vec<f32> = (0..n).map(|_| 0.02 * b.gauss()).collect();
                        // One block of zeros.
                        values.iter_mut().skip(block).take(block).for_each(|x| *x = 0.0);
                        let x = b.float(view, values);
                        let codes = b.buf(fixed(1), n.div_ceil(2), DType::U8);
                        let blocks = n.div_ceil(block);
                        let absmax = b.buf(fixed(1), blocks, if double { DType::U8 } else { DType::F32 });
                        let nested = double.then(|| Nested {
                            absmax: b.buf(fixed(1), blocks.div_ceil(256), DType::F32),
                            offset: b.buf(fixed(1), 1, DType::F32),
                        });
                        Op::Quantize { x, weight: Weight4 { kind, block, codes, absmax, nested } }
                    })
                    .bits(),
                );
            }
        }
    }
    cases
}

/// A random 4-bit weight `[rows, cols]`: codes, scales, and nested scales if `double`.
pub fn weight(b: &mut Build, rows: usize, cols: usize, block: usize, double: bool) -> (View, View, Option<Nested>) {
    let (n, fixed) = (rows * cols, Rows::Fixed);
    let codes = (0..n / 2).map(|_| b.below(256) as u8).collect();
    let codes = b.u8(fixed(rows), cols / 2, codes);
    let blocks = n.div_ceil(block);
    let positive = |b: &mut Build, n: usize| {
        let view = b.buf(fixed(1), n, DType::F32);
        let values = (0..n).map(|_| 0.01 + b.gauss().abs() * 0.02).collect();
        b.float(view, values)
    };
    if double {
        let scales = (0..blocks).map(|_| b.below(256) as u8).collect();
        let absmax = b.u8(fixed(1), blocks, scales);
        let nested = Nested { absmax: positive(b, blocks.div_ceil(256)), offset: positive(b, 1) };
        (codes, absmax, Some(nested))
    } else {
        (codes, positive(b, blocks), None)
    }
}
