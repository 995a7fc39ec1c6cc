//! Cross-entropy of a chunk of 2048 rows with a vocabulary of 32000.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32, I32};
use halfbyte_core::op::{CONTROL_FIELDS, CrossEntropy, Op};

pub fn benches(t: usize) -> Vec<Bench> {
    let (n, v) = (t.min(2048), 32000);
    vec![Bench::memory(format!("cross_entropy/mistral-7b rows={n}"), n * v * (4 + 2), move |b| {
        let (logits, targets) = (b.normal(n, v, F32, 3.0), b.i32(n, 1, move |i| (i * 7919 % v) as i32));
        let (weight, control) = (b.normal(n, 1, F32, 1.0), b.normal(1, CONTROL_FIELDS, F32, 1.0));
        let (logp, hit, dlogits) = (b.out(n, 1, F32), b.out(n, 1, I32), Some(b.out(n, v, Bf16)));
        Op::CrossEntropy(CrossEntropy { logits, targets, weight, control, logp, hit, dlogits })
    })]
}
