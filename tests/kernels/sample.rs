//! Sampling: all devices must choose the same token. In these cases, probabilities differ by far more than the last
//! bits of the exponential, so no draw falls between the cumulative sums of two devices.

use crate::harness::Case;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Op, Rows, SAMPLE_FIELDS};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, vocab) in [(1, 32), (3, 320), (2, 1003), (2, 32000), (1, 131_072)] {
        for (temperature, top_k, top_p) in [
            (0.0, 0.0, 1.0),
            (1.0, 0.0, 1.0),
            (0.7, 50.0, 1.0),
            (1.3, 0.0, 0.9),
            (0.8, 40.0, 0.95),
            (1.0, 1.0, 0.5),
            (0.05, 1e6, 1e-4),
        ] {
            let name = format!("sample/n={rows} V={vocab} temperature={temperature} k={top_k} p={top_p}");
            cases.push(Case::new(name, 1, move |b| {
                let fixed = Rows::Fixed(rows);
                // The last row holds integers, so many logits tie, including zeros of both signs.
                let mut values: Vec<f32> = (0..rows * vocab).map(|_| 3.0 * b.gauss()).collect();
                values[(rows - 1) * vocab..].iter_mut().for_each(|x| *x = x.round());
                let logits = b.buf(fixed, vocab, DType::F32);
                let logits = b.float(logits, values);
                let rule = b.buf(Rows::Fixed(1), SAMPLE_FIELDS, DType::F32);
                let rule = b.float(rule, vec![temperature, top_k, top_p]);
                let seed = vec![b.below(1 << 31) as i32, -5];
                let seed = b.i32(Rows::Fixed(1), 2, seed);
                Op::Sample { logits, rule, seed, token: b.buf(fixed, 1, DType::I32) }
            }));
        }
    }
    for (what, bad) in [("NaN", f32::NAN), ("infinity", f32::INFINITY)] {
        cases.push(Case::new(format!("sample/{what} in the second row"), 1, move |b| {
            let mut values: Vec<f32> = (0..3 * 50).map(|_| b.gauss()).collect();
            values[77] = bad;
            let logits = b.buf(Rows::Fixed(3), 50, DType::F32);
            let logits = b.float(logits, values);
            let rule = b.buf(Rows::Fixed(1), SAMPLE_FIELDS, DType::F32);
            let rule = b.float(rule, vec![1.0, 0.0, 0.9]);
            let seed = b.i32(Rows::Fixed(1), 2, vec![1, 2]);
            Op::Sample { logits, rule, seed, token: b.buf(Rows::Fixed(3), 1, DType::I32) }
        }));
    }
    cases
}
