//! Groups ops that a device may run as one kernel. A group keeps its parts: the CPU runs them one by one, and what the
//! group reads and writes follows from them. Law: a fused kernel rounds wherever the list stores.
//!
//! The one pattern so far is a base product followed by the adapters' products into the same output. Ops that stand
//! between them (products for other adapters, weight gradients) step aside where order does not matter.

use super::order::{Touched, commute};
use crate::op::{Form, FusedKind, Op, View};
use std::collections::BTreeMap;

/// How far behind the base product an adapter's product may stand.
const REACH: usize = 24;

/// What was fused.
#[derive(Clone, Debug, Default)]
pub struct Fusion {
    /// Groups made, by kind.
    pub groups: BTreeMap<FusedKind, usize>,
    /// Products that add to an output and found no base product to join: their operands' positions in the list.
    pub missed: usize,
}

impl Fusion {
    /// Fuses one list.
    pub fn fuse(&mut self, ops: Vec<Op>, tokens: usize) -> Vec<Op> {
        let touched: Vec<Touched> = ops.iter().map(Op::accesses).collect();
        let mut ops: Vec<Option<Op>> = ops.into_iter().map(Some).collect();
        let mut fused = Vec::with_capacity(ops.len());
        for i in 0..ops.len() {
            let Some(op) = ops[i].take() else { continue };
            let Some((kind, out)) = base(&op) else {
                if joins(&op, None) {
                    self.missed += 1;
                }
                fused.push(op);
                continue;
            };
            let mut parts = vec![op];
            for j in i + 1..ops.len().min(i + REACH) {
                let Some(candidate) = &ops[j] else { continue };
                if joins(candidate, Some((kind, &out))) {
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
                fused.extend(parts);
            }
        }
        fused
    }
}

/// A product that others may join: forward or input gradient, not adding in place.
fn base(op: &Op) -> Option<(FusedKind, View)> {
    match op {
        Op::Gemm { form: Form::Nt, plus, out, .. } if *plus != Some(*out) => Some((FusedKind::LoraUp, *out)),
        Op::Gemm { form: Form::Nn, plus, out, .. } if *plus != Some(*out) => Some((FusedKind::LoraDown, *out)),
        _ => None,
    }
}

/// Whether `op` adds a product in place — to (a slice of) the given output of the given kind.
fn joins(op: &Op, to: Option<(FusedKind, &View)>) -> bool {
    let Op::Gemm { form, plus, out, .. } = op else { return false };
    let kind = match form {
        Form::Nt => FusedKind::LoraUp,
        Form::Nn => FusedKind::LoraDown,
        Form::Tn => return false,
    };
    *plus == Some(*out) && to.is_none_or(|(k, base)| k == kind && base.buf == out.buf)
}
