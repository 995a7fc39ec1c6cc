//! The one allocation on the GPU, host memory for copies, and the passage between them and ordinary memory.

use super::gpu::failed;
use super::stream::Event;
use crate::error::{Error, Result};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdeviceptr};

/// Bytes kept for the number of live tokens; the scratch memory begins behind them.
const LIVE_COUNT_BYTES: usize = 256;

/// Overhead beyond the plan: the number of live tokens, and `scratch` bytes of partial results between the launches of one
/// op.
pub fn overhead(scratch: usize) -> usize {
    LIVE_COUNT_BYTES + scratch.next_multiple_of(256)
}

/// Size of each of the two staging buffers.
const STAGING: usize = 16 << 20;

/// Memory of a loaded program.
pub struct DeviceMemory {
    base: CUdeviceptr,
    planned: usize,
    scratch: usize,
    host: Pinned,
}

impl DeviceMemory {
    /// Cleared memory: `planned` bytes on the GPU and what [`overhead`] says, `host` bytes that it can reach.
    pub fn new(planned: usize, scratch: usize, host: usize, stream: sys::CUstream) -> Result<Self> {
        let bytes = planned + overhead(scratch);
        let (free, _) = result::mem_get_info().map_err(|e| failed("ask for free memory", e))?;
        if free < bytes {
            return Err(Error::system(format!(
                "the run needs {} MiB of GPU memory, but {} MiB are free",
                bytes.div_ceil(1 << 20),
                free >> 20
            ))
            .hint("`gradient_checkpointing = true`, a shorter `max_seq_length` or a smaller batch needs less"));
        }
        // SAFETY: a context is current; the memory is cleared below, before anyone reads it.
        let base = unsafe { result::malloc_sync(bytes) }.map_err(|e| failed("allocate memory", e))?;
        // `drop` frees it, also if what follows fails.
        let mut memory = Self { base, planned, scratch, host: Pinned::null() };
        // SAFETY: the allocation has `bytes` bytes; the stream belongs to the current context.
        unsafe { result::memset_d8_async(base, 0, bytes, stream) }.map_err(|e| failed("clear memory", e))?;
        if host > 0 {
            memory.host = Pinned::new(host)?;
            memory.host.slice(0, host).fill(0);
        }
        Ok(memory)
    }

    /// Address of byte `at` of the planned memory.
    pub fn device(&self, at: usize) -> u64 {
        self.base + at as u64
    }
    /// Address of byte `at` of host memory, as the GPU sees it.
    pub fn host(&self, at: usize) -> u64 {
        self.host.start as u64 + at as u64
    }
    /// Address of the number of live tokens (I32).
    pub fn live(&self) -> u64 {
        self.base + self.planned as u64
    }
    /// Address of `bytes` bytes for partial results, if there are as many.
    pub fn partials(&self, bytes: usize) -> Result<u64> {
        if bytes > self.scratch {
            return Err(Error::run(format!("an op needs {bytes} bytes of scratch, and there are {}", self.scratch)));
        }
        Ok(self.live() + LIVE_COUNT_BYTES as u64)
    }

    /// Host memory as a slice; the caller has waited for all copies.
    pub fn host_bytes(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.host.slice(at, len)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once; the driver waits for work that uses it. An error means that the context is
        // gone.
        let _ = unsafe { result::free_sync(self.base) };
    }
}

/// Two pinned buffers through which ordinary memory is copied: one is filled while the other is copied.
pub struct Staging {
    buffers: [Pinned; 2],
    /// Recorded when the copy out of the buffer has ended.
    copied: [Event; 2],
}

impl Staging {
    /// Pins the buffers.
    pub fn new() -> Result<Self> {
        Ok(Self { buffers: [Pinned::new(STAGING)?, Pinned::new(STAGING)?], copied: [Event::new()?, Event::new()?] })
    }

    /// Copies to the address `to` on the GPU, in the stream's order. The bytes are free for other use on return.
    pub fn upload(&mut self, to: u64, bytes: &[u8], stream: sys::CUstream) -> Result<()> {
        for (i, chunk) in bytes.chunks(STAGING).enumerate() {
            let (slot, to) = (i % 2, to + (i * STAGING) as u64);
            self.copied[slot].synchronize()?;
            let from = self.buffers[slot].slice(0, chunk.len());
            from.copy_from_slice(chunk);
            // SAFETY: the destination lies in the allocation (the caller checked the buffer's size); the staging buffer is
            // not written again before the event below.
            unsafe { result::memcpy_htod_async(to, from, stream) }.map_err(|e| failed("copy to the GPU", e))?;
            self.copied[slot].record(stream)?;
        }
        Ok(())
    }

    /// Copies from the address `from` on the GPU, after everything in the stream.
    pub fn download(&mut self, from: u64, bytes: &mut [u8], stream: sys::CUstream) -> Result<()> {
        for (i, chunk) in bytes.chunks_mut(STAGING).enumerate() {
            let to = self.buffers[0].slice(0, chunk.len());
            // SAFETY: the source lies in the allocation (the caller checked the buffer's size); the stream is
            // synchronized before the staging buffer is read. An upload that still reads the buffer precedes in the stream.
            unsafe {
                result::memcpy_dtoh_async(&mut *to, from + (i * STAGING) as u64, stream)
                    .and_then(|()| result::stream::synchronize(stream))
                    .map_err(|e| failed("finish its work", e))?;
            }
            chunk.copy_from_slice(to);
        }
        Ok(())
    }
}

/// Page-locked host memory, which the GPU copies from and to on its own.
struct Pinned {
    start: *mut u8,
    len: usize,
}

impl Pinned {
    fn null() -> Self {
        Self { start: std::ptr::null_mut(), len: 0 }
    }
    fn new(len: usize) -> Result<Self> {
        // Flags 0: cached, unlike the write-combined default of cudarc, which is slow to read.
        // SAFETY: a context is current.
        match unsafe { result::malloc_host(len, 0) } {
            Ok(start) => Ok(Self { start: start.cast(), len }),
            Err(e) => Err(failed(&format!("pin {} MiB of host memory", len >> 20), e)
                .hint("offload less, or raise the limit of locked memory")),
        }
    }
    fn slice(&mut self, at: usize, len: usize) -> &mut [u8] {
        assert!(at + len <= self.len, "{len} bytes at {at} of {} pinned ones", self.len);
        if len == 0 {
            return &mut [];
        }
        // SAFETY: inside the allocation, which lives as long as `self`; bytes have no invalid values.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if !self.start.is_null() {
            // SAFETY: allocated by `malloc_host`, freed once; the driver waits for copies. An error means that the context is gone.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}
