//! Token embeddings, and the gather of expert rows.

use crate::harness::Bench;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    // Gathers `to` rows from a table of `from` rows.
    let bench = |name: &str, from: usize, to: usize| {
        Bench::memory(format!("embed/{name} T={t}"), 2 * to * 4096 * 2, move |b| {
            let ids = b.i32(to, 1, move |i| (i * 7919 % from) as i32);
            let table = b.normal(from, 4096, DType::Bf16, 1.0);
            Op::Embed { ids, table, out: b.out(to, 4096, DType::Bf16) }
        })
    };
    vec![bench("mistral-7b", 32000, t), bench("mixtral rows of experts", t, 2 * t)]
}
