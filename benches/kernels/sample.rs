//! Sampling of one token with a vocabulary of 32000: greedy, and with temperature, top-k and top-p.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{F32, I32};
use halfbyte_core::op::{Op, SAMPLE_FIELDS};

pub fn benches(_: usize) -> Vec<Bench> {
    let v = 32000;
    let bench = |name: &str, rule: [f32; SAMPLE_FIELDS]| {
        Bench::memory(format!("sample/mistral-7b {name}"), 4 * v, move |b| {
            let (logits, seed) = (b.normal(1, v, F32, 3.0), b.i32(1, 2, |i| i as i32 + 5));
            Op::Sample { logits, rule: b.f32(1, &rule), seed, token: b.out(1, 1, I32) }
        })
    };
    vec![bench("greedy", [0.0, 0.0, 1.0]), bench("draw", [0.8, 0.0, 1.0]), bench("top-k, top-p", [0.8, 40.0, 0.95])]
}
