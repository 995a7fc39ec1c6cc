//! Values that the backward pass needs and memory does not hold are made again just before their use, or copied back from the
//! host. A [`Policy`] says which results of a block are forgotten; what is made again, and in which order, follows from
//! what the backward pass asks for.

use super::Tape;
use crate::op::{Access, Buf, Op, Place, Transfer, View};
use std::collections::HashMap;

/// The part of its forward pass that a block keeps until its backward pass. The results of norms, SwiGLU, dropout and the gather
/// of experts' rows are always made again: that takes little time. So are dequantized weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Policy {
    /// Everything else.
    Keep,
    /// Everything else but gate and up.
    RecomputeGateUp,
    /// Its input and the routing.
    Recompute,
    /// The same, with the input in host memory.
    Offload,
}

/// The place of a block in the list.
pub struct RecordedBlock {
    /// One past its last op.
    end: usize,
    /// The buffers that its backward pass may need from host memory.
    offloaded: Vec<Buf>,
}

impl Policy {
    /// The operands that are forgotten of what `op` writes or, for gate and up, reads.
    fn forgets(self, op: &Op) -> Vec<View> {
        match op {
            Op::RmsNorm { out, .. } | Op::Dropout { out, .. } | Op::Embed { out, .. } => vec![*out],
            Op::SwiGlu { out, gate, .. } if self == Policy::RecomputeGateUp => vec![*out, *gate],
            Op::SwiGlu { out, .. } => vec![*out],
            Op::Route(_) => Vec::new(),
            _ if self >= Policy::Recompute => {
                op.accesses().into_iter().filter(|(_, access)| *access != Access::Read).map(|(view, _)| view).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Tape {
    /// Records a block as a function of `input` that returns its output and something else.
    pub fn block<R>(&mut self, policy: Policy, input: View, record: impl FnOnce(&mut Tape) -> (View, R)) -> (View, R) {
        let start = self.ops.len();
        let copy = (policy == Policy::Offload).then(|| Transfer { from: input, to: self.twin_of(input, Place::Host) });
        if let Some(copy) = copy {
            self.push(Op::Start { copy });
        }
        let (out, rest) = record(self);
        if let Some(copy) = copy {
            self.push(Op::Wait { copy });
            self.forgotten.insert(input.buf);
            self.offloaded.insert(input.buf, copy.to);
        }
        let forgotten = self.ops[start..].iter().flat_map(|op| policy.forgets(op)).filter(|view| view.buf != out.buf);
        let forgotten: Vec<Buf> = forgotten.map(|view| view.buf).collect();
        self.forgotten.extend(forgotten.into_iter().filter(|buf| self.bufs[buf.0 as usize].place == Place::Arena));
        let arrived = self.ops[start..].iter().filter_map(|op| match op {
            Op::Wait { copy } => Some(copy.to.buf),
            _ => None,
        });
        let offloaded = arrived.chain([input.buf]).filter(|buf| self.offloaded.contains_key(buf)).collect();
        self.blocks.push(RecordedBlock { end: self.ops.len(), offloaded });
        (out, rest)
    }

    /// If a block ends at the position `at`: begins to copy back what it and the block before it need.
    pub(super) fn prefetch(&mut self, at: usize) {
        let Some(i) = self.blocks.iter().position(|block| block.end == at) else { return };
        for i in (i.saturating_sub(1)..=i).rev() {
            for buf in std::mem::take(&mut self.blocks[i].offloaded) {
                let copy = self.fetch(self.offloaded[&buf]);
                self.coming.insert(buf, copy);
            }
        }
    }

    /// Begins to copy `from`, which is in host memory, to a fresh buffer.
    pub fn fetch(&mut self, from: View) -> Transfer {
        let copy = Transfer { from, to: self.twin_of(from, Place::Arena) };
        self.push(Op::Start { copy });
        copy
    }

    /// Begins to copy a weight that is in host memory, for [`Tape::at_hand`] later.
    pub fn fetch_ahead(&mut self, weight: View) {
        if self.info(weight.buf).place == Place::Host {
            let copy = self.fetch(weight);
            self.coming.insert(weight.buf, copy);
        }
    }

    /// A weight on the device: itself, or its copy if it is in host memory. The backward pass copies it again.
    pub fn at_hand(&mut self, weight: View) -> View {
        if self.info(weight.buf).place != Place::Host {
            return weight;
        }
        let copy = self.coming.remove(&weight.buf).unwrap_or_else(|| self.fetch(weight));
        self.push(Op::Wait { copy });
        self.forgotten.insert(copy.to.buf);
        self.offloaded.insert(copy.to.buf, weight);
        copy.to
    }

    /// A value of the forward pass for an op of the backward pass: `view` itself if it was kept.
    pub(super) fn value(&mut self, view: View) -> View {
        let mut passing = HashMap::new();
        let buf = self.again(view.buf, &mut passing);
        self.twins.extend(passing.remove_entry(&view.buf));
        View { buf, ..view }
    }

    /// The buffer with the contents that `buf` had. Records again the ops that wrote it, in their order, and before them
    /// those that wrote what they read. `passing`: results that take little time, of which the caller needs no second copy.
    fn again(&mut self, buf: Buf, passing: &mut HashMap<Buf, Buf>) -> Buf {
        if !self.forgotten.contains(&buf) {
            return buf;
        }
        if let Some(twin) = self.twins.get(&buf).or_else(|| passing.get(&buf)) {
            return *twin;
        }
        if let Some(copy) = self.coming.remove(&buf) {
            self.push(Op::Wait { copy });
            self.twins.insert(buf, copy.to.buf);
            return copy.to.buf;
        }
        let ops: Vec<Op> = self.writers[&buf].iter().map(|i| self.ops[*i].clone()).collect();
        let accesses: Vec<(View, Access)> = ops.iter().flat_map(Op::accesses).collect();
        let bufs = |wanted: &dyn Fn(Access) -> bool| {
            let mut bufs: Vec<Buf> = accesses.iter().filter(|(_, a)| wanted(*a)).map(|(v, _)| v.buf).collect();
            // In the order of their first use, which is that of the forward pass.
            bufs.sort_unstable();
            bufs.dedup();
            bufs
        };
        let mut made = bufs(&|access| access != Access::Read);
        made.retain(|buf| self.forgotten.contains(buf));
        let mut twins = HashMap::new();
        for read in bufs(&|access| access == Access::Read).into_iter().filter(|buf| !made.contains(buf)) {
            twins.insert(read, self.again(read, passing));
        }
        for buf in made {
            let twin = self.twin_of(self.info(buf).view(buf), Place::Arena).buf;
            twins.insert(buf, twin);
            match ops[0] {
                Op::Dequantize { .. } | Op::Cast { .. } => {}
                Op::RmsNorm { .. } | Op::Dropout { .. } | Op::Embed { .. } => drop(passing.insert(buf, twin)),
                _ => drop(self.twins.insert(buf, twin)),
            }
        }
        for mut op in ops {
            op.visit(&mut |view, _| view.buf = *twins.get(&view.buf).unwrap_or(&view.buf));
            self.push(op);
        }
        twins[&buf]
    }

    /// A fresh buffer like that of `view`.
    fn twin_of(&mut self, view: View, place: Place) -> View {
        let prefix = if place == Place::Host { "host." } else { "again." };
        let buf = self.like(view.buf, prefix).buf;
        self.bufs[buf.0 as usize].place = place;
        View { buf, ..view }
    }
}
