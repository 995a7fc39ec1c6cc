//! Combining Mixtral-8x7B's expert outputs.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    let d = 4096;
    // 7919 is prime and does not divide 2·t, so this is a permutation of the 2·t rows.
    let slot = move |i: usize| (i * 7919 % (2 * t)) as i32;
    vec![
        Bench::memory(format!("combine/mixtral T={t}"), 4 * t * d * 2, move |b| {
            let (y, weights) = (b.normal(2 * t, d, Bf16, 1.0), b.normal(t, 2, F32, 0.5));
            let (slots, plus) = (b.i32(t, 2, slot), b.normal(t, d, Bf16, 1.0));
            Op::Combine { y, weights: Some(weights), slots, plus: Some(plus), out: b.out(t, d, Bf16) }
        }),
        Bench::memory(format!("combine_bwd/mixtral T={t}"), 5 * t * d * 2, move |b| {
            let (dout, y) = (b.normal(t, d, Bf16, 1.0), b.normal(2 * t, d, Bf16, 1.0));
            let (weights, slots) = (b.normal(t, 2, F32, 0.5), b.i32(t, 2, slot));
            Op::CombineBwd { dout, y, weights, slots, dy: b.out(2 * t, d, Bf16), dweights: b.out(t, 2, F32) }
        }),
    ]
}
