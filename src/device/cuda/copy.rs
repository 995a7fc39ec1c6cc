//! Asynchronous copies: they run on streams of their own, beside the kernels, and events order them. A capture follows the
//! events, so that in a graph, too, copies run beside kernels.

use super::gpu::failed;
use super::launch::Launcher;
use super::stream::{Event, Stream};
use crate::error::Result;
use crate::op::{Place, Transfer};
use cudarc::driver::sys;

/// The streams of copies and what is under way on them.
pub struct Copies {
    // Each direction has an engine of its own: what goes out does not hold up what comes in.
    out: Stream,
    home: Stream,
    /// Marks in the main stream from where on a copy may begin. It can be used again as soon as the copy's stream waits.
    begin: Event,
    /// Events that nobody waits for.
    idle: Vec<Event>,
    under_way: Vec<(Transfer, Event)>,
}

impl Copies {
    /// Nothing under way.
    pub fn new() -> Result<Self> {
        let (out, home, begin) = (Stream::new()?, Stream::new()?, Event::new()?);
        Ok(Self { out, home, begin, idle: Vec::new(), under_way: Vec::new() })
    }

    /// Forgets what an earlier phase left behind when it failed.
    pub fn clear(&mut self) {
        self.idle.extend(self.under_way.drain(..).map(|(_, arrived)| arrived));
    }

    /// Holds `main` until every copy has arrived: the next phase does not know of them.
    pub fn join(&mut self, main: sys::CUstream) -> Result<()> {
        for (_, arrived) in self.under_way.drain(..) {
            arrived.hold(main)?;
            self.idle.push(arrived);
        }
        Ok(())
    }
}

/// Begins a copy of the live rows behind everything in the main stream; both ends are contiguous.
pub fn start(l: &mut Launcher, copy: &Transfer) -> Result<()> {
    for end in [&copy.from, &copy.to] {
        if end.ld != end.cols {
            return Err(l.refused(end, "must be contiguous"));
        }
    }
    let bytes = l.grid_rows(&copy.from) * copy.from.cols * l.dtype(&copy.from).bytes();
    let (to, from) = (l.address(&copy.to), l.address(&copy.from));
    let arrived = match l.copies.idle.pop() {
        Some(event) => event,
        None => Event::new()?,
    };
    let to_host = l.program.info(copy.to.buf).place == Place::Host;
    let stream = if to_host { &l.copies.out } else { &l.copies.home };
    l.copies.begin.record(l.stream)?;
    l.copies.begin.hold(stream.0)?;
    // SAFETY: both ends lie in allocations of the loaded program, whose plan has room for them and gives neither to anyone
    // else before the `Wait`; one address space holds device and pinned host memory, so the driver knows the direction.
    let status = unsafe { sys::cuMemcpyAsync(to, from, bytes, stream.0) };
    status.result().map_err(|e| failed("copy", e))?;
    arrived.record(stream.0)?;
    l.copies.under_way.push((*copy, arrived));
    Ok(())
}

/// Holds the main stream until the copy has arrived.
pub fn wait(l: &mut Launcher, copy: &Transfer) -> Result<()> {
    let Some(at) = l.copies.under_way.iter().position(|(c, _)| c == copy) else {
        return Err(l.refused(&copy.to, "waits for a copy that was not begun"));
    };
    let (_, arrived) = l.copies.under_way.swap_remove(at);
    arrived.hold(l.stream)?;
    l.copies.idle.push(arrived);
    Ok(())
}
