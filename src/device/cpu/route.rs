//! Top-2 routing of Mixtral, and its load-balancing loss.

use super::memory::Matrix;
use super::real::Real;
use rayon::prelude::*;

/// The experts of each token, and the order of rows that follows.
pub struct Routing<A> {
    /// `[T,2]`: the renormalized probabilities.
    pub weights: Vec<A>,
    /// `[T,2]`: the experts, best first.
    pub experts: Vec<i32>,
    /// `[T,2]`: the row of (token, choice) among rows sorted by expert, stably.
    pub slots: Vec<i32>,
    /// `[2T]`: the token of each such row.
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

/// The two largest, best first; of equal ones the first.
fn top2<A: Real>(p: &[A]) -> [usize; 2] {
    let best = |skip: Option<usize>| {
        (0..p.len()).filter(|i| Some(*i) != skip).reduce(|a, b| if p[b] > p[a] { b } else { a }).unwrap_or(0)
    };
    let first = best(None);
    [first, best(Some(first))]
}

/// logits `[T,E]`.
pub fn route<A: Real>(logits: &Matrix<A>) -> Routing<A> {
    let (t, e) = (logits.rows, logits.cols);
    let (mut weights, mut experts) = (Vec::with_capacity(2 * t), Vec::with_capacity(2 * t));
    let mut offsets = vec![0i32; e + 1];
    for i in 0..t {
        let p = softmax(logits.row(i));
        let [a, b] = top2(&p);
        weights.extend([p[a] / (p[a] + p[b]), p[b] / (p[a] + p[b])]);
        for expert in [a, b] {
            experts.push(expert as i32);
            offsets[expert + 1] += 1;
        }
    }
    for i in 0..e {
        offsets[i + 1] += offsets[i];
    }
    let mut next = offsets.clone();
    let (mut slots, mut source) = (vec![0; 2 * t], vec![0; 2 * t]);
    for (i, &expert) in experts.iter().enumerate() {
        let slot = &mut next[expert as usize];
        slots[i] = *slot;
        source[*slot as usize] = (i / 2) as i32;
        *slot += 1;
    }
    Routing { weights, experts, slots, source, offsets }
}

/// The renormalized pair is the softmax of the two chosen logits, so only these two have a gradient:
/// `dl_k = w_k (dw_k − Σ w dw)`.
pub fn route_bwd<A: Real>(
    dweights: &Matrix<A>,
    logits: &Matrix<A>,
    experts: &[i32],
    plus: Option<&Matrix<A>>,
) -> Vec<A> {
    let e = logits.cols;
    let mut dlogits = plus.map_or_else(|| vec![A::zero(); logits.rows * e], |p| p.data().to_vec());
    dlogits.par_chunks_mut(e).enumerate().for_each(|(t, dl)| {
        let [a, b] = [experts[2 * t] as usize, experts[2 * t + 1] as usize];
        let w = softmax(&[logits.row(t)[a], logits.row(t)[b]]);
        let dw = dweights.row(t);
        let mean = w[0] * dw[0] + w[1] * dw[1];
        dl[a] += w[0] * (dw[0] - mean);
        dl[b] += w[1] * (dw[1] - mean);
    });
    dlogits
}

/// `aux = coef · E · Σ_{k,e} f[k,e] · P[e]` over the rows of all layers together; f is the share of rows whose k-th
/// choice is e (a constant for the gradient), P the mean probability (Fedus et al. 2021, as in HF's Mixtral).
/// Returns aux and the gradient of each layer's logits, times `loss_scale`.
pub fn aux_loss<A: Real>(layers: &[Matrix<A>], coef: f64, loss_scale: A) -> (A, Vec<Vec<A>>) {
    let e = layers[0].cols;
    let n = A::of(layers.iter().map(|l| l.rows).sum::<usize>() as f64);
    let probabilities: Vec<Vec<Vec<A>>> =
        layers.iter().map(|l| (0..l.rows).map(|t| softmax(l.row(t))).collect()).collect();
    let mut chosen = vec![A::zero(); e]; // Σ_k f[k,e]
    let mut mean = vec![A::zero(); e];
    for p in probabilities.iter().flatten() {
        top2(p).into_iter().for_each(|i| chosen[i] += n.recip());
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
