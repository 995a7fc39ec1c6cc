//! One op on the GPU: the launches of its family. The exhaustive match of this device.

use super::copy::{self, Copies};
use super::launch::Launcher;
use super::{adamw, attention, cross_entropy, embed, gemm, gemv, grad_norm, nf4, permute, pointwise, rms_norm, rope};
use super::{route, sample, swiglu};
use crate::error::Result;
use crate::op::Op;

/// Puts the work of `op` into the stream.
pub fn exec(l: &mut Launcher, copies: &mut Copies, op: &Op) -> Result<()> {
    l.op = op.name();
    match op {
        Op::Embed { ids, table, out } => embed::embed(l, ids, table, out),
        Op::RmsNorm { x, weight, out, rstd, eps } => rms_norm::rms_norm(l, x, weight, out, rstd, *eps),
        Op::RmsNormBwd { dout, x, weight, rstd, plus, dx } => {
            rms_norm::rms_norm_bwd(l, dout, x, weight, rstd, plus, dx)
        }
        Op::Gemm(op) => gemm::gemm(l, op),
        Op::Dequantize { weight, out } => nf4::dequantize(l, weight, out),
        Op::Quantize { x, weight } => nf4::quantize(l, x, weight),
        Op::Gemv { x, weight, out } => gemv::gemv(l, x, weight, out),
        Op::Rope { x, pos, inv_freq, inverse } => rope::rope(l, x, pos, inv_freq, *inverse),
        Op::Attention(op) => attention::attention(l, op),
        Op::AttentionBwd(op) => attention::attention_bwd(l, op),
        Op::SwiGlu { gate, up, out } => swiglu::swiglu(l, gate, up, out),
        Op::SwiGluBwd { dout, gate, up, dgate, dup } => swiglu::swiglu_bwd(l, dout, gate, up, dgate, dup),
        Op::Add { a, b, out } => pointwise::add(l, a, b, out),
        Op::Dropout { x, seed, site, p, plus, out } => pointwise::dropout(l, x, seed, *site, *p, plus, out),
        Op::Noise { x, seed, site, magnitude, out } => pointwise::noise(l, x, seed, *site, magnitude, out),
        Op::Cast { x, out, parts, at, scale } => pointwise::cast(l, x, out, *parts, *at, *scale),
        Op::Zero { out } => pointwise::zero(l, out),
        Op::Route(op) => route::route(l, op),
        Op::RouteBwd { dweights, logits, renormalize, experts, plus, dlogits } => {
            route::route_bwd(l, dweights, logits, *renormalize, experts, plus, dlogits)
        }
        Op::Combine { y, weights, slots, plus, out } => permute::combine(l, y, weights, slots, plus, out),
        Op::CombineBwd { dout, y, weights, slots, dy, dweights } => {
            permute::combine_bwd(l, dout, y, weights, slots, dy, dweights)
        }
        Op::AuxLoss { logits, choices, coef, control, aux, dlogits } => {
            route::aux_loss(l, logits, *choices, *coef, control, aux, dlogits)
        }
        Op::CrossEntropy(op) => cross_entropy::cross_entropy(l, op),
        Op::Sample { logits, rule, seed, token } => sample::sample(l, logits, rule, seed, token),
        Op::GradNorm { grads, partials, norm } => grad_norm::grad_norm(l, grads, partials, norm),
        Op::Control { rule, norm, rates, control } => grad_norm::control(l, rule, norm, rates, control),
        Op::AdamW(op) => adamw::adamw(l, op),
        Op::Start { copy } => copy::start(l, copies, copy),
        Op::Wait { copy } => copy::wait(l, copies, copy),
    }
}

/// Bytes of scratch memory that `op` needs between its launches, with `tokens` tokens.
pub fn scratch(op: &Op, tokens: usize) -> usize {
    match op {
        Op::Gemm(op) => gemm::scratch(op, tokens),
        Op::AuxLoss { logits, .. } => route::scratch(logits, tokens),
        Op::Quantize { weight, .. } if weight.nested.is_some() => nf4::scratch(&weight.absmax),
        Op::AdamW(op) => adamw::scratch(&op.segments),
        _ => 0,
    }
}
