//! Checkpointing: a block's ops are recorded a second time, into fresh buffers, just before its backward pass. The
//! ops whose results the backward pass does not read are pruned later, so no list says what to recompute.

use super::Tape;
use crate::op::{Access, Buf, Place};
use std::collections::HashMap;
use std::ops::Range;

impl Tape {
    /// Records the ops of `block` again; returns their positions. Gradients that came from outside (of the block's
    /// output, of router logits) now belong to the twins.
    pub(super) fn record_again(&mut self, block: Range<usize>) -> Range<usize> {
        let start = self.ops.len();
        let mut twin: HashMap<Buf, Buf> = HashMap::new();
        for i in block {
            let mut op = self.ops[i].clone();
            for (view, access) in op.accesses() {
                let first = access == Access::Write && !twin.contains_key(&view.buf);
                if first && self.info(view.buf).place == Place::Arena {
                    let fresh = self.like(view.buf, "again.");
                    twin.insert(view.buf, fresh.buf);
                }
            }
            op.visit(&mut |view, _| {
                if let Some(twin) = twin.get(&view.buf) {
                    view.buf = *twin;
                }
            });
            self.push(op);
        }
        for (old, new) in twin {
            self.grads.rename(old, new);
        }
        start..self.ops.len()
    }
}
