//! The CUDA device: the same programs, replayed by hand-written kernels.
//!
//! Kernels live in `kernels/<family>.cu`, those for Hopper cards in `kernels/sm_90a`; they are embedded (`compiled`) and
//! loaded when they are first used (`modules`), so the binary needs a driver and no toolkit. `launch` turns operands into kernel arguments, one file for each family holds its grids, `exec` matches ops to them.
//! All memory is one allocation (`memory`). One stream orders the kernels, copies run beside them (`copy`); a phase is
//! captured as a graph when it runs for the second time (`graph`). Nothing is allocated and nobody waits inside a step.

mod adamw;
mod attention;
mod compiled;
mod copy;
mod cross_entropy;
mod embed;
mod exec;
mod gemm;
mod gemv;
mod gpu;
mod grad_norm;
mod graph;
mod launch;
mod memory;
mod modules;
mod nf4;
mod permute;
mod pointwise;
mod rms_norm;
mod rope;
mod route;
mod sample;
mod sm_90a;
mod stream;
mod swiglu;
mod tensor_map;

pub use gpu::{Arch, Gpu, driver_version, free_memory, list, select};
pub use modules::{Family, LoadTime};

use super::{About, Device, DeviceKind, DeviceName, Timing};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Buf, Phase, Place, Program};
use crate::plan::Plan;
use crate::plan::cost::Rates;
use copy::Copies;
use cudarc::driver::result;
use cudarc::driver::{CudaContext, sys};
use gpu::failed;
use graph::Graph;
use launch::Launcher;
use memory::{DeviceMemory, Staging};
use modules::Modules;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stream::{Event, Stream};
use tensor_map::TensorMaps;

/// Options of the CUDA device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CudaOptions {
    /// Number of the GPU.
    pub ordinal: usize,
    /// Code path; `None`: the best for the GPU.
    pub arch: Option<Arch>,
    /// Replay phases as CUDA graphs.
    pub graph: bool,
}

impl Default for CudaOptions {
    fn default() -> Self {
        Self { ordinal: 0, arch: None, graph: true }
    }
}

/// Shared memory that a block may have on RTX 30 and 40 cards.
const SMALL_SHARED: usize = 99 << 10;

/// A GPU as a device.
pub struct Cuda {
    // Dropped in this order: graphs and memory, then kernels, then the streams and the context.
    loaded: Option<Loaded>,
    staging: Staging,
    modules: Modules,
    copies: Copies,
    stream: Stream,
    context: Arc<CudaContext>,
    gpu: Gpu,
    arch: Arch,
    options: CudaOptions,
    /// Act as a card with little shared memory.
    limited: bool,
}

struct Loaded {
    graphs: HashMap<Phase, Replay>,
    maps: TensorMaps,
    memory: DeviceMemory,
    program: Arc<Program>,
    plan: Arc<Plan>,
}

/// How far a phase has come on its way to a graph.
enum Replay {
    /// It ran op by op, so all of its kernels are loaded.
    Loaded,
    /// It is captured.
    Captured(Graph),
}

// SAFETY: the driver's handles may be used from any thread that the context is bound to; every method binds it first, and
// `&mut self` keeps two threads from using them at once.
unsafe impl Send for Cuda {}

/// Bytes that the device allocates beyond the plan for `program`: the live count, and scratch for partial sums.
pub fn workspace(program: &Program) -> usize {
    memory::overhead(scratch(program))
}

fn scratch(program: &Program) -> usize {
    let ops = program.phases.iter().flat_map(|(_, ops)| ops);
    ops.map(|op| exec::scratch(op, program.tokens)).max().unwrap_or(0)
}

impl Cuda {
    /// Starts the GPU.
    pub fn new(options: CudaOptions) -> Result<Self> {
        let (gpu, best) = select(options.ordinal)?;
        let arch = options.arch.unwrap_or(best);
        if !arch.runs_on(gpu.capability) {
            return Err(Error::usage(format!("{} cannot run the code path {arch}", gpu.name))
                .hint(format!("leave `--arch` out, or use `--arch {best}`")));
        }
        let context = CudaContext::new(options.ordinal).map_err(|e| failed("start", e))?;
        let stream = Stream::new()?;
        let modules = Modules::new(gpu.capability);
        let (staging, copies) = (Staging::new()?, Copies::new()?);
        Ok(Self { loaded: None, staging, modules, copies, stream, context, gpu, arch, options, limited: false })
    }

