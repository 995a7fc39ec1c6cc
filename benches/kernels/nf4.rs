//! Dequantization and quantization of Mistral-7B's largest weight.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32, U8};
use halfbyte_core::op::{Nested, Op, Weight4};
use halfbyte_core::quant::QuantKind;

pub fn benches(t: usize) -> Vec<Bench> {
    // A part of it on the CPU.
    let (rows, cols) = if t < 1024 { (256, 4096) } else { (14336, 4096) };
    let n = rows * cols;
    let bytes = n / 2 + n / 64 + n / 16384 * 4;
    let double = |kind: QuantKind| {
        let name = format!("mistral-7b {rows}x{cols} {} double", kind.name());
        [
            Bench::memory(format!("dequantize/{name}"), bytes + 2 * n, move |b| {
                let (codes, absmax) = (b.u8(rows, cols / 2), b.u8(1, n / 64));
                let nested = Nested { absmax: b.normal(1, n / 64 / 256, F32, 1e-2), offset: b.normal(1, 1, F32, 1e-2) };
                Op::Dequantize {
                    out: b.out(rows, cols, Bf16),
                    weight: Weight4 { kind, block: 64, codes, absmax, nested: Some(nested) },
                }
            }),
            Bench::memory(format!("quantize/{name}"), bytes + 2 * n, move |b| {
                let x = b.normal(rows, cols, Bf16, 0.02);
                let (codes, absmax) = (b.out(rows, cols / 2, U8), b.out(1, n / 64, U8));
                let nested = Nested { absmax: b.out(1, n / 64 / 256, F32), offset: b.out(1, 1, F32) };
                Op::Quantize { x, weight: Weight4 { kind, block: 64, codes, absmax, nested: Some(nested) } }
            }),
        ]
    };
    let single = Bench::memory(format!("dequantize/mistral-7b {rows}x{cols} nf4"), n / 2 + n / 16 + 2 * n, move |b| {
        let (codes, absmax) = (b.u8(rows, cols / 2), b.normal(1, n / 64, F32, 1e-2));
        let out = b.out(rows, cols, Bf16);
        Op::Dequantize { out, weight: Weight4 { kind: QuantKind::Nf4, block: 64, codes, absmax, nested: None } }
    });
    [QuantKind::Nf4, QuantKind::Fp4].into_iter().flat_map(double).chain([single]).collect()
}
