//! Routing of tokens to experts, and its load-balancing loss.

use super::memory::Matrix;
use super::real::Real;
use rayon::prelude::*;

/// The experts of each token, and the order of rows that follows.
pub struct Routing<A> {
    /// `[T,K]`: the probabilities of the chosen experts, renormalized where asked.
    pub weights: Vec<A>,
    /// `[T,K]`: the experts, best first.
    pub experts: Vec<i32>,
    /// `[T,K]`: the row of (token, choice) among rows sorted by expert, stably.
    pub slots: Vec<i32>,
    /// `[K·T]`: the token of each such row.
    pub source: Vec<i32>,
    /// `[E+1]`: where the rows of each expert begin.
    pub offsets: Vec<i32>,
}

fn softmax<A: Real>(logits: &[A]) -> Vec<A> {
    let top = logits.iter().copied().fold(A::neg_infinity(), A::max);
    let e: Vec<A> = logits.iter().map(|&l| (l - top).exp()).collect();
    let sum: A = e.iter().copied().sum();
    e.into_iter().map(|x| x / sum).collect()
}

/// The `choices` largest, best first; of equal ones the first.
fn largest<A: Real>(p: &[A], choices: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(choices);
    while chosen.len() < choices {
        let left = (0..p.len()).filter(|i| !chosen.contains(i));
        chosen.extend(left.reduce(|a, b| if p[b] > p[a] { b } else { a }));
    }
    chosen
}

/// logits `[T,E]`; each token chooses `choices` experts.
pub fn route<A: Real>(logits: &Matrix<A>, choices: usize, renormalize: bool) -> Routing<A> {
    let (t, e) = (logits.rows, logits.cols);
    let (mut weights, mut experts) = (Vec::with_capacity(choices * t), Vec::with_capacity(choices * t));
    let mut offsets = vec![0i32; e + 1];
    for i in 0..t {
        let p = softmax(logits.row(i));
        let chosen = largest(&p, choices);
        let sum = if renormalize { chosen.iter().map(|&e| p[e]).sum() } else { A::one() };
        for expert in chosen {
            weights.push(p[expert] / sum);
            experts.push(expert as i32);
            offsets[expert + 1] += 1;
        }
    }
    for i in 0..e {
        offsets[i + 1] += offsets[i];
    }
    let mut next = offsets.clone();
    let (mut slots, mut source) = (vec![0; choices * t], vec![0; choices * t]);
    for (i, &expert) in experts.iter().enumerate() {
        let slot = &mut next[expert as usize];
        slots[i] = *slot;
        source[*slot as usize] = (i / choices) as i32;
        *slot += 1;
    }
    Routing { weights, experts, slots, source, offsets }
}

/// `dl_e = p_e (dw_e − Σ p dw)`, where dw of the experts not chosen is 0. Renormalized weights are the softmax of the chosen
/// logits alone, so p is that softmax, and the other logits have no gradient.
pub fn route_bwd<A: Real>(
    dweights: &Matrix<A>,
    logits: &Matrix<A>,
    renormalize: bool,
    experts: &[i32],
    plus: Option<&Matrix<A>>,
) -> Vec<A> {
    let e = logits.cols;
    let mut dlogits = plus.map_or_else(|| vec![A::zero(); logits.rows * e], |p| p.data().to_vec());
    dlogits.par_chunks_mut(e).enumerate().for_each(|(t, dl)| {
        let dw = dweights.row(t);
        let chosen = experts[t * dw.len()..][..dw.len()].iter().map(|&e| e as usize);
        let of_chosen: Vec<A> = chosen.clone().map(|e| logits.row(t)[e]).collect();
        let p = softmax(if renormalize { &of_chosen } else { logits.row(t) });
        let at = |(k, e): (usize, usize)| if renormalize { k } else { e };
        let mean: A = chosen.clone().enumerate().zip(dw).map(|(choice, &dw)| p[at(choice)] * dw).sum();
        if !renormalize {
            dl.iter_mut().zip(&p).for_each(|(dl, &p)| *dl -= p * mean);
        }
        for (choice, &dw) in chosen.enumerate().zip(dw) {
            let rest = if renormalize { mean } else { A::zero() };
            dl[choice.1] += p[at(choice)] * (dw - rest);
        }
    });
    dlogits
}

/// `aux = coef · E · Σ_{k,e} f[k,e] · P[e]` over the rows of all layers together; f is the share of rows whose k-th
/// choice is e (a constant for the gradient), P the mean probability (Fedus et al. 2021, as in HF's Mixtral).
/// Returns aux and the gradient of each layer's logits, times `loss_scale`.
pub fn aux_loss<A: Real>(layers: &[Matrix<A>], choices: usize, coef: f64, loss_scale: A) -> (A, Vec<Vec<A>>) {
    let e = layers[0].cols;
    let n = A::of(layers.iter().map(|l| l.rows).sum::<usize>() as f64);
    let probabilities: Vec<Vec<Vec<A>>> =
        layers.iter().map(|l| (0..l.rows).map(|t| softmax(l.row(t))).collect()).collect();
    let mut chosen = vec![A::zero(); e]; // Σ_k f[k,e]
    let mut mean = vec![A::zero(); e];
    for p in probabilities.iter().flatten() {
        largest(p, choices).into_iter().for_each(|i| chosen[i] += n.recip());
        (0..e).for_each(|i| mean[i] += p[i] / n);
    }
    let factor = A::of(coef) * A::of(e as f64);
    let aux = factor * chosen.iter().zip(&mean).map(|(&f, &p)| f * p).sum();
    let gradient = |p: &Vec<A>| {
        let along: A = p.iter().zip(&chosen).map(|(&p, &f)| p * f).sum();
        let scale = loss_scale * factor / n;
        (0..e).map(|i| scale * p[i] * (chosen[i] - along)).collect::<Vec<A>>()
    };
    let dlogits = probabilities.iter().map(|layer| layer.iter().flat_map(gradient).collect()).collect();
    (aux, dlogits)
}