    /// The code path that this device uses.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Properties of the GPU in use.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Loads every family for one element type, also those that no program needs yet.
    pub fn load_all(&mut self, elem: DType) -> Result<()> {
        self.bind()?;
        self.modules.set_elem(elem);
        self.modules.load_all(Arch::Sm80)?;
        if self.arch == Arch::Sm80 { Ok(()) } else { self.modules.load_all(self.arch) }
    }

    /// How long each family took to load, in the order of loading.
    pub fn load_times(&self) -> &[LoadTime] {
        &self.modules.times
    }

    /// Free and total bytes, as the driver counts them.
    pub fn memory_info(&self) -> Result<(usize, usize)> {
        self.bind()?;
        result::mem_get_info().map_err(|e| failed("ask for free memory", e))
    }

    /// Replays phases as graphs, or op by op, from the next `allocate` on.
    pub fn use_graphs(&mut self, on: bool) {
        self.options.graph = on;
    }

    /// Imitates RTX 30 and 40 cards: uses the path sm_80, with at most 99 KB of shared memory per block.
    pub fn limit_shared_memory(&mut self, on: bool) {
        self.limited = on;
    }

    /// Time on the device of `runs` runs of a phase, one after the other.
    pub fn time(&mut self, phase: Phase, live: usize, runs: usize) -> Result<Duration> {
        let start = Event::timed(self.stream.0)?;
        (0..runs).try_for_each(|_| self.run(phase, live))?;
        let end = Event::timed(self.stream.0)?;
        self.synchronize()?;
        start.until(&end)
    }

    /// Waits until everything that runs has ended.
    pub fn synchronize(&self) -> Result<()> {
        self.bind()?;
        self.stream.synchronize()
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| failed("be used by this thread", e))
    }

    fn loaded(&mut self) -> Result<&mut Loaded> {
        self.bind()?;
        self.loaded.as_mut().ok_or_else(|| Error::run("the device was used before a program was loaded"))
    }

    /// Puts the ops of `phase` into the stream; `after` is called behind each. `tokens`: what grids are cut for.
    fn replay(&mut self, phase: Phase, tokens: usize, mut after: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let (most, arch) = if self.limited { (SMALL_SHARED, Arch::Sm80) } else { (usize::MAX, self.arch) };
        let (stream, shared_memory) = (self.stream.0, self.gpu.shared_memory.min(most));
        let multiprocessors = self.gpu.multiprocessors;
        self.bind()?;
        let Some(Loaded { program, plan, memory, maps, .. }) = &mut self.loaded else {
            return Err(Error::run("the device was used before a program was loaded"));
        };
        let (modules, copies) = (&mut self.modules, &mut self.copies);
        copies.clear();
        #[rustfmt::skip]
        let mut launcher = Launcher {
            program, plan, memory, modules, maps, stream, tokens, arch, shared_memory, multiprocessors, op: "",
        };
        for (i, op) in program.ops(phase).iter().enumerate() {
            exec::exec(&mut launcher, copies, op)?;
            after(i)?;
        }
        self.copies.join(stream)
    }

    /// Checks `live` and tells the kernels.
    fn begin(&mut self, phase: Phase, live: usize) -> Result<()> {
        let stream = self.stream.0;
        let Loaded { program, memory, .. } = self.loaded()?;
        assert!(live <= program.tokens, "{live} tokens in a program planned for {}", program.tokens);
        if !program.phases.iter().any(|(p, _)| *p == phase) {
            return Err(Error::run(format!("the program has no phase {phase:?}")));
        }
        // SAFETY: the address lies in the allocation; the order of the stream keeps it from kernels that still run.
        let status = unsafe { sys::cuMemsetD32Async(memory.live(), live as u32, 1, stream) };
        status.result().map_err(|e| failed("set the number of tokens", e))
    }

    /// Where byte `at` of `buf` lies: (in host memory, address). Panics if `len` bytes do not fit.
    fn locate(&mut self, buf: Buf, at: usize, len: usize) -> Result<(bool, usize)> {
        let Loaded { program, plan, .. } = self.loaded()?;
        let info = program.info(buf);
        let size = program.bytes(buf);
        assert!(at + len <= size, "{len} bytes at {at} of `{}`, which has {size}", info.name);
        Ok((info.place == Place::Host, plan.address(buf) + at))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // The fields freed next belong to the context, which this thread may never have used. An error means that it is gone.
        let _ = self.bind();
    }
}

