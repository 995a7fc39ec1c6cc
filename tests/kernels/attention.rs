//! Attention over packed documents, with windows, forward and backward.

use crate::harness::{Build, Case};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Attention, AttentionBwd, Op, Rows, View};

const T: Rows = Rows::Tokens(1);

/// Ranges lo, hi, qlo, qhi for documents of these lengths: causal, with at most `window` keys per query. A negative length
/// stands for tokens that see nothing and are not seen.
fn ranges(b: &mut Build, documents: &[isize], window: usize) -> [View; 4] {
    let mut rows: [Vec<i32>; 4] = Default::default();
    let mut start = 0;
    for &document in documents {
        let length = document.unsigned_abs();
        for i in start..start + length {
            let values = match document > 0 {
                true => [(i + 1).saturating_sub(window).max(start), i + 1, i, (i + window).min(start + length)],
                false => [i; 4],
            };
            rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value as i32));
        }
        start += length;
    }
    rows.map(|mut row| {
        row.resize(b.tokens(), 0);
        b.i32(T, 1, row)
    })
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let far = usize::MAX / 2;
    // Documents, window, heads, key heads, size of a head. The last ones have more jobs than a card has multiprocessors.
    let shapes: [(&[isize], usize, usize, usize, usize); 15] = [
        (&[1], far, 1, 1, 64),
        (&[77], far, 4, 2, 32),
        (&[1, 1, 60, 1, 100], far, 4, 1, 64),
        (&[150, 50], 33, 2, 2, 96),
        (&[70, 1, 140], 50, 4, 2, 16),
        (&[130], far, 8, 2, 128),
        (&[64, 64, 3], 40, 4, 4, 128),
        (&[300], 64, 2, 1, 128),
        (&[128], far, 2, 1, 128),
        (&[-1, 100, -130, 30], far, 2, 1, 128),
        (&[-140], far, 4, 2, 64),
        (&[5, -300, 150, -40, 200], 70, 4, 1, 64),
        (&[400, 129], far, 2, 2, 64),
        (&[100, 60, 1, 100, 39], far, 64, 8, 64),
        (&[90, -129, 70], far, 64, 4, 128),
    ];
    for (documents, window, heads, kv_heads, d) in shapes {
        let live: usize = documents.iter().map(|d| d.unsigned_abs()).sum();
        let many = heads == 64;
        let shape = format!("{documents:?} heads={heads}/{kv_heads} d={d} window={}", window.min(9999));
        let scale = (d as f64).powf(-0.5);
        let qkv = move |b: &mut Build| {
            let all = b.elem(T, (heads + 2 * kv_heads) * d);
            let all = b.fill(all, 1.0);
            let kv = kv_heads * d;
            [all.columns(0, heads * d), all.columns(heads * d, kv), all.columns(heads * d + kv, kv)]
        };
        let repeated = |case: Case| if many { case.repeated() } else { case };
        cases.push(repeated(
            Case::new(format!("attention/{shape}"), live, move |b| {
                let ([q, k, v], [lo, hi, _, _]) = (qkv(b), ranges(b, documents, window));
                let (out, lse) = (b.elem(T, heads * d), b.buf(T, heads, DType::F32));
                Op::Attention(Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale })
            })
            .limits(4e-3, 1e-4),
        ));
        cases.push(repeated(
            Case::new(format!("attention_bwd/{shape}"), live, move |b| {
                let ([q, k, v], [lo, hi, qlo, qhi]) = (qkv(b), ranges(b, documents, window));
                // The op accepts any output and log-sum-exp as inputs; these are close to those of a forward pass.
                let (out, dout) = (b.normal(T, heads * d, 0.3), b.normal(T, heads * d, 1.0));
                let lse = b.buf(T, heads, DType::F32);
                let values = (0..live + 5).flat_map(|_| vec![4.5; heads]).collect();
                let lse = b.float(lse, values);
                let delta = b.buf(T, heads, DType::F32);
                let (dq, dk, dv) = (b.elem(T, heads * d), b.elem(T, kv_heads * d), b.elem(T, kv_heads * d));
                #[rustfmt::skip]
                let op = Op::AttentionBwd(AttentionBwd { forward: Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale }, qlo, qhi, dout, delta, dq, dk, dv });
                op
            })
            .limits(1e-2, 1e-4),
        ));
    }
    cases
}
