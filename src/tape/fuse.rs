//! Groups ops that a device may run as one kernel. A group keeps its parts: what it reads and writes follows from them, and
//! today both devices run them one by one. A kernel for a group must round wherever the list stores.
//!
//! The one pattern so far is a base product followed by the adapters' products into the same output. Ops that stand
//! between them (products for other adapters, weight gradients) step aside where order does not matter.

use super::order::{Touched, commute};
use crate::op::{Form, FusedKind, Gemm, Op, View};
use std::collections::BTreeMap;

/// How far behind the base product an adapter's product may stand.
const REACH: usize = 24;

/// How products were grouped.
#[derive(Clone, Debug, Default)]
pub struct Fusion {
    /// Groups made, by kind.
    pub groups: BTreeMap<FusedKind, usize>,
    /// Products that add to an output in place and are in no group.
    pub missed: usize,
}

impl Fusion {
    /// Groups the ops of one list.
    pub fn fuse(&mut self, ops: Vec<Op>, tokens: usize) -> Vec<Op> {
        let touched: Vec<Touched> = ops.iter().map(Op::accesses).collect();
        let mut ops: Vec<Option<Op>> = ops.into_iter().map(Some).collect();
        let mut fused = Vec::with_capacity(ops.len());
        for i in 0..ops.len() {
            let Some(op) = ops[i].take() else { continue };
            let Some((kind, out)) = product(&op) else {
                fused.push(op);
                continue;
            };
            let in_place = adds_in_place(&op);
            let mut parts = vec![op];
            for j in i + 1..ops.len().min(i + REACH) {
                let Some(candidate) = &ops[j] else { continue };
                if adds_in_place(candidate) && product(candidate).is_some_and(|(k, to)| k == kind && to.buf == out.buf)
                {
                    let between = (i + 1..j).filter(|k| ops[*k].is_some());
                    if !between.into_iter().all(|k| commute(&touched[k], &touched[j], tokens)) {
                        break;
                    }
                    parts.extend(ops[j].take());
                } else if touched[j].iter().any(|(v, _)| v.buf == out.buf) {
                    break;
                }
            }
            if parts.len() > 1 {
                *self.groups.entry(kind).or_insert(0) += 1;
                fused.push(Op::Fused { kind, parts });
            } else {
                self.missed += usize::from(in_place);
                fused.extend(parts);
            }
        }
        fused
    }
}

/// The kind and output of a forward product or of an input gradient. One that adds in place (the router's share of the
/// gradient of its input) may head a group, too.
fn product(op: &Op) -> Option<(FusedKind, View)> {
    match op {
        Op::Gemm(Gemm { form: Form::Nt, out, .. }) => Some((FusedKind::LoraUp, *out)),
        Op::Gemm(Gemm { form: Form::Nn, out, .. }) => Some((FusedKind::LoraDown, *out)),
        _ => None,
    }
}

/// Whether the product is added to what its output holds.
fn adds_in_place(op: &Op) -> bool {
    matches!(op, Op::Gemm(Gemm { plus, out, .. }) if *plus == Some(*out))
}
