//! RMSNorm, forward and backward.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows};

const T: Rows = Rows::Tokens(1);

pub fn cases() -> Vec<Case> {
    // Tokens, width, and the number of parts that are normalized on their own.
    let shapes = [(1, 64, 1), (7, 4096, 1), (130, 200, 1), (33, 5120, 1), (19, 128, 32), (70, 40, 3)];
    let forward = shapes.map(|(live, d, parts)| {
        Case::new(format!("rms_norm/T={live} D={d} parts={parts}"), live, move |b| {
            // Heads are columns of a wider product.
            let x = b.normal(T, d * (parts + 1), 3.0).columns(d * usize::from(parts > 1), d * parts);
            let weight = b.normal(Rows::Fixed(1), d, 1.0);
            let (out, rstd) = (b.elem(T, d * parts), b.buf(T, parts, DType::F32));
            Op::RmsNorm { x, weight, out, rstd, eps: 1e-5 }
        })
        // The result is rounded twice.
        .limits(4e-3, 1e-6)
    });
    let backward = [true, false].into_iter().flat_map(|with_plus| {
        shapes.map(|(live, d, parts)| {
            Case::new(format!("rms_norm_bwd/T={live} D={d} parts={parts} plus={with_plus}"), live, move |b| {
                let wide = d * parts;
                let (dout, x) = (b.normal(T, wide, 1.0), b.normal(T, wide, 1.0));
                let weight = b.normal(Rows::Fixed(1), d, 1.0);
                let rstd = b.buf(T, parts, DType::F32);
                let values = (0..b.tokens() * parts).map(|_| 0.9 + b.gauss().abs() * 0.1).collect();
                let rstd = b.float(rstd, values);
                let plus = with_plus.then(|| b.normal(T, wide, 1.0));
                Op::RmsNormBwd { dout, x, weight, rstd, plus, dx: b.elem(T, wide) }
            })
            .limits(4e-3, 1e-6)
        })
    });
    forward.into_iter().chain(backward).collect()
}
