//! Row gather: `out[i] = table[ids[i]]`.

use super::memory::Matrix;
use super::real::Real;

/// ids `[n]`, table `[V,D]`; returns `[n,D]`.
pub fn embed<A: Real>(ids: &[i32], table: &Matrix<A>) -> Vec<A> {
    ids.iter().flat_map(|&id| table.row(id as usize).iter().copied()).collect()
}
