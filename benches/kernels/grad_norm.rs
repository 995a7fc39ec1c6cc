//! Norm of the gradient of Mistral-7B's adapter, rank 16 on all seven linears.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::F32;
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    let n: usize = if t < 1024 { 1 << 20 } else { 41_943_040 };
    vec![Bench::memory(format!("grad_norm/mistral-7b r=16 N={n}"), 4 * n, move |b| {
        let grads = b.normal(1, n, F32, 1e-3);
        Op::GradNorm { grads, partials: b.out(1, n.div_ceil(65536), F32), norm: b.out(1, 1, F32) }
    })]
}
