//! AdamW on one tensor, in three forms that differ in the order of roundings:
//!
//! * [`torch`]: `torch.optim.AdamW` (single-tensor path). Decay first, then the update; eps is added after the bias
//!   correction of the second moment.
//! * [`bitsandbytes32`]: bitsandbytes `kOptimizer32bit2State`. Update first, then decay; eps is scaled by the bias
//!   correction instead, which is the same formula multiplied through.
//! * [`bitsandbytes8`]: `kOptimizerStatic8bit2StateBlockwise`: the same with both moments in 8-bit blocks.
//!
//! Arithmetic is f32. `round` is the type in which the parameters (and torch's moments) are stored: identity for
//! f32; slices hold values that `round` leaves as they are.

use super::memory::CpuMemory;
use crate::op::{AdamState, AdamW, Control, SEGMENT_FIELDS, Segment, View};
use crate::quant::blockwise8::{self, BLOCK};

/// Constants of one step, as typed in the recipe (rounded to f32 where the original rounds them).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Keeps the division away from zero.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// torch.optim.AdamW; `step` counts from 1. `m` and `v` are the moments, of the length of `p` and `g`.
///
/// p ← p·(1 − lr·wd);  m ← m + (1−β₁)·(g − m);  v ← β₂·v + (1−β₂)·g²;
/// p ← p − lr/(1−β₁ᵗ) · m / (√v / √(1−β₂ᵗ) + eps)
pub fn torch(
    hyper: &Hyper,
    step: u64,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    round: impl Fn(f32) -> f32,
) {
    let Hyper { lr, beta1, beta2, eps, weight_decay } = *hyper;
    // torch computes scalars in f64 and rounds them when they meet a tensor.
    let decay = (1.0 - lr * weight_decay) as f32;
    let step_size = (-(lr / (1.0 - power(beta1, step)))) as f32;
    let root_correction = (1.0 - power(beta2, step)).sqrt() as f32;
    let (weight1, weight2, beta2, eps) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32, beta2 as f32, eps as f32);
    for i in 0..p.len() {
        p[i] = round(p[i] * decay);
        m[i] = round(lerp(m[i], g[i], weight1));
        v[i] = round(round(v[i] * beta2) + weight2 * g[i] * g[i]);
        let denominator = round(round(round(v[i].sqrt()) / root_correction) + eps);
        p[i] = round(p[i] + step_size * m[i] / denominator);
    }
}

/// `torch.lerp`: from whichever end is nearer.
fn lerp(start: f32, end: f32, weight: f32) -> f32 {
    if weight.abs() < 0.5 { start + weight * (end - start) } else { end - (end - start) * (1.0 - weight) }
}

fn power(base: f64, step: u64) -> f64 {
    base.powf(step as f64)
}

/// Constants of a bitsandbytes step, all f32; both bias corrections are folded into two of them.
struct Bitsandbytes {
    beta1: f32,
    beta2: f32,
    /// `−lr · √(1−β₂ᵗ) / (1−β₁ᵗ)`: the learning rate with both corrections.
    step_size: f32,
    /// `eps · √(1−β₂ᵗ)`: eps with the second correction.
    eps: f32,
    /// 1 − lr·wd; None without decay.
    decay: Option<f32>,
}

impl Bitsandbytes {
    fn new(hyper: &Hyper, step: u64) -> Self {
        let (lr, beta1, beta2) = (hyper.lr as f32, hyper.beta1 as f32, hyper.beta2 as f32);
        let correction1 = 1.0 - power(beta1.into(), step) as f32;
        let correction2 = (1.0 - power(beta2.into(), step) as f32).sqrt();
        let weight_decay = hyper.weight_decay as f32;
        Self {
            beta1,
            beta2,
            step_size: -lr * correction2 / correction1,
            eps: correction2 * hyper.eps as f32,
            decay: (weight_decay > 0.0).then_some(1.0 - lr * weight_decay),
        }
    }
    fn moments(&self, m: f32, v: f32, g: f32) -> (f32, f32) {
        (m * self.beta1 + (1.0 - self.beta1) * g, v * self.beta2 + (1.0 - self.beta2) * g * g)
    }
    fn update(&self, p: f32, m: f32, v: f32, round: impl Fn(f32) -> f32) -> f32 {
        let p = round(p + self.step_size * (m / (v.sqrt() + self.eps)));
        self.decay.map_or(p, |decay| round(p * decay))
    }
}

