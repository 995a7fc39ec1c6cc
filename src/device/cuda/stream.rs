//! Streams, and events that order them.

use super::gpu::failed;
use crate::error::Result;
use cudarc::driver::result::{event, stream};
use cudarc::driver::sys;

/// A queue of work on the GPU.
pub struct Stream(pub sys::CUstream);

impl Stream {
    /// An empty one.
    pub fn new() -> Result<Self> {
        // Non-blocking: a capture is not allowed in a stream that waits for the default one.
        stream::create(stream::StreamKind::NonBlocking).map(Self).map_err(|e| failed("create a stream", e))
    }

    /// The host waits until everything in it has ended.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: created and alive.
        unsafe { stream::synchronize(self.0) }.map_err(|e| failed("finish its work", e))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; the driver lets work under way end. An error means that the context is gone.
        let _ = unsafe { stream::destroy(self.0) };
    }
}

/// A place in a stream for which others, or the host, can wait.
pub struct Event(sys::CUevent);

impl Event {
    /// One that was never recorded, which counts as passed.
    pub fn new() -> Result<Self> {
        let made = event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        made.map(Self).map_err(|e| failed("create an event", e))
    }

    /// Means the end of what is in `stream` now.
    pub fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both were created and live.
        unsafe { event::record(self.0, stream) }.map_err(|e| failed("record an event", e))
    }

    /// What comes into `stream` from now on waits for the place last recorded.
    pub fn hold(&self, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both were created and live.
        unsafe { stream::wait_event(stream, self.0, flags) }.map_err(|e| failed("order its streams", e))
    }

    /// The host waits.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: created and alive.
        unsafe { event::synchronize(self.0) }.map_err(|e| failed("finish its work", e))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once. An error means that the context is gone.
        let _ = unsafe { event::destroy(self.0) };
    }
}
