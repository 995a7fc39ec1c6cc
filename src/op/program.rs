//! A program: buffers, and a list of ops for each phase of training.

use super::{Buf, Op, Rows, View};
use crate::dtype::DType;

/// The memory that a buffer lives in, and who fills it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// Lives from its first write to its last access within one phase; shares addresses with others.
    Arena,
    /// Lives as long as the program; zero at the start.
    Resident(Purpose),
    /// Part of a resident flat buffer.
    Within {
        /// The flat buffer, `[1, n]`.
        parent: Buf,
        /// First element in it.
        offset: usize,
    },
    /// Host memory that copies go to; not part of the device's allocation.
    Host,
}

/// The purpose of a resident buffer; `plan` sums memory by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Purpose {
    /// Frozen weights, filled from the checkpoint.
    Weight,
    /// Tables that the program itself brings (see [`Program::constants`]).
    Constant,
    /// Adapter weights in full precision.
    Master,
    /// Adapter weights in the compute type, ranks padded to 16.
    Adapter,
    /// Gradients of the adapter.
    Gradient,
    /// Moments and step counts.
    Optimizer,
    /// Written by the host before a run, read by it after one, or small state of the step.
    Exchange,
}

/// One buffer.
#[derive(Clone, PartialEq, Debug)]
pub struct BufInfo {
    /// Its name in listings: `layers.3.qkv`.
    pub name: String,
    /// Rows, for the capacity of tokens.
    pub rows: Rows,
    /// Elements of a row.
    pub cols: usize,
    /// Element type.
    pub dtype: DType,
    /// The memory it lives in.
    pub place: Place,
}

/// A list of ops that a device runs as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Phase {
    /// Once for each update: masters are cast, gradients cleared.
    Begin,
    /// Forward and backward over one micro-batch.
    Micro,
    /// Gradient norm, clipping, AdamW.
    Update,
    /// Loss of a batch; `adapter: false` for the base model alone.
    Eval {
        /// Whether the adapter takes part.
        adapter: bool,
    },
    /// Logits of selected rows.
    Logits {
        /// Whether the adapter takes part.
        adapter: bool,
    },
    /// A token for each of these rows, from the logits that are there.
    Sample,
}

/// Everything that a device needs to allocate and to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Capacity: the most tokens that a run may have.
    pub tokens: usize,
    /// All buffers.
    pub bufs: Vec<BufInfo>,
    /// The op lists.
    pub phases: Vec<(Phase, Vec<Op>)>,
    /// Contents of the buffers of kind [`Purpose::Constant`], little endian.
    pub constants: Vec<(Buf, Vec<u8>)>,
}

impl Program {
    /// The description of `buf`.
    pub fn info(&self, buf: Buf) -> &BufInfo {
        &self.bufs[buf.0 as usize]
    }
    /// The whole of `buf` as an operand.
    pub fn view(&self, buf: Buf) -> View {
        self.info(buf).view(buf)
    }
    /// Bytes of `buf` at capacity.
    pub fn bytes(&self, buf: Buf) -> usize {
        self.info(buf).bytes(self.tokens)
    }
    /// The ops of `phase`; empty if the program lacks it.
    pub fn ops(&self, phase: Phase) -> &[Op] {
        self.phases.iter().find(|(p, _)| *p == phase).map_or(&[], |(_, ops)| ops)
    }
    /// All buffers.
    pub fn all(&self) -> impl Iterator<Item = Buf> + use<> {
        (0..self.bufs.len() as u32).map(Buf)
    }
}

impl BufInfo {
    /// The whole buffer as an operand.
    pub fn view(&self, buf: Buf) -> View {
        View { buf, offset: 0, rows: self.rows, cols: self.cols, ld: self.cols }
    }
    /// Bytes for `tokens` tokens.
    pub fn bytes(&self, tokens: usize) -> usize {
        self.rows.count(tokens) * self.cols * self.dtype.bytes()
    }
}
