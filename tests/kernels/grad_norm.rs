//! Norm of the gradient, and the update decisions that depend on it.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{CONTROL_FIELDS, ControlRule, Op, Rows};

const ONE: Rows = Rows::Fixed(1);

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [1, 1000, 65536, 200_003]
        .into_iter()
        .map(|n: usize| {
            Case::new(format!("grad_norm/N={n}"), 1, move |b| {
                let grads = b.normal_f32(ONE, n, 1e-2);
                let partials = b.buf(ONE, n.div_ceil(65536), DType::F32);
                Op::GradNorm { grads, partials, norm: b.buf(ONE, 1, DType::F32) }
            })
            // The reference sums 65536 squares sequentially in f32.
            .limits(2.5e-3, 1e-4)
        })
        .collect();
    let infinite = f32::INFINITY;
    for (name, norm, max_norm, growth_interval, good) in [
        ("clipped", 30.0, Some(0.3), None, 0.0),
        ("not clipped", 0.01, Some(0.3), None, 0.0),
        ("without limit", 30.0, None, None, 0.0),
        ("f16 good", 30.0, Some(0.3), Some(3), 0.0),
        ("f16 grows", 30.0, Some(0.3), Some(3), 2.0),
        ("f16 overflow", infinite, Some(0.3), Some(3), 2.0),
        ("not finite", infinite, Some(0.3), None, 0.0),
    ] {
        cases.push(
            Case::new(format!("control/{name}"), 1, move |b| {
                let view = b.buf(ONE, 1, DType::F32);
                let norm = b.float(view, vec![norm]);
                let rates = b.buf(ONE, 5, DType::F32);
                let rates = b.float(rates, vec![0.0, 1e-4, 2e-4, 3e-4, 4e-4]);
                let control = b.buf(ONE, CONTROL_FIELDS, DType::F32);
                let control = b.float(control, vec![16.0, good, 3.0, 0.5, 7.0, 0.0, 9.0, 0.0]);
                Op::Control { rule: ControlRule { max_norm, growth_interval }, norm, rates, control }
            })
            .bits(),
        );
    }
    cases
}
