//! Rotary position embedding, forward and inverse.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows};

const T: Rows = Rows::Tokens(1);

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for inverse in [false, true] {
        for (live, heads, d) in [(1, 1, 64), (77, 3, 32), (20, 5, 96), (9, 8, 128)] {
            let name = format!("rope/T={live} heads={heads} d={d} inverse={inverse}");
            let case = Case::new(name, live, move |b| {
                // The keys in a fused q|k|v output.
                let x = b.elem(T, (heads + 2) * d).columns(d, heads * d);
                let x = b.fill(x, 1.0);
                // Includes large positions, for which the angle's f32 rounding matters.
                let pos = (0..b.tokens()).map(|i| (i * 977 % 32768) as i32).collect();
                let pos = b.i32(T, 1, pos);
                let freq = (0..d / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / d as f32)).collect();
                let inv_freq = b.buf(Rows::Fixed(1), d / 2, DType::F32);
                Op::Rope { x, pos, inv_freq: b.float(inv_freq, freq), inverse }
            });
            // Covers the rounding of cos and sin, and of the result.
            cases.push(case.limits(4e-3, 1e-6));
        }
    }
    cases
}
