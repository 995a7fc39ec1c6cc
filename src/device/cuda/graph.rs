//! A phase captured as a CUDA graph: one launch instead of a thousand. Grids are cut for the capacity; kernels ask the
//! device how many tokens are live, so one graph serves every run.

use super::gpu::failed;
use crate::error::Result;
use cudarc::driver::result;
use cudarc::driver::sys;

/// An instantiated graph.
pub struct Graph {
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
}

impl Graph {
    /// Captures what `work` puts into `stream`. All kernels that it launches must be loaded: a module cannot be loaded
    /// while a stream is captured.
    pub fn capture(stream: sys::CUstream, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and not the default one.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(|e| failed("capture a graph", e))?;
        let worked = work();
        // SAFETY: the capture was begun above; it must end even if the work failed.
        let graph = unsafe { result::stream::end_capture(stream) };
        worked?;
        let graph = graph.map_err(|e| failed("capture a graph", e))?;
        // SAFETY: the graph was just made.
        match unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) } {
            Ok(exec) => Ok(Self { graph, exec }),
            Err(e) => {
                // SAFETY: made above, not used again.
                let _ = unsafe { result::graph::destroy(graph) };
                Err(failed("prepare a graph", e))
            }
        }
    }

    /// Replays it.
    pub fn launch(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both are alive; the addresses inside stay valid as long as the loaded program, which owns this graph.
        unsafe { result::graph::launch(self.exec, stream) }.map_err(|e| failed("replay a graph", e))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once; the driver keeps what a running replay still needs.
        unsafe {
            let _ = result::graph::exec_destroy(self.exec);
            let _ = result::graph::destroy(self.graph);
        }
    }
}
