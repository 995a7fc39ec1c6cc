//! Pointwise ops: sums, dropout, noise, casts, zeros, copies.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows, Transfer};

const T: Rows = Rows::Tokens(1);

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, d) in [(1, 8), (77, 344), (6, 4096)] {
        cases.push(
            Case::new(format!("add/T={live} D={d}"), live, move |b| {
                let (x, y) = (b.normal(T, d, 1.0), b.normal(T, d, 1.0));
                Op::Add { a: x, b: y, out: b.elem(T, d) }
            })
            .bits(),
        );
        for with_plus in [false, true] {
            cases.push(Case::new(format!("dropout/T={live} D={d} plus={with_plus}"), live, move |b| {
                let x = b.normal(T, d, 1.0);
                let seed = b.i32(Rows::Fixed(1), 2, vec![12345, -77]);
                let plus = with_plus.then(|| b.normal(T, d, 1.0));
                Op::Dropout { x, seed, site: 7, p: 0.1, plus, out: b.elem(T, d) }
            }));
        }
        for magnitude in [0.0, 0.037] {
            cases.push(
                Case::new(format!("noise/T={live} D={d} magnitude={magnitude}"), live, move |b| {
                    let x = b.normal(T, d, 1.0);
                    let seed = b.i32(Rows::Fixed(1), 2, vec![-9, 4711]);
                    let size = b.buf(Rows::Fixed(1), 1, DType::F32);
                    let magnitude = b.float(size, vec![magnitude]);
                    Op::Noise { x, seed, site: 3, magnitude, out: b.elem(T, d) }
                })
                .bits(),
            );
        }
        for dtype in [DType::F32, DType::I32] {
            cases.push(
                Case::new(format!("zero/T={live} D={d} {}", dtype.torch_name()), live, move |b| Op::Zero {
                    out: b.buf(T, d + 3, dtype),
                })
                .bits(),
            );
        }
    }
    cases.push(Case::new("zero/columns", 9, |b| Op::Zero { out: b.elem(T, 64).columns(16, 24) }).bits());
    // Three adapter tensors of rank 5, padded to 16 columns or rows.
    cases.push(
        Case::new("cast/parts=3 to columns", 4, |b| {
            let x = b.normal_f32(Rows::Fixed(3 * 40), 5, 1.0);
            Op::Cast { x, out: b.elem(Rows::Fixed(3 * 40), 16), parts: 3, at: [0, 0], scale: 1.0 }
        })
        .bits(),
    );
    cases.push(
        Case::new("cast/parts=3 to rows", 4, |b| {
            let x = b.normal_f32(Rows::Fixed(3 * 5), 40, 1.0);
            Op::Cast { x, out: b.elem(Rows::Fixed(3 * 16), 40), parts: 3, at: [0, 0], scale: 1.0 }
        })
        .bits(),
    );
    // The B's of two experts, in the second half of rows and ranks.
    cases.push(
        Case::new("cast/parts=2 to a corner", 4, |b| {
            let x = b.normal_f32(Rows::Fixed(2 * 20), 5, 1.0);
            Op::Cast { x, out: b.elem(Rows::Fixed(2 * 44), 16), parts: 2, at: [20, 8], scale: 0.7 }
        })
        .bits(),
    );
    for live in [1, 77] {
        cases.push(
            Case::new(format!("cast/T={live} to f32"), live, |b| {
                let x = b.normal(T, 24, 1.0);
                Op::Cast { x, out: b.buf(T, 24, DType::F32), parts: 1, at: [0, 0], scale: 1.0 }
            })
            .bits(),
        );
        cases.push(
            Case::new(format!("start/T={live}"), live, |b| {
                let from = b.normal(T, 24, 1.0);
                Op::Start { copy: Transfer { from, to: b.elem(T, 24) } }
            })
            .bits(),
        );
    }
    cases
}
