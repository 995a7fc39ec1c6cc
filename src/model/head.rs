//! Final norm, head and loss. Logits exist for one chunk of rows at a time; their gradient, and what follows from it for
//! the adapter of the head and for the stream, is computed before the next chunk.

use super::linear::AdapterUse;
use super::params::Params;
use super::spec::{LossSpec, Spec};
use crate::op::{CrossEntropy, Rows, View};
use crate::tape::Tape;

/// Final norm. x `[T,D]`.
pub fn final_norm(t: &mut Tape, spec: &Spec, params: &Params, x: View) -> View {
    t.rms_norm("final_norm", x, params.final_norm, spec.config.rms_norm_eps)
}

/// The loss of every row of h, `[T,D]`; with `gradient`, also the backward pass down to h.
pub fn loss(t: &mut Tape, loss: &LossSpec, params: &Params, h: View, with: AdapterUse, gradient: bool) {
    let x = &params.exchange;
    for start in (0..t.tokens).step_by(loss.chunk) {
        let len = loss.chunk.min(t.tokens - start);
        let rows = |v: View| v.chunk(start, len);
        t.scoped(&format!("head.{start}"), |t| {
            let from = t.position();
            let logits = params.head.forward(t, rows(h), None, with, t.wide());
            let to = t.position();
            let loss = CrossEntropy {
                logits,
                targets: rows(x.targets),
                weight: rows(x.weight),
                control: x.control,
                logp: rows(x.logp),
                hit: rows(x.hit),
                dlogits: None,
            };
            t.cross_entropy(loss, gradient);
            if gradient {
                t.backward(from..to);
            }
        });
    }
}

/// Logits of the selected rows of x, `[n,V]`, copied to the exchange buffer.
pub fn selected_logits(t: &mut Tape, spec: &Spec, params: &Params, x: View, with: AdapterUse) {
    let Some(selected) = params.exchange.selected else { return };
    assert_eq!(selected.rows.rows, Rows::Fixed(spec.logits_rows));
    let x = t.embed("selected", selected.rows, x);
    let h = final_norm(t, spec, params, x);
    let logits = params.head.forward(t, h, None, with, t.wide());
    t.cast_into(logits, selected.logits);
}
