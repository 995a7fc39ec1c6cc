//! Moves weight gradients up to just behind the ops that make their operands. Nothing depends on them, but they keep their
//! operands alive; run early, they free memory early. (The adapter's `dA = dtᵀ·x` would otherwise keep x alive while the
//! gradient of x is computed.) A norm or an activation that is made again for a weight gradient moves along with it.

use crate::op::{Access, Form, Gemm, Op, View};

/// An op's operands.
pub type Touched = Vec<(View, Access)>;

/// The list in its new order; no result changes a bit, because only ops that touch different data change places.
pub fn weight_gradients_first(ops: Vec<Op>, tokens: usize) -> Vec<Op> {
    let mut list: Vec<(Op, Touched)> = Vec::with_capacity(ops.len());
    for op in ops {
        let touched = op.accesses();
        let mut at = list.len();
        let is_weight_gradient = matches!(op, Op::Gemm(Gemm { form: Form::Tn, .. }));
        let mut moving = vec![(op, touched)];
        while is_weight_gradient && at > 0 {
            let free = moving.iter().all(|(_, touched)| commute(&list[at - 1].1, touched, tokens));
            if !free && !matches!(list[at - 1].0, Op::RmsNorm { .. } | Op::SwiGlu { .. } | Op::Dropout { .. }) {
                break;
            }
            at -= 1;
            if !free {
                moving.insert(0, list.remove(at));
            }
        }
        list.splice(at..at, moving);
    }
    list.into_iter().map(|(op, _)| op).collect()
}

/// Whether two ops may change places: neither writes what the other touches.
pub fn commute(a: &Touched, b: &Touched, tokens: usize) -> bool {
    let clash = |(va, aa): &(View, Access), (vb, ab): &(View, Access)| {
        (*aa != Access::Read || *ab != Access::Read) && va.overlaps(vb, tokens)
    };
    !a.iter().any(|x| b.iter().any(|y| clash(x, y)))
}
