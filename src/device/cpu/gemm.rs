//! The three products of a linear layer, plain and grouped by expert, through the `gemm` crate.

use super::memory::Matrix;
use super::real::Real;
use crate::op::Form;

/// A dense row-major operand of a product.
#[derive(Clone, Copy)]
struct Slab<'a, A> {
    data: &'a [A],
    rows: usize,
    cols: usize,
}

impl<'a, A: Real> Slab<'a, A> {
    fn of(matrix: &'a Matrix<A>) -> Self {
        Slab { data: matrix.data(), rows: matrix.rows, cols: matrix.cols }
    }
    /// Rows `from .. to`.
    fn rows(self, from: usize, to: usize) -> Self {
        Slab { data: &self.data[from * self.cols..to * self.cols], rows: to - from, cols: self.cols }
    }
}

/// Floating-point operations a second, measured in a few milliseconds on a product of the size of a small model's.
pub fn measured_flops() -> f64 {
    let (m, k, n) = (512, 256, 512);
    let (a, b, mut out) = (vec![0.5_f32; m * k], vec![0.25_f32; n * k], vec![0.0_f32; m * n]);
    let seconds = super::median(|| product(&mut out, (m, k, n), (&a, k, 1), (&b, 1, k), 1.0));
    (2 * m * k * n) as f64 / seconds
}

/// `out = plus + scale · Σ product(a, b)` over the pairs (a, b) of `products`, in one chain of sums. `offsets` (ascending, one more
/// than there are experts) groups the rows of the token-sided operands; without it there is one group. Returns the rows that `out`
/// has; rows of no group are zero.
pub fn gemm<A: Real>(
    form: Form,
    products: &[(&Matrix<A>, &Matrix<A>)],
    scale: f64,
    plus: Option<&Matrix<A>>,
    offsets: Option<&[i32]>,
) -> Vec<A> {
    let (a, b) = products[0];
    let whole = [0, a.rows as i32];
    let offsets = offsets.unwrap_or(&whole);
    let count = offsets.len() - 1;
    let (rows, cols) = match form {
        Form::Nt => (a.rows, b.rows / count),
        Form::Nn => (a.rows, b.cols),
        Form::Tn => (count * a.cols, b.cols),
    };
    let mut out = plus.map_or_else(|| vec![A::zero(); rows * cols], |p| p.data().to_vec());
    for (e, pair) in offsets.windows(2).enumerate() {
        let (from, to) = (pair[0] as usize, pair[1] as usize);
        if from == to {
            continue;
        }
        for &(a, b) in products {
            let (x, b) = (Slab::of(a).rows(from, to), Slab::of(b));
            // Rows of the weight-sided matrix that one expert has.
            let each = b.rows / count;
            let (slab, m, k, lhs, b) = match form {
                Form::Tn => (e * a.cols..(e + 1) * a.cols, a.cols, x.rows, (x.data, 1, x.cols), b.rows(from, to)),
                _ => (from..to, x.rows, x.cols, (x.data, x.cols, 1), b.rows(e * each, (e + 1) * each)),
            };
            let rhs = if form == Form::Nt { (b.data, 1, b.cols) } else { (b.data, b.cols, 1) };
            product(&mut out[slab.start * cols..slab.end * cols], (m, k, cols), lhs, rhs, scale);
        }
    }
    out
}

/// `out[m,n] += scale · lhs[m,k] · rhs[k,n]`; operands as (data, stride of a row, stride of a column).
fn product<A: Real>(
    out: &mut [A],
    (m, k, n): (usize, usize, usize),
    lhs: (&[A], usize, usize),
    rhs: (&[A], usize, usize),
    scale: f64,
) {
    assert!(out.len() == m * n && lhs.0.len() == m * k && rhs.0.len() == k * n);
    // Threads share out rows and columns of the result, never the sum over k, so the bits do not depend on them.
    let parallelism = if m * n * k < 64 * 64 * 64 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(0) };
    // SAFETY: the three lengths were checked above against the shapes, and the strides are those of dense matrices of
    // these shapes (row-major, or its transpose), so every access is inside of its slice; out is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            lhs.0.as_ptr(),
            lhs.2 as isize,
            lhs.1 as isize,
            rhs.0.as_ptr(),
            rhs.2 as isize,
            rhs.1 as isize,
            A::one(),
            A::of(scale),
            false,
            false,
            false,
            parallelism,
        );
    }
}
