//! Token embeddings, and the rows of experts.

use crate::harness::Bench;
use halfbyte::dtype::DType;
use halfbyte::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    vec![Bench::memory(format!("embed/mistral-7b T={t}"), 2 * t * 4096 * 2, move |b| {
        let ids = b.i32(t, 1, |i| (i * 7919 % 32000) as i32);
        let table = b.normal(32000, 4096, DType::Bf16, 1.0);
        Op::Embed { ids, table, out: b.out(t, 4096, DType::Bf16) }
    })]
}
