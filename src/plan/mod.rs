//! Addresses for buffers. Lifetimes are known, so memory is a packing problem that is solved once, on the host, before
//! anything is allocated: one allocation holds the resident buffers and, behind them, the arena that phases share.

mod check;
pub mod cost;
mod lifetimes;
mod offsets;

pub use lifetimes::{ArenaBlock, Life};

use crate::op::{Buf, Place, Program, Purpose};
use lifetimes::Lifetimes;
use std::collections::BTreeMap;

/// Every address is a multiple of this: the widest load of a GPU, and its cache line.
pub const ALIGN: usize = 256;

/// The address of every buffer, and the sizes that follow.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Byte address of each buffer in the allocation (of `Host` buffers: in host memory).
    pub address: Vec<usize>,
    /// Size of the one allocation.
    pub bytes: usize,
    /// Size of host memory for copies.
    pub host_bytes: usize,
    /// Bytes of the resident buffers, by what they are for.
    pub resident: BTreeMap<Purpose, usize>,
    /// First byte of the arena.
    pub arena_start: usize,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// The most bytes that are alive at one op: no arena can be smaller.
    pub lower_bound: usize,
    /// Lifetimes of arena buffers, `None` for others and for those that no op uses.
    pub life: Vec<Option<Life>>,
    /// Arena memory: each block holds one buffer, or several one after the other in time.
    pub blocks: Vec<ArenaBlock>,
}

/// Plans the memory of a program.
pub fn plan(program: &Program) -> Plan {
    let Lifetimes { life, blocks } = lifetimes::lifetimes(program);
    let mut address = vec![0; program.bufs.len()];
    let (mut bytes, mut host_bytes) = (0, 0);
    let mut resident = BTreeMap::new();
    for buf in program.all() {
        let size = program.bytes(buf).next_multiple_of(ALIGN);
        match program.info(buf).place {
            Place::Resident(kind) => {
                address[buf.0 as usize] = bytes;
                bytes += size;
                *resident.entry(kind).or_insert(0) += size;
            }
            Place::Host => {
                address[buf.0 as usize] = host_bytes;
                host_bytes += size;
            }
            Place::Within { .. } | Place::Arena => {}
        }
    }
    for buf in program.all() {
        if let Place::Within { parent, offset } = program.info(buf).place {
            address[buf.0 as usize] = address[parent.0 as usize] + offset * program.info(buf).dtype.bytes();
        }
    }
    let arena_start = bytes;
    let packed = offsets::pack(&blocks);
    for (block, offset) in blocks.iter().zip(&packed.offset) {
        for buf in &block.bufs {
            address[buf.0 as usize] = arena_start + offset;
        }
    }
    Plan {
        address,
        bytes: arena_start + packed.bytes,
        host_bytes,
        resident,
        arena_start,
        arena_bytes: packed.bytes,
        lower_bound: packed.lower_bound,
        life,
        blocks,
    }
}

impl Plan {
    /// The byte address of `buf`.
    pub fn address(&self, buf: Buf) -> usize {
        self.address[buf.0 as usize]
    }
}