/// bitsandbytes' AdamW with f32 moments `m`, `v` (`adamw_bnb_32bit`, `paged_adamw_32bit`, and the small tensors of
/// the 8-bit optimizers); `step` counts from 1.
pub fn bitsandbytes32(
    hyper: &Hyper,
    step: u64,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    round: impl Fn(f32) -> f32,
) {
    let constants = Bitsandbytes::new(hyper, step);
    for i in 0..p.len() {
        (m[i], v[i]) = constants.moments(m[i], v[i], g[i]);
        p[i] = constants.update(p[i], m[i], v[i], &round);
    }
}

/// The moments of one tensor in 8 bits: a code per element, a scale per [`BLOCK`].
pub struct State8<'a> {
    /// First moment: codes of [`blockwise8::SIGNED`].
    pub codes1: &'a mut [u8],
    /// Scales of `codes1`.
    pub absmax1: &'a mut [f32],
    /// Second moment: codes of [`blockwise8::UNSIGNED`].
    pub codes2: &'a mut [u8],
    /// Scales of `codes2`.
    pub absmax2: &'a mut [f32],
}

/// bitsandbytes' blockwise 8-bit AdamW; `step` counts from 1. The update uses the new moments before they are
/// quantized again. An element whose gradient is not finite keeps its parameter and loses its moments.
pub fn bitsandbytes8(
    hyper: &Hyper,
    step: u64,
    p: &mut [f32],
    g: &[f32],
    state: &mut State8,
    round: impl Fn(f32) -> f32,
) {
    let constants = Bitsandbytes::new(hyper, step);
    let (mut m, mut v) = ([0f32; BLOCK], [0f32; BLOCK]);
    for (block, p) in p.chunks_mut(BLOCK).enumerate() {
        let at = block * BLOCK..block * BLOCK + p.len();
        let (g, codes1, codes2) = (&g[at.clone()], &mut state.codes1[at.clone()], &mut state.codes2[at]);
        let (absmax1, absmax2) = (&mut state.absmax1[block], &mut state.absmax2[block]);
        for i in 0..p.len() {
            let old1 = blockwise8::SIGNED[usize::from(codes1[i])] * *absmax1;
            let old2 = blockwise8::UNSIGNED[usize::from(codes2[i])] * *absmax2;
            (m[i], v[i]) = if g[i].is_finite() { constants.moments(old1, old2, g[i]) } else { (0.0, 0.0) };
            if g[i].is_finite() {
                p[i] = constants.update(p[i], m[i], v[i], &round);
            }
        }
        *absmax1 = m[..p.len()].iter().fold(0.0, |max, x| x.abs().max(max));
        *absmax2 = v[..p.len()].iter().fold(0.0, |max, x| x.abs().max(max));
        for i in 0..p.len() {
            codes1[i] = keep_sign(m[i], blockwise8::nearest(&blockwise8::SIGNED, m[i] / *absmax1));
            codes2[i] = blockwise8::nearest(&blockwise8::UNSIGNED, v[i] / *absmax2);
        }
    }
}

/// Moves a first moment's code by one if its value would have the other sign (zero counts as positive), so that a
/// small moment is not stored as one that pushes the other way.
fn keep_sign(moment: f32, code: u8) -> u8 {
    if blockwise8::SIGNED[usize::from(code)].is_sign_negative() == moment.is_sign_negative() {
        code
    } else if moment > 0.0 {
        code.wrapping_add(1)
    } else {
        code.wrapping_sub(1)
    }
}

