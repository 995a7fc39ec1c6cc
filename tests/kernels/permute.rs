//! Combines rows sorted by expert back into tokens.

use crate::harness::{Build, Case};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows, View};

const T: Rows = Rows::Tokens(1);

/// A random permutation of the rows, `choices` per token.
fn slots(b: &mut Build, live: usize, choices: usize) -> View {
    let mut rows: Vec<i32> = (0..(choices * live) as i32).collect();
    for i in (1..rows.len()).rev() {
        rows.swap(i, b.below(i + 1));
    }
    rows.resize(choices * b.tokens(), 0);
    b.i32(T, choices, rows)
}

/// Routing weights, in the compute type or f32.
fn weights(b: &mut Build, choices: usize, wide: bool) -> View {
    let view = if wide { b.buf(T, choices, DType::F32) } else { b.elem(T, choices) };
    let values = (0..choices * b.tokens()).map(|_| (0.5 + 0.1 * b.gauss()).abs()).collect();
    b.float(view, values)
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, d, choices) in [(1, 64, 2), (33, 4096, 2), (70, 40, 2), (41, 2048, 8), (5, 72, 1)] {
        for (weighted, added) in [(true, true), (true, false), (false, false)] {
            let name = format!("combine/T={live} D={d} K={choices} weights={weighted} plus={added}");
            cases.push(
                Case::new(name, live, move |b| {
                    let y = b.normal(Rows::Tokens(choices), d, 1.0);
                    let weights = weighted.then(|| weights(b, choices, d == 40));
                    let slots = slots(b, live, choices);
                    let plus = added.then(|| b.normal(T, d, 1.0));
                    Op::Combine { y, weights, slots, plus, out: b.elem(T, d) }
                })
                .limits(3e-3, 1e-6),
            );
        }
        for wide in [true, false] {
            cases.push(
                Case::new(format!("combine_bwd/T={live} D={d} K={choices} wide={wide}"), live, move |b| {
                    let (dout, y) = (b.normal(T, d, 1.0), b.normal(Rows::Tokens(choices), d, 1.0));
                    let (weights, slots) = (weights(b, choices, wide), slots(b, live, choices));
                    let dweights = if wide { b.buf(T, choices, DType::F32) } else { b.elem(T, choices) };
                    Op::CombineBwd { dout, y, weights, slots, dy: b.elem(Rows::Tokens(choices), d), dweights }
                })
                .limits(5e-3, 1e-5),
            );
        }
    }
    cases
}
