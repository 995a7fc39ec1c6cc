//! Recording. A model calls the methods of [`Tape`]; each appends one op to a flat list. Then come the passes:
//!
//! * `forward`: one method for each op.
//! * `backward`: all derivative rules; what was not kept is made again (`recompute`).
//! * `prune`: drops ops whose results nobody reads.
//! * `order`: moves weight gradients to where they save memory.

mod backward;
mod forward;
mod grads;
mod order;
mod prune;
mod recompute;

pub use forward::{Ranges, Routed};
pub use recompute::Policy;

use crate::dtype::DType;
use crate::op::{Access, Buf, BufInfo, Op, Phase, Place, Program, Purpose, Route, Rows, Transfer, View};
use grads::Grads;
use recompute::RecordedBlock;
use std::collections::{HashMap, HashSet};

/// Records the phases of one program, one after the other.
pub struct Tape {
    /// Capacity: the most tokens of a run.
    pub tokens: usize,
    /// Storage type of activations.
    pub compute: DType,
    bufs: Vec<BufInfo>,
    phases: Vec<(Phase, Vec<Op>)>,
    constants: Vec<(Buf, Vec<u8>)>,
    /// Put in front of the names of buffers.
    scope: String,
    /// The phase being recorded.
    ops: Vec<Op>,
    /// The decoder blocks in it.
    blocks: Vec<RecordedBlock>,
    /// Buffers on which a trainable parameter has an influence.
    needs: HashSet<Buf>,
    grads: Grads,
    /// Trainable operands and where their gradients are summed up.
    params: HashMap<Buf, Vec<TrainedMatrix>>,
    /// Positions of the ops that write an arena buffer.
    writers: HashMap<Buf, Vec<usize>>,
    /// Buffers whose contents the backward pass makes again or copies back.
    forgotten: HashSet<Buf>,
    /// Those that it has made again.
    twins: HashMap<Buf, Buf>,
    /// Where they are in host memory, and those that are on their way back.
    offloaded: HashMap<Buf, View>,
    coming: HashMap<Buf, Transfer>,
    /// For each `lo`, the key-side inverse that the backward of attention needs.
    ranges: HashMap<Buf, Ranges>,
    /// For each `source` of a routing, its inverse `slots`.
    slots: HashMap<Buf, View>,
}

/// A trained matrix, and its place in the operand that is made from it: `operand[i + row, j + column] = scale · matrix[i, j]`, in
/// each slab of experts. All other elements of the operand are zero.
#[derive(Clone, Copy, Debug)]
pub struct TrainedMatrix {
    /// Where the gradient of the matrix is summed up: the slabs of all experts.
    pub gradient: View,
    /// First row in a slab of the operand.
    pub row: usize,
    /// First column.
    pub column: usize,
    /// Factor on the matrix.
    pub scale: f64,
}

impl Tape {
    /// An empty tape for at most `tokens` tokens with activations stored as `compute`.
    pub fn new(tokens: usize, compute: DType) -> Self {
        Self {
            tokens,
            compute,
            bufs: Vec::new(),
            phases: Vec::new(),
            constants: Vec::new(),
            scope: String::new(),
            ops: Vec::new(),
            blocks: Vec::new(),
            needs: HashSet::new(),
            grads: Grads::default(),
            params: HashMap::new(),
            writers: HashMap::new(),
            forgotten: HashSet::new(),
            twins: HashMap::new(),
            offloaded: HashMap::new(),
            coming: HashMap::new(),
            ranges: HashMap::new(),
            slots: HashMap::new(),
        }
    }

    /// The type of statistics, logits, gradients of parameters: max(f32, compute).
    pub fn wide(&self) -> DType {
        self.compute.accumulator()
    }

    /// Declares a buffer and returns the whole of it.
    pub fn buf(&mut self, name: &str, rows: Rows, cols: usize, dtype: DType, place: Place) -> View {
        let info = BufInfo { name: format!("{}{name}", self.scope), rows, cols, dtype, place };
        let buf = Buf(self.bufs.len() as u32);
        let view = info.view(buf);
        self.bufs.push(info);
        view
    }

