//! One op on the CPU: load the operands, call the family, store the results. The exhaustive match of this device.

use super::attention::{self, AttentionGrads};
use super::cross_entropy::cross_entropy;
use super::memory::{CpuMemory, Matrix};
use super::real::Real;
use super::{adamw, embed, gemm, gemv, grad_norm, nf4, permute, pointwise, rms_norm, rope, route, sample, swiglu};
use crate::op::{Control, CrossEntropy, Gemm, Op, Route, SampleField, Transfer, View};

/// Runs `op` with `live` tokens. `late_copies`: an asynchronous copy happens at its `Wait`, not at its `Start`.
pub fn exec<A: Real>(mem: &mut CpuMemory, op: &Op, live: usize, late_copies: bool) {
    match op {
        Op::Embed { ids, table, out } => {
            let rows = embed::embed(mem.slice(ids, live), &mem.load::<A>(table, live));
            mem.store(out, live, &rows);
        }
        Op::RmsNorm { x, weight, out, rstd, eps } => {
            let (x, weight) = (mem.load::<A>(x, live), mem.load(weight, live));
            let (y, r) = rms_norm::rms_norm(&x, weight.data(), *eps, mem.dtype(out));
            mem.store(out, live, &y);
            mem.store(rstd, live, &r);
        }
        Op::RmsNormBwd { dout, x, weight, rstd, plus, dx } => {
            let (dout, x) = (mem.load::<A>(dout, live), mem.load(x, live));
            let (weight, rstd, plus) = (mem.load(weight, live), mem.load(rstd, live), optional(mem, plus, live));
            let result = rms_norm::rms_norm_bwd(&dout, &x, weight.data(), rstd.data(), plus.as_ref());
            mem.store(dx, live, &result);
        }
        Op::Gemm(Gemm { form, a, b, term, scale, plus, out, groups }) => {
            let product = |a: &View, b: &View| (mem.load::<A>(a, live), mem.load::<A>(b, live));
            let (first, plus) = (product(a, b), optional(mem, plus, live));
            let second = term.as_ref().map(|t| product(&t.a, &t.b));
            let products: Vec<_> = std::iter::once(&first).chain(&second).map(|(a, b)| (a, b)).collect();
            let offsets = groups.as_ref().map(|g| mem.slice(&g.offsets, live));
            let result = gemm::gemm(*form, &products, *scale, plus.as_ref(), offsets);
            mem.store(out, live, &result);
        }
        Op::Dequantize { weight, out } => {
            let result: Vec<A> = nf4::dequantize(mem, weight);
            mem.store(out, live, &result);
        }
        Op::Quantize { x, weight } => {
            let values: Vec<f32> = mem.load::<A>(x, live).data().iter().map(|x| x.f64() as f32).collect();
            nf4::quantize(mem, &values, weight);
        }
        Op::Gemv { x, weight, out } => {
            let result: Vec<A> = gemv::gemv(&mem.load(x, live), nf4::dequantize(mem, weight), mem.dtype(x));
            mem.store(out, live, &result);
        }
        Op::Rope { x, pos, inv_freq, inverse } => {
            let (m, inv_freq) = (mem.load::<A>(x, live), mem.load(inv_freq, live));
            let turned = rope::rope(&m, mem.slice(pos, live), inv_freq.data(), *inverse, mem.dtype(x));
            mem.store(x, live, &turned);
        }
        Op::Attention(op) => {
            let (out, lse) = attention::attention::<A>(mem, op, live);
            mem.store(&op.out, live, &out);
            mem.store(&op.lse, live, &lse);
        }
        Op::AttentionBwd(op) => {
            let grads: AttentionGrads<A> = attention::attention_bwd(mem, op, live);
            mem.store(&op.delta, live, &grads.delta);
            mem.store(&op.dq, live, &grads.dq);
            mem.store(&op.dk, live, &grads.dk);
            mem.store(&op.dv, live, &grads.dv);
        }
        Op::SwiGlu { gate, up, out } => {
            let h = swiglu::swiglu(&mem.load::<A>(gate, live), &mem.load(up, live));
            mem.store(out, live, &h);
        }
        Op::SwiGluBwd { dout, gate, up, dgate, dup } => {
            let (dg, du) = swiglu::swiglu_bwd(&mem.load::<A>(dout, live), &mem.load(gate, live), &mem.load(up, live));
            mem.store(dgate, live, &dg);
            mem.store(dup, live, &du);
        }
        Op::Add { a, b, out } => {
            let sum = pointwise::add(&mem.load::<A>(a, live), &mem.load(b, live));
            mem.store(out, live, &sum);
        }
        Op::Dropout { x, seed, site, p, plus, out } => {
            let seed = mem.slice::<u32>(seed, live);
            let (x, plus) = (mem.load::<A>(x, live), optional(mem, plus, live));
            let kept = pointwise::dropout(&x, [seed[0], seed[1]], *site, *p, plus.as_ref());
            mem.store(out, live, &kept);
        }
        Op::Noise { x, seed, site, magnitude, out } => {
            let seed = mem.slice::<u32>(seed, live);
            let (x, magnitude) = (mem.load::<A>(x, live), mem.load(magnitude, live));
            let noisy = pointwise::noise(&x, [seed[0], seed[1]], *site, magnitude.data()[0]);
            mem.store(out, live, &noisy);
        }
        Op::Cast { x, out, parts, at, scale } => {
            let to = [out.rows.count(live), out.cols];
            let cast = pointwise::cast(&mem.load::<A>(x, live), *parts, to, *at, *scale);
            mem.store(out, live, &cast);
        }
        Op::Zero { out } => {
            if mem.dtype(out).is_float() {
                mem.store(out, live, &vec![A::zero(); out.rows.count(live) * out.cols]);
            } else {
                mem.write_slice(out, &vec![0i32; out.rows.count(live) * out.cols]);
            }
        }
        Op::Route(Route { logits, renormalize, weights, experts, slots, source, offsets, touched }) => {
            let routing = route::route(&mem.load::<A>(logits, live), weights.cols, *renormalize);
            mem.store(weights, live, &routing.weights);
            mem.write_slice(experts, &routing.experts);
            mem.write_slice(slots, &routing.slots);
            mem.write_slice(source, &routing.source);
            mem.write_slice(offsets, &routing.offsets);
            if let Some(touched) = touched {
                let mut seen = mem.slice::<i32>(touched, live).to_vec();
                seen.iter_mut().zip(routing.offsets.windows(2)).for_each(|(s, o)| *s |= i32::from(o[1] > o[0]));
                mem.write_slice(touched, &seen);
            }
        }
        Op::RouteBwd { dweights, logits, renormalize, experts, plus, dlogits } => {
            let (dweights, logits, plus) =
                (mem.load::<A>(dweights, live), mem.load(logits, live), optional(mem, plus, live));
            let result = route::route_bwd(&dweights, &logits, *renormalize, mem.slice(experts, live), plus.as_ref());
            mem.store(dlogits, live, &result);
        }
        Op::Combine { y, weights, slots, plus, out } => {
            let (y, weights, plus) = (mem.load::<A>(y, live), optional(mem, weights, live), optional(mem, plus, live));
            let result = permute::combine(&y, weights.as_ref(), mem.slice(slots, live), slots.cols, plus.as_ref());
            mem.store(out, live, &result);
        }
        Op::CombineBwd { dout, y, weights, slots, dy, dweights } => {
            let (dout, y, weights) = (mem.load::<A>(dout, live), mem.load(y, live), mem.load(weights, live));
            let (d, dw) = permute::combine_bwd(&dout, &y, &weights, mem.slice(slots, live));
            mem.store(dy, live, &d);
            mem.store(dweights, live, &dw);
        }
        Op::AuxLoss { logits, choices, coef, control, aux, dlogits } => {
            let layers: Vec<Matrix<A>> = logits.iter().map(|l| mem.load(l, live)).collect();
            let loss_scale = mem.load::<A>(control, live).data()[Control::LossScale as usize];
            let (loss, gradients) = route::aux_loss(&layers, *choices, *coef, loss_scale);
            mem.store(aux, live, &[loss]);
            for (dlogits, gradient) in dlogits.iter().zip(gradients) {
                mem.store(dlogits, live, &gradient);
            }
        }
        Op::CrossEntropy(CrossEntropy { logits, targets, weight, control, logp, hit, dlogits }) => {
            let (m, weight) = (mem.load::<A>(logits, live), mem.load(weight, live));
            let loss_scale = mem.load::<A>(control, live).data()[Control::LossScale as usize];
            let loss = cross_entropy(&m, mem.slice(targets, live), weight.data(), loss_scale, dlogits.is_some());
            mem.store(logp, live, &loss.logp);
            mem.write_slice(hit, &loss.hit);
            if let (Some(dlogits), Some(d)) = (dlogits, loss.dlogits) {
                mem.store(dlogits, live, &d);
            }
        }
        Op::Sample { logits, rule, seed, token } => {
            let narrow = |m: Matrix<A>| -> Vec<f32> { m.data().iter().map(|x| x.f64() as f32).collect() };
            let (cols, values, fields) = (logits.cols, narrow(mem.load(logits, live)), narrow(mem.load(rule, live)));
            let field = |f: SampleField| fields[f as usize];
            let (temperature, top_p) = (field(SampleField::Temperature), field(SampleField::TopP));
            let rule = sample::Rule { temperature, top_k: field(SampleField::TopK) as usize, top_p };
            let seed = mem.slice::<u32>(seed, live);
            let tokens = sample::sample(&values, cols, &rule, [seed[0], seed[1]]);
            mem.write_slice(token, &tokens);
        }
        Op::GradNorm { grads, partials, norm } => {
            let (parts, n) = grad_norm::grad_norm(mem.load::<A>(grads, live).data());
            mem.store(partials, live, &parts);
            mem.store(norm, live, &[n]);
        }
        Op::Control { rule, norm, rates, control } => {
            let mut state = mem.load::<A>(control, live).data().to_vec();
            let (norm, rates) = (mem.load::<A>(norm, live).data()[0], mem.load::<A>(rates, live));
            grad_norm::control(rule, norm, rates.data(), &mut state);
            mem.store(control, live, &state);
        }
        Op::AdamW(op) => adamw::adamw(mem, op),
        Op::Start { copy } => {
            if !late_copies {
                transfer(mem, copy, live);
            }
        }
        Op::Wait { copy } => {
            if late_copies {
                transfer(mem, copy, live);
            }
        }
    }
}

fn optional<'a, A: Real>(mem: &'a CpuMemory, view: &Option<View>, live: usize) -> Option<Matrix<'a, A>> {
    view.as_ref().map(|v| mem.load(v, live))
}

fn transfer(mem: &mut CpuMemory, copy: &Transfer, live: usize) {
    assert!(copy.from.ld == copy.from.cols && copy.to.ld == copy.to.cols, "copies are contiguous");
    let size = mem.dtype(&copy.from).bytes();
    let n = copy.from.rows.count(live) * copy.from.cols * size;
    let bytes = mem.bytes(copy.from.buf)[copy.from.offset * size..][..n].to_vec();
    mem.bytes_mut(copy.to.buf)[copy.to.offset * size..][..n].copy_from_slice(&bytes);
}
