//! Causal attention of Mistral-7B over documents of 2048 tokens.

use crate::harness::{Bench, Buffers};
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::{Attention, AttentionBwd, Op, View};

pub fn benches(t: usize) -> Vec<Bench> {
    let (heads, kv_heads, d, length) = (32, 8, 128, t.min(2048));
    let scale = (d as f64).powf(-0.5);
    let pairs = t as f64 * (length as f64 + 1.0) / 2.0 * heads as f64;
    let qkv = move |b: &mut Buffers| -> [View; 3] {
        let all = b.normal(t, (heads + 2 * kv_heads) * d, Bf16, 1.0);
        let kv = kv_heads * d;
        [all.columns(0, heads * d), all.columns(heads * d, kv), all.columns(heads * d + kv, kv)]
    };
    let start = move |i: usize| i / length * length;
    let ranges = move |b: &mut Buffers| (b.i32(t, 1, move |i| start(i) as i32), b.i32(t, 1, |i| i as i32 + 1));
    vec![
        Bench::compute(format!("attention/mistral-7b T={t}"), pairs * 4.0 * d as f64, move |b| {
            let ([q, k, v], (lo, hi)) = (qkv(b), ranges(b));
            let (out, lse) = (b.out(t, heads * d, Bf16), b.out(t, heads, F32));
            Op::Attention(Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale })
        }),
        // Counts five products, as is usual.
        Bench::compute(format!("attention_bwd/mistral-7b T={t}"), pairs * 10.0 * d as f64, move |b| {
            let ([q, k, v], (lo, hi)) = (qkv(b), ranges(b));
            let (qlo, qhi) = (b.i32(t, 1, |i| i as i32), b.i32(t, 1, move |i| (start(i) + length).min(t) as i32));
            let (out, dout, lse) =
                (b.normal(t, heads * d, Bf16, 0.1), b.normal(t, heads * d, Bf16, 1.0), b.normal(t, heads, F32, 0.1));
            let delta = b.out(t, heads, F32);
            let (dq, dk, dv) = (b.out(t, heads * d, Bf16), b.out(t, kv_heads * d, Bf16), b.out(t, kv_heads * d, Bf16));
            #[rustfmt::skip]
            let op = Op::AttentionBwd(AttentionBwd { forward: Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale }, qlo, qhi, dout, delta, dq, dk, dv });
            op
        }),
    ]
}
