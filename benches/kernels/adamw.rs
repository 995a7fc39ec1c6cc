//! AdamW over Mistral-7B's adapter, rank 16 on all seven linears: 448 tensors.

use crate::harness::{Bench, Buffers};
use halfbyte_core::dtype::DType::{F32, U8};
use halfbyte_core::op::{AdamState, AdamW, Betas, CONTROL_FIELDS, Op};

pub fn benches(t: usize) -> Vec<Bench> {
    // 14 tensors per layer; on the CPU only one layer.
    let layers = if t < 1024 { 1 } else { 32 };
    let (d, kv, f) = (4096i64, 1024, 14336);
    let layer = [d, d, d, kv, d, kv, d, d, d, f, d, f, f, d].map(|side| side * 16);
    let n = layers * layer.iter().sum::<i64>() as usize;
    let bench = move |name: &str, bytes: usize, state: fn(&mut Buffers, usize) -> AdamState| {
        Bench::memory(format!("adamw/mistral-7b r=16 {name}"), bytes * n, move |b| {
            let mut table = Vec::new();
            let (mut at, mut block) = (0, 0);
            for length in layer.iter().cycle().take(14 * layers) {
                table.extend([at, *length, at, block, -1]);
                at += length;
                block += length / 256;
            }
            let count = 14 * layers;
            let ones = |b: &mut Buffers, rows, cols| b.normal(rows, cols, F32, 1e-4);
            Op::AdamW(AdamW {
                state: state(b, n),
                betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
                master: b.normal(1, n, F32, 0.01),
                grads: b.normal(1, n, F32, 1e-3),
                segments: b.i64(count, 5, &table),
                rates: ones(b, count, 2),
                steps: b.i32(count, 1, |_| 5),
                touched: b.i32(1, 1, |_| 1),
                // All fields are zero, so the update is not skipped and changes nothing.
                control: b.out(1, CONTROL_FIELDS, F32),
            })
        })
    };
    vec![
        bench("torch", 28, |b, n| AdamState::Torch { m: b.normal(1, n, F32, 1e-3), v: b.out(1, n, F32) }),
        bench("8 bit", 16, |b, n| AdamState::Blockwise8 {
            m: b.u8(1, n),
            v: b.out(1, n, U8),
            absmax_m: b.normal(1, n / 256, F32, 1e-3),
            absmax_v: b.out(1, n / 256, F32),
        }),
    ]
}
