//! Cross-entropy of a chunk of rows.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{CONTROL_FIELDS, CrossEntropy, Op, Rows};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, vocab, gradient, wide) in
        [(1, 128, true, false), (37, 1003, true, true), (9, 32000, true, false), (20, 500, false, true)]
    {
        let name = format!("cross_entropy/T={live} V={vocab} gradient={gradient}");
        cases.push(
            Case::new(name, live, move |b| {
                // A chunk that starts at token 0; in some cases it is longer than the live rows.
                let rows = Rows::Chunk { start: 0, len: 30 };
                let n = rows.count(b.tokens());
                // Every third row is rounded to integers, so several logits tie for the largest.
                let mut values: Vec<f32> = (0..n * vocab).map(|_| 4.0 * b.gauss()).collect();
                values.chunks_mut(3 * vocab).for_each(|c| c[..vocab].iter_mut().for_each(|x| *x = x.round()));
                // Targets: the first of the largest logits, the last of them, the ignored index, or a random one.
                let target = |b: &mut crate::harness::Build, i: usize| {
                    let row = &values[i * vocab..][..vocab];
                    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    match i % 5 {
                        0 | 2 => row.iter().position(|x| *x == top).unwrap_or(0) as i32,
                        1 => row.iter().rposition(|x| *x == top).unwrap_or(0) as i32,
                        3 => -100,
                        _ => b.below(vocab) as i32,
                    }
                };
                let targets = (0..n).map(|i| target(b, i)).collect();
                let logits = b.buf(rows, vocab, DType::F32);
                let logits = b.float(logits, values);
                let targets = b.i32(rows, 1, targets);
                let weight = b.buf(rows, 1, DType::F32);
                let weight = b.float(weight, (0..n).map(|i| 1.0 / (1 + i) as f32).collect());
                let control = b.buf(Rows::Fixed(1), CONTROL_FIELDS, DType::F32);
                let control = b.float(control, [&[4.0][..], &[0.0; CONTROL_FIELDS - 1]].concat());
                let logp = b.buf(rows, 1, DType::F32);
                let dlogits = gradient.then(|| if wide { b.buf(rows, vocab, DType::F32) } else { b.elem(rows, vocab) });
                let hit = b.buf(rows, 1, DType::I32);
                Op::CrossEntropy(CrossEntropy { logits, targets, weight, control, logp, hit, dlogits })
            })
            .limits(5e-3, 1e-5),
        );
    }
    cases
}
