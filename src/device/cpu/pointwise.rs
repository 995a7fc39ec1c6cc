//! Element by element: sums, dropout, noise, casts.

use super::memory::Matrix;
use super::real::Real;
use crate::random::philox;
use rayon::prelude::*;

/// `a + b`.
pub fn add<A: Real>(a: &Matrix<A>, b: &Matrix<A>) -> Vec<A> {
    a.data().iter().zip(b.data()).map(|(&a, &b)| a + b).collect()
}

/// `plus + x · keep / (1 − p)`; element i is dropped if its random number is below p.
pub fn dropout<A: Real>(x: &Matrix<A>, seed: [u32; 2], site: u32, p: f64, plus: Option<&Matrix<A>>) -> Vec<A> {
    let scale = A::of((1.0 - p).recip());
    // p as a threshold on 32 random bits.
    let threshold = (p * 4_294_967_296.0) as u64;
    let mut out = plus.map_or_else(|| vec![A::zero(); x.data().len()], |p| p.data().to_vec());
    out.par_chunks_mut(4).zip(x.data().par_chunks(4)).enumerate().for_each(|(group, (out, x))| {
        let random = philox([group as u32, (group >> 32) as u32, site, 0], seed);
        for i in 0..x.len() {
            if u64::from(random[i]) >= threshold {
                out[i] += x[i] * scale;
            }
        }
    });
    out
}

/// `x + magnitude · u`, u in (−1, 1); with magnitude 0, x itself.
pub fn noise<A: Real>(x: &Matrix<A>, seed: [u32; 2], site: u32, magnitude: A) -> Vec<A> {
    let mut out = x.data().to_vec();
    if magnitude == A::zero() {
        return out; // −0 + 0 would be another number's bits
    }
    out.par_chunks_mut(4).enumerate().for_each(|(group, out)| {
        let random = philox([group as u32, (group >> 32) as u32, site, 0], seed);
        out.iter_mut().zip(random).for_each(|(x, r)| *x += magnitude * A::of(f64::from(signed_unit(r))));
    });
    out
}

/// The upper 23 bits of `random` as the middle of one of 2²³ equal parts of (−1, 1): exact in f32, symmetric about 0.
pub fn signed_unit(random: u32) -> f32 {
    ((random >> 9) as f32 + 0.5) * 2f32.powi(-22) - 1.0
}

/// Each of `parts` equal slabs of x, times `scale`, goes to row and column `at` of its slab of a `[rows, cols]` result; the rest
/// is zero.
pub fn cast<A: Real>(x: &Matrix<A>, parts: usize, [rows, cols]: [usize; 2], at: [usize; 2], scale: f64) -> Vec<A> {
    let (from, to) = (x.rows / parts, rows / parts);
    let mut out = vec![A::zero(); rows * cols];
    for i in 0..x.rows {
        let start = (i / from * to + i % from + at[0]) * cols + at[1];
        out[start..start + x.cols].iter_mut().zip(x.row(i)).for_each(|(to, x)| *to = *x * A::of(scale));
    }
    out
}
