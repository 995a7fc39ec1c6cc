//! `silu(gate) · up` (Shazeer 2020), silu(x) = x·σ(x).

use super::memory::Matrix;
use super::real::Real;
use rayon::prelude::*;

fn sigmoid<A: Real>(x: A) -> A {
    (A::one() + (-x).exp()).recip()
}

/// gate, up `[n,F]`; returns `[n,F]`.
pub fn swiglu<A: Real>(gate: &Matrix<A>, up: &Matrix<A>) -> Vec<A> {
    gate.data().par_iter().zip(up.data()).map(|(&g, &u)| g * sigmoid(g) * u).collect()
}

/// Returns dgate and dup.
pub fn swiglu_bwd<A: Real>(dout: &Matrix<A>, gate: &Matrix<A>, up: &Matrix<A>) -> (Vec<A>, Vec<A>) {
    let of_one = |((&d, &g), &u): ((&A, &A), &A)| {
        let s = sigmoid(g);
        (d * u * s * (A::one() + g * (A::one() - s)), d * g * s)
    };
    dout.data().par_iter().zip(gate.data()).zip(up.data()).map(of_one).unzip()
}
