//! Mixtral's mixture of experts: each token goes to two of them.

use super::linear::Projection;
use super::llama::{Block, Run, mlp};
use crate::op::View;
use crate::tape::Tape;

/// h `[T,D]`; returns the weighted sum of the two experts of each token, `[T,D]`, and the router's logits, `[T,E]`.
pub fn experts(t: &mut Tape, layer: &Block, router: &Projection, h: View, run: Run) -> (View, View) {
    let logits = router.forward(t, h, None, run.with, t.compute);
    let routed = t.route(logits, layer.touched.filter(|_| run.training));
    let rows = t.gather(h, &routed);
    let y = mlp(t, layer, rows, Some(routed.groups), run);
    (t.combine(y, &routed), logits)
}
