//! Residual sums, dropout and noise of Mistral-7B; cast and zeroing of its adapter (r = 16 on all seven linears).

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    let d = 4096;
    let n: usize = if t < 1024 { 1 << 20 } else { 41_943_040 };
    vec![
        Bench::memory(format!("add/mistral-7b T={t}"), 3 * t * d * 2, move |b| {
            let (x, y) = (b.normal(t, d, Bf16, 1.0), b.normal(t, d, Bf16, 1.0));
            Op::Add { a: x, b: y, out: b.out(t, d, Bf16) }
        }),
        Bench::memory(format!("dropout/mistral-7b T={t}"), 2 * t * d * 2, move |b| {
            let (x, seed) = (b.normal(t, d, Bf16, 1.0), b.i32(1, 2, |i| i as i32 + 5));
            Op::Dropout { x, seed, site: 3, p: 0.05, plus: None, out: b.out(t, d, Bf16) }
        }),
        Bench::memory(format!("noise/mistral-7b T={t}"), 2 * t * d * 2, move |b| {
            let (x, seed) = (b.normal(t, d, Bf16, 1.0), b.i32(1, 2, |i| i as i32 + 5));
            Op::Noise { x, seed, site: 0, magnitude: b.normal(1, 1, F32, 1e-3), out: b.out(t, d, Bf16) }
        }),
        Bench::memory(format!("cast/mistral-7b r=16 N={n}"), (4 + 2) * n, move |b| Op::Cast {
            x: b.normal(n / 16, 16, F32, 1.0),
            out: b.out(n / 16, 16, Bf16),
            parts: 1,
            at: [0, 0],
            scale: 1.0,
        }),
        Bench::memory(format!("zero/mistral-7b r=16 N={n}"), 4 * n, move |b| Op::Zero { out: b.out(1, n, F32) }),
    ]
}
