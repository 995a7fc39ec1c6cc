//! A few rows times a 4-bit weight.

use super::gemm::gemm;
use super::memory::Matrix;
use super::real::Real;
use crate::dtype::DType;
use crate::op::Form;

/// `x · Wᵀ`. x `[n,K]`, weights `[N,K]` row by row; they are rounded to `dtype` first, as a dequantized weight is when it is
/// stored. Returns `[n,N]`.
pub fn gemv<A: Real>(x: &Matrix<A>, weights: Vec<A>, dtype: DType) -> Vec<A> {
    let (rows, cols) = (weights.len() / x.cols, x.cols);
    let weights = Matrix::new(rows, cols, weights.into_iter().map(|w| w.round_to(dtype)).collect());
    gemm(Form::Nt, &[(x, &weights)], 1.0, None, None)
}
