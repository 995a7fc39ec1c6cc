//! How long a phase takes: each op needs the time of its arithmetic or of its bytes, whichever is longer. Both are read
//! off the program, so recomputation, adapters and experts count as what they are.

use crate::op::{Access, Attention, AttentionBwd, Form, Gemm, Op, Phase, Place, Program, Transfer, View};

/// The rates that a device reaches in practice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Floating-point operations a second in large products.
    pub flops: f64,
    /// Bytes a second from and to its memory.
    pub bytes: f64,
    /// Seconds that an op takes however small it is.
    pub op: f64,
    /// Bytes a second between it and host memory, in each direction.
    pub link: f64,
}

/// Rates by the name that the driver gives a GPU; docs/benchmarks has the measurements.
const MEASURED: [(&str, Rates); 1] = [("H200", Rates { flops: 620e12, bytes: 3.6e12, op: 4e-6, link: 55e9 })];

impl Rates {
    /// A GPU that was measured, to compare programs on one that was not.
    pub fn reference() -> (&'static str, Rates) {
        MEASURED[0]
    }

    /// The rates of a GPU, if they were measured on one of its name.
    pub fn measured(gpu: &str) -> Option<Rates> {
        MEASURED.iter().find(|(name, _)| gpu.contains(name)).map(|(_, rates)| *rates)
    }

    /// The names of the GPUs that were measured.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MEASURED.iter().map(|(name, _)| *name)
    }
}

/// The work of one run of a phase.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Load {
    /// Live tokens.
    pub tokens: usize,
    /// Keys that a token sees, on average.
    pub seen: f64,
}

/// Seconds that a phase takes.
pub fn seconds(program: &Program, phase: Phase, load: Load, rates: Rates) -> f64 {
    let ops = program.ops(phase).iter();
    let one = |op: &Op| {
        let moved = match op {
            Op::Embed { table, out, .. } if program.info(table.buf).place == Place::Host => {
                program.info(out.buf).bytes(load.tokens) as f64 / rates.link
            }
            _ => bytes(program, op, load.tokens) / rates.bytes,
        };
        moved.max(flops(op, load) / rates.flops) + rates.op
    };
    // Copies run beside the kernels, each direction on its own.
    let copies = [true, false].map(|to_host| copied(program, phase, load.tokens, to_host) / rates.link);
    ops.map(one).sum::<f64>().max(copies[0]).max(copies[1])
}

/// Bytes that a phase copies to host memory or from there.
fn copied(program: &Program, phase: Phase, tokens: usize, to_host: bool) -> f64 {
    let size = |op: &Op| match op {
        Op::Start { copy: Transfer { to, .. } } if (program.info(to.buf).place == Place::Host) == to_host => {
            program.info(to.buf).bytes(tokens)
        }
        _ => 0,
    };
    program.ops(phase).iter().map(size).sum::<usize>() as f64
}

/// Arithmetic of products and attention; everything else is bound by memory.
fn flops(op: &Op, load: Load) -> f64 {
    let rows = |view: &View| view.rows.count(load.tokens) as f64;
    match op {
        Op::Gemm(Gemm { form, a, b, term, out, .. }) => {
            let inner = if *form == Form::Tn { b.cols } else { out.cols };
            2.0 * rows(a) * (a.cols + term.map_or(0, |t| t.a.cols)) as f64 * inner as f64
        }
        // Two products forward and five backward.
        Op::Attention(Attention { q, .. }) => 2.0 * 2.0 * rows(q) * load.seen * q.cols as f64,
        Op::AttentionBwd(AttentionBwd { dq, .. }) => 5.0 * 2.0 * rows(dq) * load.seen * dq.cols as f64,
        _ => 0.0,
    }
}

fn bytes(program: &Program, op: &Op, tokens: usize) -> f64 {
    let size = |view: &View| view.rows.count(tokens) * view.cols * program.info(view.buf).dtype.bytes();
    let touched = |(view, access): &(View, Access)| size(view) * if *access == Access::ReadWrite { 2 } else { 1 };
    match op {
        // Only the looked-up rows of the table are read.
        Op::Embed { out, .. } => 2.0 * size(out) as f64,
        Op::Start { .. } | Op::Wait { .. } => 0.0,
        _ => op.accesses().iter().map(touched).sum::<usize>() as f64,
    }
}
