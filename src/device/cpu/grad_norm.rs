//! The norm of the gradient, and the decisions about an update that follow from it.

use super::real::Real;
use crate::op::{CONTROL_FIELDS, Control, ControlRule, NORM_PARTIAL};

/// Sums of squares of runs of [`NORM_PARTIAL`] elements, and the root of their sum.
pub fn grad_norm<A: Real>(grads: &[A]) -> (Vec<A>, A) {
    let partials: Vec<A> = grads.chunks(NORM_PARTIAL).map(sum_of_squares).collect();
    let norm = partials.iter().copied().sum::<A>().sqrt();
    (partials, norm)
}

/// By halves: one running f32 sum would be off by 1e-4 after some ten thousand terms.
fn sum_of_squares<A: Real>(values: &[A]) -> A {
    match values.len() {
        0..=64 => values.iter().map(|&x| x * x).sum(),
        n => {
            let (left, right) = values.split_at(n / 2);
            sum_of_squares(left) + sum_of_squares(right)
        }
    }
}

/// Updates the control buffer for one optimizer step, see [`Control`].
pub fn control<A: Real>(rule: &ControlRule, norm: A, rates: &[A], control: &mut [A]) {
    assert_eq!(control.len(), CONTROL_FIELDS);
    let at = |field: Control| field as usize;
    let scale = control[at(Control::LossScale)];
    let norm = norm / scale;
    let overflow = !norm.is_finite();
    control[at(Control::GradNorm)] = norm;
    control[at(Control::Skipped)] = if overflow { A::one() } else { A::zero() };
    if overflow {
        if rule.growth_interval.is_some() {
            control[at(Control::LossScale)] = scale * A::of(0.5);
            control[at(Control::GoodSteps)] = A::zero();
        }
        return;
    }
    let clip = rule.max_norm.map_or(A::one(), |max| (A::of(max) / (norm + A::of(1e-6))).min(A::one()));
    control[at(Control::GradScale)] = clip / scale;
    let step = control[at(Control::Step)].f64() as usize;
    control[at(Control::LearningRate)] = rates[step.min(rates.len() - 1)];
    control[at(Control::Step)] += A::one();
    if let Some(interval) = rule.growth_interval {
        control[at(Control::GoodSteps)] += A::one();
        if control[at(Control::GoodSteps)].f64() >= f64::from(interval) {
            control[at(Control::LossScale)] = scale * A::of(2.0);
            control[at(Control::GoodSteps)] = A::zero();
        }
    }
}