    /// Declares a resident buffer of fixed size.
    pub fn resident(&mut self, name: &str, rows: usize, cols: usize, dtype: DType, kind: Purpose) -> View {
        self.buf(name, Rows::Fixed(rows), cols, dtype, Place::Resident(kind))
    }

    /// Declares a table that the program itself brings; `bytes` are its elements, little endian.
    pub fn constant(&mut self, name: &str, rows: usize, cols: usize, dtype: DType, bytes: Vec<u8>) -> View {
        let view = self.resident(name, rows, cols, dtype, Purpose::Constant);
        assert_eq!(bytes.len(), rows * cols * dtype.bytes(), "{name}");
        self.constants.push((view.buf, bytes));
        view
    }

    /// Declares that the operand `param` is made from `matrix`, which is trained.
    pub fn trainable(&mut self, param: View, matrix: TrainedMatrix) {
        self.needs.insert(param.buf);
        self.params.entry(param.buf).or_default().push(matrix);
    }

    /// Runs `record` with `scope.` in front of the names of its buffers.
    pub fn scoped<R>(&mut self, scope: &str, record: impl FnOnce(&mut Tape) -> R) -> R {
        let outer = self.scope.len();
        self.scope.push_str(scope);
        self.scope.push('.');
        let result = record(self);
        self.scope.truncate(outer);
        result
    }

    /// The number of ops recorded so far in this phase: a position for [`Tape::backward`].
    pub fn position(&self) -> usize {
        self.ops.len()
    }

    /// Ends the phase: prunes, reorders, and files the list under `phase`.
    pub fn finish(&mut self, phase: Phase) {
        let ops = std::mem::take(&mut self.ops);
        let ops = prune::prune(&self.bufs, ops);
        let ops = order::weight_gradients_first(ops, self.tokens);
        self.phases.push((phase, ops));
        self.blocks.clear();
        self.grads = Grads::default();
        self.writers.clear();
        self.coming.clear();
    }

    /// Ends the recording.
    pub fn program(self) -> Program {
        Program { tokens: self.tokens, bufs: self.bufs, phases: self.phases, constants: self.constants }
    }

    /// The description of a buffer.
    pub fn info(&self, buf: Buf) -> &BufInfo {
        &self.bufs[buf.0 as usize]
    }

    /// A fresh arena buffer.
    pub fn arena(&mut self, name: &str, rows: Rows, cols: usize, dtype: DType) -> View {
        self.buf(name, rows, cols, dtype, Place::Arena)
    }

    /// A fresh arena buffer like that of `view`.
    fn like(&mut self, buf: Buf, prefix: &str) -> View {
        let info = self.info(buf);
        // The name already carries the scope in which the original was recorded.
        let info = BufInfo { name: format!("{prefix}{}", info.name), place: Place::Arena, ..info.clone() };
        let buf = Buf(self.bufs.len() as u32);
        let view = info.view(buf);
        self.bufs.push(info);
        view
    }

    /// Appends an op; results of something that needs a gradient need one too.
    pub fn push(&mut self, op: Op) {
        let accesses = op.accesses();
        if accesses.iter().any(|(v, a)| *a != Access::Write && self.needs.contains(&v.buf)) {
            let float = |v: &View, bufs: &[BufInfo]| bufs[v.buf.0 as usize].dtype.is_float();
            let written = accesses.iter().filter(|(v, a)| *a != Access::Read && float(v, &self.bufs));
            let arena = written.filter(|(v, _)| self.bufs[v.buf.0 as usize].place == Place::Arena);
            self.needs.extend(arena.map(|(v, _)| v.buf));
        }
        for (view, _) in accesses.iter().filter(|(_, a)| *a != Access::Read) {
            if self.info(view.buf).place == Place::Arena {
                self.writers.entry(view.buf).or_default().push(self.ops.len());
                // Weights in the compute type are never kept.
                if matches!(op, Op::Dequantize { .. } | Op::Cast { .. }) {
                    self.forgotten.insert(view.buf);
                }
            }
        }
        if let Op::Route(Route { source, slots, .. }) = &op {
            self.slots.insert(source.buf, *slots);
        }
        self.ops.push(op);
    }
}
