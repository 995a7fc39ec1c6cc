//! Devices replay programs. A device allocates once, as the plan says, and then only runs phases; each device has one
//! exhaustive `match` over [`Op`](crate::op::Op).

pub mod cpu;
pub mod cuda;
mod name;

pub use name::{About, DeviceKind, DeviceName};

use crate::error::Result;
use crate::op::{Buf, Phase, Program};
use crate::plan::Plan;
use std::sync::Arc;
use std::time::Duration;

/// How long one op took.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Index of the op in its phase.
    pub op: usize,
    /// Time on the device.
    pub time: Duration,
}

/// Something that can run a program.
pub trait Device: Send {
    /// Allocates what the plan says, clears it, and fills the constants. Anything loaded before is gone.
    fn allocate(&mut self, program: Arc<Program>, plan: Arc<Plan>) -> Result<()>;

    /// Bytes that the plan of `program` may take now; `None`: the device knows no limit.
    fn room(&self, program: &Program) -> Result<Option<usize>>;

    /// Copies `bytes` into `buf` from byte `at` on. Panics if they do not fit: sizes are checked where files are read.
    fn write(&mut self, buf: Buf, at: usize, bytes: &[u8]) -> Result<()>;

    /// Copies `bytes.len()` bytes out of `buf` from byte `at` on, after everything that runs has ended.
    fn read(&mut self, buf: Buf, at: usize, bytes: &mut [u8]) -> Result<()>;

    /// Runs a phase with `live` tokens (at most the program's capacity).
    fn run(&mut self, phase: Phase, live: usize) -> Result<()>;

    /// Runs a phase op by op and times each.
    fn profile(&mut self, phase: Phase, live: usize) -> Result<Vec<Timing>>;

    /// Its kind, its name, its place and its speed. The speed of a CPU is measured, once, in a few milliseconds.
    fn about(&self) -> About;
}
