//! Mixtral's routing: bound by latency, its bytes are few.

use crate::harness::Bench;
use halfbyte::dtype::DType::{Bf16, F32, I32};
use halfbyte::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    vec![Bench::memory(format!("route/mixtral T={t}"), t * (16 + 8 + 8 + 8 + 8), move |b| {
        let logits = b.normal(t, 8, Bf16, 1.0);
        Op::Route {
            logits,
            weights: b.out(t, 2, F32),
            experts: b.out(t, 2, I32),
            slots: b.out(t, 2, I32),
            source: b.out(2 * t, 1, I32),
            offsets: b.out(9, 1, I32),
            touched: None,
        }
    })]
}
