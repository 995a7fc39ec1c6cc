//! All the calculus. Walking the list backwards, each op contributes to the gradients of its inputs by the rule below;
//! the ops it records are the backward pass. The loss itself has no rule here: `cross_entropy` and `aux_loss` compute
//! their gradients in the forward.

use super::{Ranges, Tape};
use crate::op::{Attention, AttentionBwd, Form, Gemm, Op, Route, Term, View};
use std::ops::Range;

impl Tape {
    /// Appends the backward pass of the ops recorded at the positions `range`.
    pub fn backward(&mut self, range: Range<usize>) {
        for at in range.rev() {
            self.prefetch(at + 1);
            self.rule(self.ops[at].clone());
        }
    }

    fn need(&self, value: View) -> bool {
        self.needs.contains(&value.buf)
    }

    /// The derivative of one op. `d…` is the gradient of the loss by `…`. Gradients belong to the operands as they were
    /// recorded; their values come from [`Tape::value`].
    fn rule(&mut self, op: Op) {
        match op {
            // y = norm(x) · w, w frozen
            Op::RmsNorm { x, weight, out, rstd, eps: _ } if self.need(x) => {
                let Some(dout) = self.gradient(out) else { return };
                let (dx, plus) = self.contribute(x);
                let x = self.value(x);
                self.push(Op::RmsNormBwd { dout, x, weight, rstd, plus, dx });
            }

            // y = plus + s·(x·wᵀ + …):  dx = s·dy·w,  dw = s·dyᵀ·x
            Op::Gemm(forward @ Gemm { form: Form::Nt, a, b, term, plus, out, .. }) => {
                let Some(dout) = self.gradient(out) else { return };
                if let Some(plus) = plus.filter(|p| *p != out && self.need(*p)) {
                    self.share(plus, dout);
                }
                // The adapter's first: the gradient of t becomes a factor of the term of dx.
                for (x, w) in term.map(|t| (t.a, t.b)).into_iter().chain([(a, b)]) {
                    if self.need(x) {
                        let b = self.value(w);
                        let (dx, plus) = self.contribute(x);
                        self.input_gradient(Gemm { form: Form::Nn, a: dout, b, term: None, plus, out: dx, ..forward });
                    }
                    for matrix in self.params.get(&w.buf).cloned().unwrap_or_default() {
                        let dw = matrix.gradient;
                        let n = dw.rows.count(self.tokens) / forward.slabs();
                        let (a, b) = (dout.columns(matrix.row, n), self.value(x).columns(matrix.column, dw.cols));
                        let (scale, plus) = (forward.scale * matrix.scale, Some(dw));
                        self.push(Op::Gemm(Gemm { form: Form::Tn, a, b, term: None, scale, plus, out: dw, ..forward }));
                    }
                }
            }

            // a rotation: turn back
            Op::Rope { x, pos, inv_freq, inverse } if self.need(x) => {
                let Some(dx) = self.gradient(x) else { return };
                self.push(Op::Rope { x: dx, pos, inv_freq, inverse: !inverse });
            }

            Op::Attention(forward @ Attention { q, k, v, lo, out, lse, heads, .. }) if self.need(out) => {
                let Some(dout) = self.gradient(out) else { return };
                let [dq, dk, dv] = [q, k, v].map(|x| self.contribute(x));
                assert!([dq.1, dk.1, dv.1].iter().all(Option::is_none), "q, k, v are used once");
                let delta = self.arena("attention.delta", q.rows, heads, self.wide());
                let Ranges { qlo, qhi, .. } = self.ranges[&lo.buf];
                let (dq, dk, dv) = (dq.0, dk.0, dv.0);
                let [q, k, v, out, lse] = [q, k, v, out, lse].map(|x| self.value(x));
                let forward = Attention { q, k, v, out, lse, ..forward };
                self.push(Op::AttentionBwd(AttentionBwd { forward, qlo, qhi, dout, delta, dq, dk, dv }));
            }

            Op::SwiGlu { gate, up, out } if self.need(out) => {
                let Some(dout) = self.gradient(out) else { return };
                let [dgate, dup] = [gate, up].map(|x| self.contribute(x));
                assert!(dgate.1.is_none() && dup.1.is_none(), "gate and up are used once");
                let [gate, up] = [gate, up].map(|x| self.value(x));
                self.push(Op::SwiGluBwd { dout, gate, up, dgate: dgate.0, dup: dup.0 });
            }

            Op::Add { a, b, out } => {
                let Some(dout) = self.gradient(out) else { return };
                for x in [a, b].into_iter().filter(|x| self.need(*x)).collect::<Vec<_>>() {
                    self.share(x, dout);
                }
            }

            // the same mask, drawn again
            Op::Dropout { x, seed, site, p, plus: None, out } if self.need(x) => {
                let Some(dout) = self.gradient(out) else { return };
                let (dx, plus) = self.contribute(x);
                self.push(Op::Dropout { x: dout, seed, site, p, plus, out: dx });
            }

            // rows sent to experts: each token collects its own
            Op::Embed { ids, table, out } if self.need(table) => {
                let Some(dout) = self.gradient(out) else { return };
                let slots = self.slots[&ids.buf];
                let (dx, plus) = self.contribute(table);
                self.push(Op::Combine { y: dout, weights: None, slots, plus, out: dx });
            }

            Op::Combine { y, weights: Some(weights), slots, plus: None, out } if self.need(y) || self.need(weights) => {
                let Some(dout) = self.gradient(out) else { return };
                let (dy, dy_plus) = self.contribute(y);
                let (dweights, dw_plus) = self.contribute(weights);
                assert!(dy_plus.is_none() && dw_plus.is_none(), "y and weights are used once");
                let y = self.value(y);
                self.push(Op::CombineBwd { dout, y, weights, slots, dy, dweights });
            }

            Op::Route(Route { logits, renormalize, weights, experts, .. }) if self.need(logits) => {
                let Some(dweights) = self.gradient(weights) else { return };
                let (dlogits, plus) = self.contribute(logits);
                let logits = self.value(logits);
                self.push(Op::RouteBwd { dweights, logits, renormalize, experts, plus, dlogits });
            }

            // No trainable parameter above: nothing to do.
            Op::RmsNorm { .. }
            | Op::Rope { .. }
            | Op::Attention(_)
            | Op::SwiGlu { .. }
            | Op::Dropout { plus: None, .. }
            | Op::Embed { .. }
            | Op::Combine { weights: Some(_), plus: None, .. }
            | Op::Route(_) => {}
            Op::Noise { x, .. } => assert!(!self.need(x), "noise is for frozen embeddings"),
            // Functions of frozen weights, or losses that brought their gradient along.
            Op::Dequantize { .. } | Op::Cast { .. } | Op::CrossEntropy(_) | Op::AuxLoss { .. } => {}
            // A value on its way to the host.
            Op::Start { .. } | Op::Wait { .. } => {}
            // Ops that no model records in a forward pass.
            Op::Gemm(_)
            | Op::RmsNormBwd { .. }
            | Op::AttentionBwd(_)
            | Op::SwiGluBwd { .. }
            | Op::RouteBwd { .. }
            | Op::CombineBwd { .. }
            | Op::Combine { .. }
            | Op::Dropout { .. }
            | Op::Zero { .. }
            | Op::Quantize { .. }
            | Op::Gemv { .. }
            | Op::Sample { .. }
            | Op::GradNorm { .. }
            | Op::Control { .. }
            | Op::AdamW(_) => unreachable!("{} has no derivative", op.name()),
        }
    }

    /// Records a product that gives the gradient of its input. If it is an adapter's share, it becomes a term of the base product
    /// that gave the rest of this gradient.
    fn input_gradient(&mut self, product: Gemm) {
        let Gemm { a, b, plus, out, .. } = product;
        if plus == Some(out) && self.params.contains_key(&b.buf) {
            let last = self.ops.iter().rposition(|op| op.accesses().iter().any(|(v, _)| v.buf == out.buf));
            if let Some((at, Op::Gemm(base))) = last.map(|at| (at, self.ops[at].clone()))
                && (Gemm { a, b, plus, ..base }) == product
            {
                // The gradient a was recorded before the base product: see the rule.
                self.ops[at] = Op::Gemm(Gemm { term: Some(Term { a, b }), ..base });
                return;
            }
        }
        self.push(Op::Gemm(product));
    }
}
