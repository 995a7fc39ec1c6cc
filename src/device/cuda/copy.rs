//! Asynchronous copies: they run on streams of their own, beside the kernels, and events order them. A capture follows the
//! events, so that in a graph, too, copies run beside kernels.

use super::gpu::failed;
use super::launch::Launcher;
use super::stream::{Event, Stream};
use crate::error::Result;
use crate::op::{Place, Transfer};
use cudarc::driver::sys;

/// The streams of copies, and the copies in flight.
pub struct Copies {
    // Each direction has a copy engine of its own, so neither holds up the other.
    d2h: Stream,
    h2d: Stream,
    /// Marks the work in the main stream that a copy waits for. It is free again as soon as the wait is queued.
    begin: Event,
    /// Events that can be used again.
    idle: Vec<Event>,
    in_flight: Vec<(Transfer, Event)>,
}

impl Copies {
    /// No copy in flight.
    pub fn new() -> Result<Self> {
        let (d2h, h2d, begin) = (Stream::new()?, Stream::new()?, Event::new()?);
        Ok(Self { d2h, h2d, begin, idle: Vec::new(), in_flight: Vec::new() })
    }

    /// Forgets what an earlier phase left behind when it failed.
    pub fn clear(&mut self) {
        self.idle.extend(self.in_flight.drain(..).map(|(_, arrived)| arrived));
    }

    /// Makes `main` wait for every copy, because the next phase does not know of them.
    pub fn join(&mut self, main: sys::CUstream) -> Result<()> {
        for (_, arrived) in self.in_flight.drain(..) {
            arrived.make_wait(main)?;
            self.idle.push(arrived);
        }
        Ok(())
    }
}

/// Begins a copy of the live rows after everything that is in the main stream now; both ends are contiguous.
pub fn start(l: &Launcher, copies: &mut Copies, copy: &Transfer) -> Result<()> {
    for end in [&copy.from, &copy.to] {
        if end.ld != end.cols {
            return Err(l.refused(end, "must be contiguous"));
        }
    }
    let bytes = l.grid_rows(&copy.from) * copy.from.cols * l.dtype(&copy.from).bytes();
    let (to, from) = (l.address(&copy.to), l.address(&copy.from));
    let arrived = match copies.idle.pop() {
        Some(event) => event,
        None => Event::new()?,
    };
    let to_host = l.program.info(copy.to.buf).place == Place::Host;
    let stream = if to_host { &copies.d2h } else { &copies.h2d };
    copies.begin.record(l.stream)?;
    copies.begin.make_wait(stream.0)?;
    // SAFETY: both ends lie in allocations of the loaded program, whose plan has room for them and gives neither to anyone
    // else before the `Wait`; one address space holds device and pinned host memory, so the driver knows the direction.
    let status = unsafe { sys::cuMemcpyAsync(to, from, bytes, stream.0) };
    status.result().map_err(|e| failed("copy", e))?;
    arrived.record(stream.0)?;
    copies.in_flight.push((*copy, arrived));
    Ok(())
}

/// Makes the main stream wait for the copy.
pub fn wait(l: &Launcher, copies: &mut Copies, copy: &Transfer) -> Result<()> {
    let Some(at) = copies.in_flight.iter().position(|(c, _)| c == copy) else {
        return Err(l.refused(&copy.to, "waits for a copy that was not begun"));
    };
    let (_, arrived) = copies.in_flight.swap_remove(at);
    arrived.make_wait(l.stream)?;
    copies.idle.push(arrived);
    Ok(())
}