impl Device for Cuda {
    fn allocate(&mut self, program: Arc<Program>, plan: Arc<Plan>) -> Result<()> {
        self.bind()?;
        self.loaded = None;
        let has = |dtype| program.bufs.iter().any(|b| b.dtype == dtype);
        if has(DType::F64) || (has(DType::Bf16) && has(DType::F16)) {
            return Err(Error::run("the GPU computes in bfloat16 or float16, and in one of them per program"));
        }
        self.modules.set_elem(if has(DType::F16) { DType::F16 } else { DType::Bf16 });
        let memory = DeviceMemory::new(plan.bytes, scratch(&program), plan.host_bytes, self.stream.0)?;
        let constants = program.clone();
        self.loaded = Some(Loaded { graphs: HashMap::new(), maps: TensorMaps::default(), memory, program, plan });
        for (buf, bytes) in &constants.constants {
            self.write(*buf, 0, bytes)?;
        }
        Ok(())
    }

    fn room(&self, program: &Program) -> Result<Option<usize>> {
        let (free, _) = self.memory_info()?;
        Ok(Some(free.saturating_sub(workspace(program))))
    }

    fn write(&mut self, buf: Buf, at: usize, bytes: &[u8]) -> Result<()> {
        let (on_host, address) = self.locate(buf, at, bytes.len())?;
        if on_host {
            self.synchronize()?;
            self.loaded()?.memory.host_bytes(address, bytes.len()).copy_from_slice(bytes);
            return Ok(());
        }
        let to = self.loaded()?.memory.device(address);
        self.staging.upload(to, bytes, self.stream.0)
    }

    fn read(&mut self, buf: Buf, at: usize, bytes: &mut [u8]) -> Result<()> {
        let (on_host, address) = self.locate(buf, at, bytes.len())?;
        self.synchronize()?;
        let memory = &mut self.loaded()?.memory;
        if on_host {
            bytes.copy_from_slice(memory.host_bytes(address, bytes.len()));
            return Ok(());
        }
        let from = memory.device(address);
        self.staging.download(from, bytes, self.stream.0)
    }

    /// Returns when the work is queued; an error of a kernel appears at the next `read`.
    fn run(&mut self, phase: Phase, live: usize) -> Result<()> {
        self.begin(phase, live)?;
        if !self.options.graph {
            return self.replay(phase, live, |_| Ok(()));
        }
        let stream = self.stream.0;
        match self.loaded()?.graphs.get(&phase) {
            Some(Replay::Captured(graph)) => graph.launch(stream),
            Some(Replay::Loaded) => {
                let capacity = self.loaded()?.program.tokens;
                let graph = Graph::capture(stream, || self.replay(phase, capacity, |_| Ok(())))?;
                graph.launch(stream)?;
                self.loaded()?.graphs.insert(phase, Replay::Captured(graph));
                Ok(())
            }
            None => {
                self.replay(phase, live, |_| Ok(()))?;
                self.loaded()?.graphs.insert(phase, Replay::Loaded);
                Ok(())
            }
        }
    }

    fn profile(&mut self, phase: Phase, live: usize) -> Result<Vec<Timing>> {
        self.begin(phase, live)?;
        let (stream, mut marks) = (self.stream.0, vec![Event::timed(self.stream.0)?]);
        self.replay(phase, live, |_| {
            marks.push(Event::timed(stream)?);
            Ok(())
        })?;
        self.synchronize()?;
        let pairs = marks.windows(2).enumerate();
        pairs.map(|(op, pair)| Ok(Timing { op, time: pair[0].until(&pair[1])? })).collect()
    }

    fn about(&self) -> About {
        let words = format!("{}, {}", DeviceName::Cuda(self.gpu.ordinal), self.gpu.name);
        About {
            kind: DeviceKind::Cuda,
            words,
            bus: gpu::bus_id(self.gpu.ordinal),
            rates: Rates::measured(&self.gpu.name),
        }
    }
}