/// Updates tensor by tensor. Only f32 (f64 programs are for gradients).
pub fn adamw(mem: &mut CpuMemory, op: &AdamW) {
    let fields = mem.slice::<f32>(&op.control, 0).to_vec();
    if fields[Control::Skipped as usize] != 0.0 {
        return;
    }
    let segments = mem.slice::<i64>(&op.segments, 0).to_vec();
    let rates = mem.slice::<f32>(&op.rates, 0).to_vec();
    let touched = mem.slice::<i32>(&op.touched, 0).to_vec();
    let mut steps = mem.slice::<i32>(&op.steps, 0).to_vec();
    for (i, segment) in segments.chunks_exact(SEGMENT_FIELDS).enumerate() {
        let field = |f: Segment| segment[f as usize];
        let group = field(Segment::Touched);
        if group >= 0 && touched[group as usize] == 0 {
            continue; // no token came here in the whole accumulation: PyTorch would have no gradient
        }
        steps[i] += 1;
        let hyper = Hyper {
            lr: f64::from(fields[Control::LearningRate as usize]) * f64::from(rates[2 * i]),
            beta1: op.betas.beta1,
            beta2: op.betas.beta2,
            eps: op.betas.eps,
            weight_decay: f64::from(rates[2 * i + 1]),
        };
        let length = field(Segment::Length) as usize;
        let part = |v: &View, offset: Segment, n: usize| v.within(field(offset) as usize, 1, n);
        let (master, grads) = (part(&op.master, Segment::Offset, length), part(&op.grads, Segment::Offset, length));
        let mut p = mem.slice::<f32>(&master, 0).to_vec();
        let scale = fields[Control::GradScale as usize];
        let g: Vec<f32> = mem.slice::<f32>(&grads, 0).iter().map(|g| g * scale).collect();
        let step = steps[i] as u64;
        match &op.state {
            AdamState::Torch { m, v } | AdamState::Bitsandbytes { m, v } => {
                let [m, v] = [m, v].map(|moment| part(moment, Segment::State, length));
                let [mut m_new, mut v_new] = [m, v].map(|moment| mem.slice::<f32>(&moment, 0).to_vec());
                if matches!(op.state, AdamState::Torch { .. }) {
                    torch(&hyper, step, &mut p, &g, &mut m_new, &mut v_new, |x| x);
                } else {
                    bitsandbytes32(&hyper, step, &mut p, &g, &mut m_new, &mut v_new, |x| x);
                }
                mem.write_slice(&m, &m_new);
                mem.write_slice(&v, &v_new);
            }
            AdamState::Blockwise8 { m, v, absmax_m, absmax_v } => {
                let [m, v] = [m, v].map(|codes| part(codes, Segment::State, length));
                let blocks = length.div_ceil(BLOCK);
                let [absmax_m, absmax_v] = [absmax_m, absmax_v].map(|scales| part(scales, Segment::Block, blocks));
                let [mut codes1, mut codes2] = [m, v].map(|codes| mem.slice::<u8>(&codes, 0).to_vec());
                let [mut absmax1, mut absmax2] =
                    [absmax_m, absmax_v].map(|scales| mem.slice::<f32>(&scales, 0).to_vec());
                let mut state =
                    State8 { codes1: &mut codes1, absmax1: &mut absmax1, codes2: &mut codes2, absmax2: &mut absmax2 };
                bitsandbytes8(&hyper, step, &mut p, &g, &mut state, |x| x);
                mem.write_slice(&m, &codes1);
                mem.write_slice(&v, &codes2);
                mem.write_slice(&absmax_m, &absmax1);
                mem.write_slice(&absmax_v, &absmax2);
            }
        }
        mem.write_slice(&master, &p);
    }
    mem.write_slice(&op.steps, &steps);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::blockwise8::SIGNED_ZERO;

    const HYPER: Hyper = Hyper { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

    #[test]
    fn the_first_step_moves_by_the_learning_rate_against_the_gradient() {
        // After bias correction m = g and √v = |g|, whatever the gradient.
        for g in [1e-3, -5.0] {
            let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
            torch(&HYPER, 1, &mut p, &[g], &mut m, &mut v, |x| x);
            let want = 1.0 - 1e-3 * 0.01 - 1e-3 * g.signum();
            assert!((p[0] - want).abs() < 1e-6, "{} {want}", p[0]);
        }
    }

    #[test]
    fn the_three_forms_agree_on_the_first_step() {
        let g: Vec<f32> = (0..300).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1e-3).collect();
        let run = |which: usize| {
            let (mut p, mut m, mut v) = (vec![0.5; 300], vec![0.0; 300], vec![0.0; 300]);
            match which {
                0 => torch(&HYPER, 1, &mut p, &g, &mut m, &mut v, |x| x),
                1 => bitsandbytes32(&HYPER, 1, &mut p, &g, &mut m, &mut v, |x| x),
                _ => {
                    let (mut c1, mut c2) = (vec![SIGNED_ZERO; 300], vec![0; 300]);
                    let (mut a1, mut a2) = (vec![0.0; 2], vec![0.0; 2]);
                    let mut state = State8 { codes1: &mut c1, absmax1: &mut a1, codes2: &mut c2, absmax2: &mut a2 };
                    bitsandbytes8(&HYPER, 1, &mut p, &g, &mut state, |x| x);
                }
            }
            p
        };
        for which in 1..3 {
            for (a, b) in run(0).iter().zip(run(which)) {
                assert!((a - b).abs() < 1e-7, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_leaves_its_parameter_alone() {
        let (mut p, g) = ([1.0, 1.0], [f32::NAN, 1.0]);
        let (mut c1, mut c2, mut a1, mut a2) = ([SIGNED_ZERO; 2], [0; 2], [0.0], [0.0]);
        let mut state = State8 { codes1: &mut c1, absmax1: &mut a1, codes2: &mut c2, absmax2: &mut a2 };
        bitsandbytes8(&HYPER, 1, &mut p, &g, &mut state, |x| x);
        assert_eq!(p[0], 1.0);
        assert!(p[1] < 1.0 && a1[0].is_finite());
    }
}
