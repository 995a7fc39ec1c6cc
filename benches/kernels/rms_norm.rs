//! RMSNorm of Mistral-7B and Llama-2-13B.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    let mut benches = Vec::new();
    for (model, d) in [("mistral-7b", 4096), ("llama-2-13b", 5120)] {
        benches.push(Bench::memory(format!("rms_norm/{model} T={t}"), 2 * t * d * 2, move |b| {
            let (x, weight) = (b.normal(t, d, Bf16, 1.0), b.normal(1, d, Bf16, 1.0));
            Op::RmsNorm { x, weight, out: b.out(t, d, Bf16), rstd: b.out(t, 1, F32), eps: 1e-5 }
        }));
        benches.push(Bench::memory(format!("rms_norm_bwd/{model} T={t}"), 4 * t * d * 2, move |b| {
            let (dout, x, plus) = (b.normal(t, d, Bf16, 1.0), b.normal(t, d, Bf16, 1.0), b.normal(t, d, Bf16, 1.0));
            let (weight, rstd) = (b.normal(1, d, Bf16, 1.0), b.normal(t, 1, F32, 1.0));
            Op::RmsNormBwd { dout, x, weight, rstd, plus: Some(plus), dx: b.out(t, d, Bf16) }
        }));
    }
    benches
}
