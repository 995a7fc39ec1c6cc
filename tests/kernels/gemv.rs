//! A few rows times a 4-bit weight.

use crate::harness::Case;
use crate::nf4::weight;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows, Weight4};
use halfbyte_core::quant::QuantKind;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Row counts that are not multiples of a tile; inner sizes that are not multiples of a warp's step, or of all
    // warps' steps.
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
                    let x = b.normal(Rows::Tokens(1), k, 1.0);
                    let (codes, absmax, nested) = weight(b, n, k, block, double);
                    // A slice of a wider output.
                    let rows = Rows::Tokens(1);
                    let y = if wide { b.buf(rows, n + 24, DType::F32) } else { b.elem(rows, n + 24) };
                    Op::Gemv { x, out: y.columns(8, n), weight: Weight4 { kind, block, codes, absmax, nested } }
                })
                // Weights are rounded to 16 bits, so f32 results carry that error too.
                .limits(3e-3, 2e-5);
                // The op allows at most four rows.
                case.capacity = 4;
                cases.push(case);
            }
        }
    }
    cases
}
