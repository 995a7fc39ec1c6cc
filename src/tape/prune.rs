//! Drops every op whose results nobody reads: the tail of a recomputed block, the gradient of a frozen input.

use crate::op::{Access, Buf, BufInfo, Op, Place};
use std::collections::HashSet;

/// Walks backwards and keeps what writes something resident or something that a kept op reads.
pub fn prune(bufs: &[BufInfo], ops: Vec<Op>) -> Vec<Op> {
    let info = |buf: Buf| &bufs[buf.0 as usize];
    let mut read: HashSet<Buf> = HashSet::new();
    let mut kept = Vec::with_capacity(ops.len());
    for op in ops.into_iter().rev() {
        let accesses = op.accesses();
        let matters = |buf: Buf| info(buf).place != Place::Arena || read.contains(&buf);
        if !accesses.iter().any(|(v, a)| *a != Access::Read && matters(v.buf)) {
            continue;
        }
        // A full overwrite kills the old value; a partial one does not.
        for (v, _) in accesses.iter().filter(|(v, a)| *a == Access::Write && *v == info(v.buf).view(v.buf)) {
            read.remove(&v.buf);
        }
        read.extend(accesses.iter().filter(|(_, a)| *a != Access::Write).map(|(v, _)| v.buf));
        kept.push(op);
    }
    kept.reverse();
    kept
}
