//! Copies between device and host memory.

use super::gpu::failed;
use super::launch::Launcher;
use crate::error::Result;
use crate::op::Transfer;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys;

/// Copies the live rows; both ends are contiguous.
pub fn copy(l: &Launcher, copy: &Transfer) -> Result<()> {
    for end in [&copy.from, &copy.to] {
        if end.ld != end.cols {
            return Err(l.refused(end, "must be contiguous"));
        }
    }
    let bytes = l.grid_rows(&copy.from) * copy.from.cols * l.dtype(&copy.from).bytes();
    // SAFETY: both ends lie in allocations of the loaded program, whose plan has room for them; one address space holds
    // device and pinned host memory, so the driver knows the direction.
    let status = unsafe { sys::cuMemcpyAsync(l.address(&copy.to), l.address(&copy.from), bytes, l.stream) };
    status.result().map_err(|DriverError(e)| failed("copy", DriverError(e)))
}
