//! Rotary position embedding (Su et al. 2021) in HF's half-split layout: element i of a head turns with element i + d/2.

use super::memory::Matrix;
use super::real::Real;
use crate::dtype::DType;
use rayon::prelude::*;

/// x `[T, heads·d]`, pos `[T]`, inv_freq `[d/2]`; returns the turned x. Angles are f32 products as in HF (in f64 an angle at
/// position 10⁴ is already another one); cos and sin are rounded to the storage type, as HF casts them.
pub fn rope<A: Real>(x: &Matrix<A>, pos: &[i32], inv_freq: &[A], inverse: bool, storage: DType) -> Vec<A> {
    let half = inv_freq.len();
    let mut out = x.data().to_vec();
    out.par_chunks_mut(x.cols).zip(pos).for_each(|(row, &pos)| {
        for i in 0..half {
            let angle = A::of(f64::from(pos)) * inv_freq[i];
            let (sin, cos) = angle.sin_cos();
            let (sin, cos) = (sin.round_to(storage), cos.round_to(storage));
            let sin = if inverse { -sin } else { sin };
            for head in row.chunks_exact_mut(2 * half) {
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    });
    out
}
