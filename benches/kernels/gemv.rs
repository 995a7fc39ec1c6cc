//! One and four rows times Mistral-7B's largest weights, with double quantization.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::{Nested, Op, Weight4};
use halfbyte_core::quant::QuantKind;

pub fn benches(t: usize) -> Vec<Bench> {
    // A small one on the CPU.
    let shapes = if t < 1024 { vec![(256, 4096)] } else { vec![(4096, 4096), (14336, 4096), (4096, 14336)] };
    let mut benches = Vec::new();
    for (n, k) in shapes {
        for (kind, rows) in [(QuantKind::Nf4, 1), (QuantKind::Nf4, 4), (QuantKind::Fp4, 1)] {
            let bytes = n * k / 2 + n * k / 64 + n * k / 16384 * 4 + rows * (n + k) * 2;
            benches.push(Bench::memory(format!("gemv/mistral-7b {n}x{k} {} T={rows}", kind.name()), bytes, move |b| {
                let (codes, absmax) = (b.u8(n, k / 2), b.u8(1, n * k / 64));
                let nested =
                    Nested { absmax: b.normal(1, n * k / 64 / 256, F32, 1e-2), offset: b.normal(1, 1, F32, 1e-2) };
                let (x, out) = (b.normal(rows, k, Bf16, 1.0), b.out(rows, n, Bf16));
                Op::Gemv { x, out, weight: Weight4 { kind, block: 64, codes, absmax, nested: Some(nested) } }
            }));
        }
    }
    benches
}
