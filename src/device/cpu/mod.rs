//! The CPU device: the definition of every op, the oracle of every kernel test, and the way to run without a GPU.
//!
//! Each family is a file of plain functions from matrices to matrices. This file brings them together: it loads the
//! operands of an op in the accumulator type (f32; f64 for f64 programs), calls the function, and stores the result,
//! which rounds it to the buffer's type. So `memory` alone knows about "storage in bf16, arithmetic in f32".

pub mod adamw;
mod attention;
pub mod cross_entropy;
mod embed;
mod exec;
mod gemm;
mod gemv;
pub mod grad_norm;
mod memory;
mod nf4;
mod permute;
pub mod pointwise;
mod real;
mod rms_norm;
mod rope;
mod route;
pub mod sample;
mod swiglu;

pub use memory::CpuMemory;
pub use real::Real;

use super::{About, Device, DeviceKind, Timing};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Access, Buf, Op, Phase, Place, Program, View};
use crate::plan::Plan;
use crate::plan::cost::Rates;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// Rates of this CPU, measured once.
static RATES: LazyLock<Rates> = LazyLock::new(rates);

/// Measures the rates of this CPU in a few milliseconds.
pub fn rates() -> Rates {
    // Operands are loaded in the accumulator type: so loading them widens every byte.
    let narrow = vec![half::bf16::ONE; 1 << 20];
    let mut wide = vec![0.0_f32; narrow.len()];
    let seconds = median(|| {
        let narrow = std::hint::black_box(&narrow);
        wide.iter_mut().zip(narrow).for_each(|(wide, x)| *wide = x.to_f32());
        std::hint::black_box(&wide);
    });
    let bytes = 2.0 * narrow.len() as f64 / seconds;
    Rates { flops: gemm::measured_flops(), bytes, op: 1e-6, link: bytes }
}

/// Seconds of a run, the median of some: one alone is often disturbed, by the first touch of memory or by other programs.
fn median(mut run: impl FnMut()) -> f64 {
    let mut seconds = [0.0; 9];
    for seconds in &mut seconds {
        let began = Instant::now();
        run();
        *seconds = began.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}

/// Options of the CPU device, for tests and for hunting errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuOptions {
    /// Fill arena buffers with NaN before their first write and after their last use.
    pub poison: bool,
    /// Carry out asynchronous copies at their `Wait` instead of at their `Start`: both must give the same bits.
    pub late_copies: bool,
}

/// An operand that an op has just written. An observer must copy it, because arena buffers do not outlive the run.
pub struct Written<'a> {
    /// The phase that runs.
    pub phase: Phase,
    /// The buffer's name.
    pub name: &'a str,
    view: View,
    live: usize,
    memory: &'a CpuMemory,
}

impl Written<'_> {
    /// The live rows of the operand, one after the other; empty for integers.
    pub fn values(&self) -> Vec<f64> {
        match self.memory.dtype(&self.view) {
            DType::F64 => self.memory.load::<f64>(&self.view, self.live).data().to_vec(),
            dtype if dtype.is_float() => {
                self.memory.load::<f32>(&self.view, self.live).data().iter().map(|&x| f64::from(x)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Called after each op, once for each operand that it wrote.
pub type Observer = Box<dyn FnMut(Written) + Send>;

/// The CPU as a device.
#[derive(Default)]
pub struct Cpu {
    options: CpuOptions,
    observer: Option<Observer>,
    loaded: Option<CpuProgram>,
}

struct CpuProgram {
    program: Arc<Program>,
    plan: Arc<Plan>,
    memory: CpuMemory,
}

impl Cpu {
    /// A CPU device.
    pub fn new(options: CpuOptions) -> Self {
        Self { options, observer: None, loaded: None }
    }

    /// Shows `observer` everything that is written from now on.
    pub fn observed(self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    fn loaded(&mut self) -> Result<&mut CpuProgram> {
        self.loaded.as_mut().ok_or_else(|| Error::run("the device was used before a program was loaded"))
    }

    fn run_ops(&mut self, phase: Phase, live: usize, mut after: impl FnMut(usize, Instant)) -> Result<()> {
        let options = self.options;
        // Taken out while the rest of the device is borrowed.
        let mut observer = self.observer.take();
        let CpuProgram { program, plan, memory } = self.loaded()?;
        assert!(live <= program.tokens, "{live} tokens in a program planned for {}", program.tokens);
        let Some(index) = program.phases.iter().position(|(p, _)| *p == phase) else {
            return Err(Error::run(format!("the program has no phase {phase:?}")));
        };
        let wide = program.bufs.iter().any(|b| b.dtype == DType::F64);
        for (i, op) in program.phases[index].1.iter().enumerate() {
            if options.poison {
                poison(memory, program, plan, op, |life| life.first == i);
            }
            let started = Instant::now();
            if wide {
                exec::exec::<f64>(memory, op, live, options.late_copies);
            } else {
                exec::exec::<f32>(memory, op, live, options.late_copies);
            }
            after(i, started);
            if let Some(observer) = &mut observer {
                for (view, _) in op.accesses().into_iter().filter(|(_, access)| *access != Access::Read) {
                    let name = &program.info(view.buf).name;
                    observer(Written { phase, name, view, live, memory });
                }
            }
            if options.poison {
                poison(memory, program, plan, op, |life| life.last == i);
            }
        }
        self.observer = observer;
        Ok(())
    }
}

/// Fills with NaN the arena operands of `op` whose life satisfies `when` — except where another buffer of the op shares
/// their address.
fn poison(memory: &mut CpuMemory, program: &Program, plan: &Plan, op: &Op, when: impl Fn(crate::plan::Life) -> bool) {
    let arena = |b: Buf| program.info(b).place == Place::Arena;
    let touched: Vec<(Buf, Access)> = op.accesses().iter().map(|(v, a)| (v.buf, *a)).collect();
    for &(buf, _) in touched.iter().filter(|(b, _)| arena(*b)) {
        let shared = touched
            .iter()
            .any(|(other, _)| *other != buf && plan.address(*other) == plan.address(buf) && arena(*other));
        if !shared && plan.life[buf.0 as usize].is_some_and(&when) {
            memory.poison(buf);
        }
    }
}

impl Device for Cpu {
    fn allocate(&mut self, program: Arc<Program>, plan: Arc<Plan>) -> Result<()> {
        let mut memory = CpuMemory::new(program.clone(), plan.clone())?;
        for (buf, bytes) in &program.constants {
            memory.bytes_mut(*buf).copy_from_slice(bytes);
        }
        self.loaded = Some(CpuProgram { program, plan, memory });
        Ok(())
    }

    fn room(&self, _program: &Program) -> Result<Option<usize>> {
        Ok(None)
    }

    fn write(&mut self, buf: Buf, at: usize, bytes: &[u8]) -> Result<()> {
        self.loaded()?.memory.bytes_mut(buf)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, buf: Buf, at: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&self.loaded()?.memory.bytes(buf)[at..at + bytes.len()]);
        Ok(())
    }

    fn run(&mut self, phase: Phase, live: usize) -> Result<()> {
        self.run_ops(phase, live, |_, _| ())
    }

    fn about(&self) -> About {
        About { kind: DeviceKind::Cpu, words: "cpu".into(), bus: None, rates: Some(*RATES) }
    }

    fn profile(&mut self, phase: Phase, live: usize) -> Result<Vec<Timing>> {
        let mut timings = Vec::new();
        self.run_ops(phase, live, |op, started| timings.push(Timing { op, time: started.elapsed() }))?;
        Ok(timings)
    }
}
