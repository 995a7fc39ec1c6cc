//! One op on the GPU: the launches of its family. The exhaustive match of this device.

use super::attention::{Backward, Inputs};
use super::launch::Launcher;
use super::{
    adamw, attention, copy, cross_entropy, embed, gemm, gemv, grad_norm, nf4, permute, pointwise, rms_norm, rope,
};
use super::{route, sample, swiglu};
use crate::error::Result;
use crate::op::Op;

/// Puts the work of `op` into the stream.
pub fn exec(l: &mut Launcher, op: &Op) -> Result<()> {
    l.op = op.name();
    match op {
        Op::Embed { ids, table, out } => embed::embed(l, ids, table, out),
        Op::RmsNorm { x, weight, out, rstd, eps } => rms_norm::rms_norm(l, x, weight, out, rstd, *eps),
        Op::RmsNormBwd { dout, x, weight, rstd, plus, dx } => {
            rms_norm::rms_norm_bwd(l, dout, x, weight, rstd, plus, dx)
        }
        Op::Gemm { form, a, b, scale, plus, out, groups } => gemm::gemm(l, *form, a, b, *scale, plus, out, groups),
        Op::Dequantize { kind, block, codes, absmax, nested, out } => {
            nf4::dequantize(l, *kind, *block, codes, absmax, nested, out)
        }
        Op::Quantize { kind, block, x, codes, absmax, nested } => {
            nf4::quantize(l, *kind, *block, x, codes, absmax, nested)
        }
        Op::Gemv { kind, block, x, codes, absmax, nested, out } => {
            gemv::gemv(l, *kind, *block, x, codes, absmax, nested, out)
        }
        Op::Rope { x, pos, inv_freq, inverse } => rope::rope(l, x, pos, inv_freq, *inverse),
        Op::Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale } => {
            let inputs = Inputs { q, k, v, lo, hi, heads: *heads, kv_heads: *kv_heads, scale: *scale };
            attention::attention(l, &inputs, out, lse)
        }
        #[rustfmt::skip]
        Op::AttentionBwd { q, k, v, lo, hi, qlo, qhi, out, lse, dout, delta, dq, dk, dv, heads, kv_heads, scale } => {
            let inputs = Inputs { q, k, v, lo, hi, heads: *heads, kv_heads: *kv_heads, scale: *scale };
            attention::attention_bwd(l, &inputs, &Backward { qlo, qhi, out, lse, dout, delta, dq, dk, dv })
        }
        Op::SwiGlu { gate, up, out } => swiglu::swiglu(l, gate, up, out),
        Op::SwiGluBwd { dout, gate, up, dgate, dup } => swiglu::swiglu_bwd(l, dout, gate, up, dgate, dup),
        Op::Add { a, b, out } => pointwise::add(l, a, b, out),
        Op::Dropout { x, seed, site, p, plus, out } => pointwise::dropout(l, x, seed, *site, *p, plus, out),
        Op::Noise { x, seed, site, magnitude, out } => pointwise::noise(l, x, seed, *site, magnitude, out),
        Op::Cast { x, out, parts } => pointwise::cast(l, x, out, *parts),
        Op::Zero { out } => pointwise::zero(l, out),
        Op::Route { logits, weights, experts, slots, source, offsets, touched } => {
            route::route(l, logits, weights, experts, slots, source, offsets, touched)
        }
        Op::RouteBwd { dweights, logits, experts, plus, dlogits } => {
            route::route_bwd(l, dweights, logits, experts, plus, dlogits)
        }
        Op::Combine { y, weights, slots, plus, out } => permute::combine(l, y, weights, slots, plus, out),
        Op::CombineBwd { dout, y, weights, slots, dy, dweights } => {
            permute::combine_bwd(l, dout, y, weights, slots, dy, dweights)
        }
        Op::AuxLoss { logits, coef, control, aux, dlogits } => route::aux_loss(l, logits, *coef, control, aux, dlogits),
        Op::CrossEntropy { logits, targets, weight, control, logp, hit, dlogits } => {
            cross_entropy::cross_entropy(l, logits, targets, weight, control, logp, hit, dlogits)
        }
        Op::Sample { logits, rule, seed, token } => sample::sample(l, logits, rule, seed, token),
        Op::GradNorm { grads, partials, norm } => grad_norm::grad_norm(l, grads, partials, norm),
        Op::Control { rule, norm, rates, control } => grad_norm::control(l, rule, norm, rates, control),
        Op::AdamW { state, betas, master, grads, segments, rates, steps, touched, control } => {
            let tables = adamw::Tables { segments, rates, steps, touched, control };
            adamw::adamw(l, state, betas, master, grads, &tables)
        }
        Op::Start { copy } => copy::start(l, copy),
        Op::Wait { copy } => copy::wait(l, copy),
        Op::Fused { kind: _, parts } => parts.iter().try_for_each(|part| exec(l, part)),
    }
}

/// Bytes of scratch memory that `op` needs between its launches, with `tokens` tokens.
pub fn scratch(op: &Op, tokens: usize) -> usize {
    match op {
        Op::Gemm { form: crate::op::Form::Tn, a, out, groups, .. } => {
            gemm::scratch(a.rows.count(tokens), out, groups.map_or(1, |g| g.count))
        }
        Op::AuxLoss { logits, .. } => route::scratch(logits, tokens),
        Op::Quantize { absmax, nested: Some(_), .. } => nf4::scratch(absmax),
        Op::AdamW { segments, .. } => adamw::scratch(segments),
        Op::Fused { parts, .. } => parts.iter().map(|part| scratch(part, tokens)).max().unwrap_or(0),
        _ => 0,
    }
}
