//! SwiGLU, forward and backward; gate and up are the halves of one product.

use crate::harness::Case;
use halfbyte_core::op::{Op, Rows};

const T: Rows = Rows::Tokens(1);

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, f) in [(1, 64), (77, 344), (5, 14336)] {
        cases.push(Case::new(format!("swiglu/T={live} F={f}"), live, move |b| {
            let both = b.elem(T, 2 * f);
            let both = b.fill(both, 2.0);
            Op::SwiGlu { gate: both.columns(0, f), up: both.columns(f, f), out: b.elem(T, f) }
        }));
        cases.push(
            Case::new(format!("swiglu_bwd/T={live} F={f}"), live, move |b| {
                let (gate, up, dout) = (b.normal(T, f, 2.0), b.normal(T, f, 2.0), b.normal(T, f, 1.0));
                let both = b.elem(T, 2 * f);
                Op::SwiGluBwd { dout, gate, up, dgate: both.columns(0, f), dup: both.columns(f, f) }
            })
            .limits(4e-3, 1e-6),
        );
    }
    // The rows of experts, two per token, with outputs that may overwrite inputs.
    cases.push(
        Case::new("swiglu_bwd/T=9 F=128 rows=2T", 9, |b| {
            let rows = Rows::Tokens(2);
            let (gate, up, dout) = (b.normal(rows, 128, 2.0), b.normal(rows, 128, 2.0), b.normal(rows, 128, 1.0));
            Op::SwiGluBwd { dout, gate, up, dgate: b.elem(rows, 128), dup: b.elem(rows, 128) }
        })
        .limits(4e-3, 1e-6),
    );
    cases
}
