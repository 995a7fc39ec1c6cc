//! From when to when each arena buffer is needed, and which of them may share one block.

use crate::op::{Buf, Place, Program};
use std::collections::HashMap;

/// The ops of one phase from the first that writes a buffer to the last that touches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Index into [`Program::phases`].
    pub phase: usize,
    /// First op.
    pub first: usize,
    /// Last op.
    pub last: usize,
}

/// A piece of arena memory over a stretch of ops.
#[derive(Clone, Debug)]
pub struct ArenaBlock {
    /// The buffers that lie in it, one after the other in time.
    pub bufs: Vec<Buf>,
    /// Size, aligned.
    pub bytes: usize,
    /// Lifetime of the whole chain.
    pub life: Life,
}

/// Lifetimes of single buffers and of blocks.
pub struct Lifetimes {
    /// For each buffer; `None` where it is not in the arena or not used.
    pub life: Vec<Option<Life>>,
    /// The arena.
    pub blocks: Vec<ArenaBlock>,
}

/// Reads all lifetimes off the program.
pub fn lifetimes(program: &Program) -> Lifetimes {
    let mut life: Vec<Option<Life>> = vec![None; program.bufs.len()];
    for (phase, (_, ops)) in program.phases.iter().enumerate() {
        for (i, op) in ops.iter().enumerate() {
            op.clone().visit(&mut |view, _| {
                if program.info(view.buf).place == Place::Arena {
                    let l = life[view.buf.0 as usize].get_or_insert(Life { phase, first: i, last: i });
                    assert_eq!(l.phase, phase, "{} is used by two phases", program.info(view.buf).name);
                    l.last = i;
                }
            });
        }
    }
    let blocks = share(program, &life);
    Lifetimes { life, blocks }
}

/// Puts an output into the block of an input whose life ends at the op, where the op allows it.
fn share(program: &Program, life: &[Option<Life>]) -> Vec<ArenaBlock> {
    let mut takes: HashMap<Buf, Buf> = HashMap::new(); // output → input
    let mut taken: HashMap<Buf, Buf> = HashMap::new();
    for (_, ops) in &program.phases {
        for (i, op) in ops.iter().enumerate() {
            for (out, from) in op.may_take() {
                let fits = life[out.buf.0 as usize].is_some_and(|l| l.first == i)
                    && life[from.buf.0 as usize].is_some_and(|l| l.last == i)
                    && out.buf != from.buf
                    && (out.offset, out.rows, out.ld) == (from.offset, from.rows, from.ld)
                    && program.info(out.buf).dtype == program.info(from.buf).dtype
                    && program.bytes(out.buf) == program.bytes(from.buf);
                // A pair that is allowed twice (gate and up of one buffer) is the same decision.
                if fits && !takes.contains_key(&out.buf) && !taken.contains_key(&from.buf) {
                    takes.insert(out.buf, from.buf);
                    taken.insert(from.buf, out.buf);
                }
            }
        }
    }
    let mut blocks = Vec::new();
    for buf in program.all() {
        let Some(first) = life[buf.0 as usize] else { continue };
        if takes.contains_key(&buf) {
            continue; // not the first of its chain
        }
        let mut block =
            ArenaBlock { bufs: vec![buf], bytes: program.bytes(buf).next_multiple_of(super::ALIGN), life: first };
        let mut at = buf;
        while let Some(&next) = taken.get(&at) {
            block.bufs.push(next);
            block.life.last = life[next.0 as usize].map_or(block.life.last, |l| l.last);
            at = next;
        }
        blocks.push(block);
    }
    blocks
}
