//! Row gather.

use crate::harness::Case;
use halfbyte_core::op::{Op, Rows};

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 64, 11), (37, 40, 32000), (130, 4096, 500)];
    let case = |(live, d, vocab): (usize, usize, usize)| {
        Case::new(format!("embed/T={live} D={d} V={vocab}"), live, move |b| {
            let ids = (0..b.tokens()).map(|_| b.below(vocab) as i32).collect();
            let ids = b.i32(Rows::Tokens(1), 1, ids);
            let table = b.normal(Rows::Fixed(vocab), d, 1.0);
            // The left half of a wider buffer.
            let out = b.elem(Rows::Tokens(1), 2 * d).columns(d, d);
            Op::Embed { ids, table, out }
        })
        .bits()
    };
    let mut cases: Vec<Case> = shapes.into_iter().map(case).collect();
    // The rows of experts: two per token.
    cases.push(
        Case::new("embed/T=33 D=128 permuted", 33, |b| {
            let ids = (0..2 * b.tokens()).map(|_| b.below(33) as i32).collect();
            let ids = b.i32(Rows::Tokens(2), 1, ids);
            let table = b.normal(Rows::Tokens(1), 128, 1.0);
            let out = b.elem(Rows::Tokens(2), 128);
            Op::Embed { ids, table, out }
        })
        .bits(),
    );
    cases
}
