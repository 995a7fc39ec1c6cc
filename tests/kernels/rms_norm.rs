//! RMSNorm, forward and backward.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows};

const T: Rows = Rows::Tokens(1);

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 64), (7, 4096), (130, 200), (33, 5120)];
    let forward = shapes.map(|(live, d)| {
        Case::new(format!("rms_norm/T={live} D={d}"), live, move |b| {
            let x = b.normal(T, d, 3.0);
            let weight = b.normal(Rows::Fixed(1), d, 1.0);
            let (out, rstd) = (b.elem(T, d), b.buf(T, 1, DType::F32));
            Op::RmsNorm { x, weight, out, rstd, eps: 1e-5 }
        })
        // The result is rounded twice.
        .limits(4e-3, 1e-6)
    });
    let backward = [true, false].into_iter().flat_map(|with_plus| {
        shapes.map(|(live, d)| {
            Case::new(format!("rms_norm_bwd/T={live} D={d} plus={with_plus}"), live, move |b| {
                let (dout, x) = (b.normal(T, d, 1.0), b.normal(T, d, 1.0));
                let weight = b.normal(Rows::Fixed(1), d, 1.0);
                let rstd = b.buf(T, 1, DType::F32);
                let values = (0..b.tokens()).map(|_| 0.9 + b.gauss().abs() * 0.1).collect();
                let rstd = b.float(rstd, values);
                let plus = with_plus.then(|| b.normal(T, d, 1.0));
                Op::RmsNormBwd { dout, x, weight, rstd, plus, dx: b.elem(T, d) }
            })
            .limits(4e-3, 1e-6)
        })
    });
    forward.into_iter().chain(backward).collect()
}
