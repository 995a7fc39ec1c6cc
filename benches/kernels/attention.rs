//! Causal attention with the heads of Mistral-7B, and with heads half as wide, over documents of several lengths.

use crate::harness::{Bench, Buffers};
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::{Attention, AttentionBwd, Op, View};

const HEADS: usize = 32;
const KV_HEADS: usize = 8;

pub fn benches(t: usize) -> Vec<Bench> {
    let sizes: &[(usize, usize)] =
        if t < 8192 { &[(t, 128)] } else { &[(2048, 128), (512, 128), (8192, 128), (2048, 64)] };
    sizes.iter().flat_map(|&(length, d)| both(t, length, d)).collect()
}

/// Forward and backward for t tokens in documents of `length`.
fn both(t: usize, length: usize, d: usize) -> [Bench; 2] {
    let scale = (d as f64).powf(-0.5);
    let pairs = t as f64 * (length as f64 + 1.0) / 2.0 * HEADS as f64;
    let shape = format!("{}x{length} {HEADS}/{KV_HEADS} heads of {d}", t / length);
    let qkv = move |b: &mut Buffers| -> [View; 3] {
        let all = b.normal(t, (HEADS + 2 * KV_HEADS) * d, Bf16, 1.0);
        let kv = KV_HEADS * d;
        [all.columns(0, HEADS * d), all.columns(HEADS * d, kv), all.columns(HEADS * d + kv, kv)]
    };
    let start = move |i: usize| i / length * length;
    let ranges = move |b: &mut Buffers| (b.i32(t, 1, move |i| start(i) as i32), b.i32(t, 1, |i| i as i32 + 1));
    let (heads, kv_heads) = (HEADS, KV_HEADS);
    [
        Bench::compute(format!("attention/{shape}"), pairs * 4.0 * d as f64, move |b| {
            let ([q, k, v], (lo, hi)) = (qkv(b), ranges(b));
            let (out, lse) = (b.out(t, heads * d, Bf16), b.out(t, heads, F32));
            Op::Attention(Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale })
        }),
        // Counts five products, as is usual.
        Bench::compute(format!("attention_bwd/{shape}"), pairs * 10.0 * d as f64, move |b| {
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
