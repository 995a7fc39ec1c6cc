//! SwiGLU of Mistral-7B, on the halves of one product.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::Bf16;
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    let f = 14336;
    vec![
        Bench::memory(format!("swiglu/mistral-7b T={t}"), 3 * t * f * 2, move |b| {
            let both = b.normal(t, 2 * f, Bf16, 1.0);
            Op::SwiGlu { gate: both.columns(0, f), up: both.columns(f, f), out: b.out(t, f, Bf16) }
        }),
        Bench::memory(format!("swiglu_bwd/mistral-7b T={t}"), 5 * t * f * 2, move |b| {
            let (dout, both, to) = (b.normal(t, f, Bf16, 1.0), b.normal(t, 2 * f, Bf16, 1.0), b.out(t, 2 * f, Bf16));
            let half = |v: halfbyte_core::op::View| (v.columns(0, f), v.columns(f, f));
            let ((gate, up), (dgate, dup)) = (half(both), half(to));
            Op::SwiGluBwd { dout, gate, up, dgate, dup }
        }),
    ]
}
