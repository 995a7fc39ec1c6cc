//! The type in which sums are kept: f32, or f64 for programs that only tests run.

use crate::dtype::DType;
use half::{bf16, f16};

/// An accumulator type.
pub trait Real: num_traits::Float + num_traits::NumAssign + std::iter::Sum + Send + Sync + 'static {
    /// Its storage type.
    const DTYPE: DType;

    /// Converts a constant.
    fn of(value: f64) -> Self;

    /// Converts to f64.
    fn f64(self) -> f64;

    /// The value after being stored as `dtype`.
    fn round_to(self, dtype: DType) -> Self {
        match dtype {
            DType::Bf16 => Self::of(f64::from(bf16::from_f32(self.f64() as f32))),
            DType::F16 => Self::of(f64::from(f16::from_f32(self.f64() as f32))),
            _ => self,
        }
    }
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;
    fn of(value: f64) -> Self {
        value as f32
    }
    fn f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const DTYPE: DType = DType::F64;
    fn of(value: f64) -> Self {
        value
    }
    fn f64(self) -> f64 {
        self
    }
}

/// `Σ a·b`, in eight partial sums that the compiler keeps in one vector register; their order is fixed.
pub fn dot<A: Real>(a: &[A], b: &[A]) -> A {
    let mut sums = [A::zero(); 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: A = a8.remainder().iter().zip(b8.remainder()).map(|(&x, &y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.into_iter().sum::<A>() + tail
}
