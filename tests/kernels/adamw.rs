//! The three variants of AdamW over a table of ragged tensors. The 8-bit codes must equal the CPU's.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{AdamState, AdamW, Betas, CONTROL_FIELDS, Op, Rows, SEGMENT_FIELDS};

const ONE: Rows = Rows::Fixed(1);

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Torch,
    Bitsandbytes,
    Blockwise8,
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (form, name) in [(Form::Torch, "torch"), (Form::Bitsandbytes, "bnb32"), (Form::Blockwise8, "bnb8")] {
        for (decay, skipped) in [(0.0, false), (0.01, false), (0.01, true)] {
            let name = format!("adamw/{name} decay={decay} skipped={skipped}");
            cases.push(Case::new(name, 1, move |b| op(b, form, decay, skipped)).limits(2.5e-3, 1e-6));
        }
    }
    cases
}

fn op(b: &mut crate::harness::Build, form: Form, decay: f32, skipped: bool) -> Op {
    // Lengths around blocks of 256, and one tensor that several thread blocks share; the expert of the fourth tensor
    // received no token.
    let lengths = [1usize, 256, 257, 5000, 70_001];
    let n: usize = lengths.iter().sum();
    let (mut table, mut at, mut block) = (Vec::new(), 0, 0);
    for (i, length) in lengths.iter().enumerate() {
        let touched = if i >= 3 { i as i64 - 3 } else { -1 };
        let row: [i64; SEGMENT_FIELDS] = [at, *length as i64, at, block, touched];
        table.extend(row);
        at += *length as i64;
        block += length.div_ceil(256) as i64;
    }
    let count = lengths.len();
    let segments = b.i64(Rows::Fixed(count), SEGMENT_FIELDS, table);
    let rates = b.buf(Rows::Fixed(count), 2, DType::F32);
    let rates = b.float(rates, (0..count).flat_map(|i| [1.0 + i as f32, decay]).collect());
    let steps = b.i32(Rows::Fixed(count), 1, (0..count as i32).map(|i| i * 7).collect());
    let touched = b.i32(ONE, 2, vec![0, 1]);
    let control = b.buf(ONE, CONTROL_FIELDS, DType::F32);
    let control = b.float(control, vec![1.0, 0.0, 5.0, 0.7, 1e-3, f32::from(skipped), 1.0, 0.0]);
    let (master, grads) = (b.normal_f32(ONE, n, 0.1), b.normal_f32(ONE, n, 1e-3));
    let betas = Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let state = if form == Form::Blockwise8 {
        let codes = |b: &mut crate::harness::Build| {
            let codes = (0..n).map(|_| b.below(256) as u8).collect();
            b.u8(ONE, n, codes)
        };
        let scales = |b: &mut crate::harness::Build, scale: f32| {
            let view = b.buf(ONE, block as usize, DType::F32);
            let values = (0..block).map(|_| (1.0 + 0.1 * b.gauss()) * scale).collect();
            b.float(view, values)
        };
        AdamState::Blockwise8 { m: codes(b), v: codes(b), absmax_m: scales(b, 1e-3), absmax_v: scales(b, 1e-6) }
    } else {
        let m = b.normal_f32(ONE, n, 1e-3);
        let v = b.buf(ONE, n, DType::F32);
        let squares = (0..n).map(|_| b.gauss().powi(2) * 1e-6).collect();
        let v = b.float(v, squares);
        if form == Form::Torch { AdamState::Torch { m, v } } else { AdamState::Bitsandbytes { m, v } }
    };
    Op::AdamW(AdamW { state, betas, master, grads, segments, rates, steps, touched, control })
}
