//! Queries and keys of Mistral-7B: 40 heads of a fused q|k|v output.

use crate::harness::Bench;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::Op;

pub fn benches(t: usize) -> Vec<Bench> {
    let bench = |name: &str, inverse| {
        Bench::memory(format!("{name}/mistral-7b T={t}"), 2 * t * 5120 * 2, move |b| {
            let x = b.normal(t, 6144, DType::Bf16, 1.0).columns(0, 5120);
            let pos = b.i32(t, 1, |i| (i % 2048) as i32);
            Op::Rope { x, pos, inv_freq: b.normal(1, 64, DType::F32, 0.1), inverse }
        })
    };
    vec![bench("rope", false), bench("rope_bwd", true)]
}
