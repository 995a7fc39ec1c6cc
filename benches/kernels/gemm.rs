//! The products of Mistral-7B's layer, those of its adapters, and those of Mixtral's experts.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32};
use halfbyte_core::op::{Form, Gemm, Groups, Op, Term};

pub fn benches(t: usize) -> Vec<Bench> {
    let mut benches = Vec::new();
    // name, output features, input features
    let linears = if t < 1024 {
        vec![("kv", 1024, 4096)]
    } else {
        vec![("qkv", 6144, 4096), ("o", 4096, 4096), ("gate|up", 28672, 4096), ("down", 4096, 14336)]
    };
    for (name, n, k) in linears {
        let flops = 2.0 * t as f64 * n as f64 * k as f64;
        benches.push(Bench::compute(format!("gemm_nt/mistral-7b {name} T={t}"), flops, move |b| {
            let (a, w) = (b.normal(t, k, Bf16, 1.0), b.normal(n, k, Bf16, 0.02));
            let out = b.out(t, n, Bf16);
            Op::Gemm(Gemm::nt(a, w, out))
        }));
        benches.push(Bench::compute(format!("gemm_nn/mistral-7b {name} T={t}"), flops, move |b| {
            let (a, w) = (b.normal(t, n, Bf16, 1.0), b.normal(n, k, Bf16, 0.02));
            let out = b.out(t, k, Bf16);
            Op::Gemm(Gemm { form: Form::Nn, ..Gemm::nt(a, w, out) })
        }));
    }
    // With the term of an adapter of rank 16, and of q|k|v.
    for (n, ranks) in if t < 1024 { vec![] } else { vec![(4096, 16), (6144, 48)] } {
        let flops = 2.0 * t as f64 * n as f64 * (4096 + ranks) as f64;
        benches.push(Bench::compute(format!("gemm_nt/mistral-7b n={n} term={ranks} T={t}"), flops, move |b| {
            let (a, w) = (b.normal(t, 4096, Bf16, 1.0), b.normal(n, 4096, Bf16, 0.02));
            let term = Term { a: b.normal(t, ranks, Bf16, 1.0), b: b.normal(n, ranks, Bf16, 0.02) };
            Op::Gemm(Gemm { term: Some(term), ..Gemm::nt(a, w, b.out(t, n, Bf16)) })
        }));
    }
    // Eight experts share 2·t rows unevenly.
    let (n, k) = if t < 1024 { (64, 128) } else { (4096, 14336) };
    let flops = 2.0 * 2.0 * t as f64 * n as f64 * k as f64;
    for (name, form, from, to) in [("grouped_nt", Form::Nt, k, n), ("grouped_nn", Form::Nn, n, k)] {
        benches.push(Bench::compute(format!("{name}/mixtral down T={t}"), flops, move |b| {
            let offsets = b.i32(9, 1, move |e| (2 * t * e * e / 64) as i32);
            let (a, w, out) =
                (b.normal(2 * t, from, Bf16, 1.0), b.normal(8 * n, k, Bf16, 0.02), b.out(2 * t, to, Bf16));
            Op::Gemm(Gemm { form, groups: Some(Groups { offsets, count: 8 }), ..Gemm::nt(a, w, out) })
        }));
    }
    // x·Aᵀ reads x; dA reads x; dB reads dy. Ranks of one adapter, of gate|up and of q|k|v.
    let d = 4096;
    for r in [16, 32, 48] {
        benches.push(Bench::memory(format!("gemm_nt/lora x*A^T r={r} T={t}"), t * d * 2, move |b| {
            let (a, w) = (b.normal(t, d, Bf16, 1.0), b.normal(r, d, Bf16, 0.02));
            Op::Gemm(Gemm::nt(a, w, b.out(t, r, Bf16)))
        }));
        benches.push(Bench::memory(format!("gemm_nn/lora dy*B r={r} T={t}"), t * d * 2, move |b| {
            let (a, w) = (b.normal(t, d, Bf16, 1.0), b.normal(d, r, Bf16, 0.02));
            Op::Gemm(Gemm { form: Form::Nn, ..Gemm::nt(a, w, b.out(t, r, Bf16)) })
        }));
        benches.push(Bench::memory(format!("gemm_tn/lora dA r={r} T={t}"), t * d * 2, move |b| {
            let (a, x, out) = (b.normal(t, r, Bf16, 1.0), b.normal(t, d, Bf16, 1.0), b.out(r, d, F32));
            Op::Gemm(Gemm { form: Form::Tn, plus: Some(out), ..Gemm::nt(a, x, out) })
        }));
        benches.push(Bench::memory(format!("gemm_tn/lora dB r={r} T={t}"), t * d * 2, move |b| {
            let (dy, a, out) = (b.normal(t, d, Bf16, 1.0), b.normal(t, r, Bf16, 1.0), b.out(d, r, F32));
            Op::Gemm(Gemm { form: Form::Tn, plus: Some(out), ..Gemm::nt(dy, a, out) })
        }));
    }
    benches
}
