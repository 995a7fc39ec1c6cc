//! Streams, and events that order them.

use super::gpu::failed;
use crate::error::Result;
use cudarc::driver::result::{event, stream};
use cudarc::driver::sys;
use std::time::Duration;

/// A queue of work on the GPU.
pub struct Stream(pub sys::CUstream);

impl Stream {
    /// An empty stream.
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
        // SAFETY: created once, destroyed once; the driver lets running work finish. An error means that the context is gone.
        let _ = unsafe { stream::destroy(self.0) };
    }
}

/// A point in a stream that other streams, or the host, can wait for.
pub struct Event(sys::CUevent);

impl Event {
    /// An event for ordering streams. A wait for an event that was never recorded returns at once.
    pub fn new() -> Result<Self> {
        Self::with(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// An event recorded in `stream` that keeps the time, for [`Event::until`].
    pub fn timed(stream: sys::CUstream) -> Result<Self> {
        let event = Self::with(sys::CUevent_flags::CU_EVENT_DEFAULT)?;
        event.record(stream)?;
        Ok(event)
    }

    fn with(flags: sys::CUevent_flags) -> Result<Self> {
        event::create(flags).map(Self).map_err(|e| failed("create an event", e))
    }

    /// Records the end of what is in `stream` now.
    pub fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both were created and live.
        unsafe { event::record(self.0, stream) }.map_err(|e| failed("record an event", e))
    }

    /// Later work in `stream` waits for this event (`cuStreamWaitEvent`).
    pub fn make_wait(&self, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both were created and live.
        unsafe { stream::wait_event(stream, self.0, flags) }.map_err(|e| failed("order its streams", e))
    }

    /// The host waits for this event.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: created and alive.
        unsafe { event::synchronize(self.0) }.map_err(|e| failed("finish its work", e))
    }

    /// Time from this event to a later one. Both are timed, and the stream has passed both.
    pub fn until(&self, later: &Event) -> Result<Duration> {
        // SAFETY: both were recorded.
        let ms = unsafe { event::elapsed(self.0, later.0) }.map_err(|e| failed("read its clock", e))?;
        Ok(Duration::from_secs_f64(f64::from(ms) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once. An error means that the context is gone.
        let _ = unsafe { event::destroy(self.0) };
    }
}
