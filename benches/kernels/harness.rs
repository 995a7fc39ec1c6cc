//! Times one op in a phase that repeats it on many sets of buffers. Together these exceed the L2 cache several times,
//! so every op finds a cold cache. Buffers hold normal random numbers, because kernels run faster on zeros.

use criterion::{Criterion, Throughput};
use half::bf16;
use halfbyte_core::device::Device;
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::device::cuda::{Arch, Cuda, CudaOptions};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Buf, BufInfo, Op, Phase, Place, Program, Purpose, Rows, Transfer, View};
use halfbyte_core::plan::plan;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes; larger than any L2 cache.
const FOOTPRINT: usize = 512 << 20;

/// Peak dense TFLOP/s of 16-bit products with f32 accumulation, from the data sheets.
const PEAKS: [(&str, f64); 8] = [
    ("NVIDIA H200", 989.0),
    ("NVIDIA H100 80GB HBM3", 989.0),
    ("NVIDIA H100 PCIe", 756.0),
    ("NVIDIA A100-SXM4-40GB", 312.0),
    ("NVIDIA A100-SXM4-80GB", 312.0),
    ("NVIDIA GeForce RTX 4090", 165.0),
    ("NVIDIA GeForce RTX 4070", 58.0),
    ("NVIDIA GeForce RTX 3090", 71.0),
];

/// One bench.
pub struct Bench {
    /// Name, such as `rms_norm/mistral-7b T=8192`.
    pub name: String,
    /// Builds the op on a new set of buffers.
    pub make: Box<dyn Fn(&mut Buffers) -> Op>,
    /// Bytes that must be moved.
    pub bytes: f64,
    /// Floating-point operations; 0 if the op is bound by memory.
    pub flops: f64,
}

impl Bench {
    /// An op bound by memory.
    pub fn memory(name: impl Into<String>, bytes: usize, make: impl Fn(&mut Buffers) -> Op + 'static) -> Self {
        Self { name: name.into(), make: Box::new(make), bytes: bytes as f64, flops: 0.0 }
    }
    /// An op bound by the tensor cores.
    pub fn compute(name: impl Into<String>, flops: f64, make: impl Fn(&mut Buffers) -> Op + 'static) -> Self {
        Self { name: name.into(), make: Box::new(make), bytes: 0.0, flops }
    }
}

/// Builder of the program, with the contents of its buffers: a pattern that is repeated.
pub struct Buffers {
    program: Program,
    contents: Vec<(Buf, Vec<u8>)>,
    /// Standard normal numbers; buffers repeat them.
    normal: Arc<Vec<f32>>,
}

impl Buffers {
    /// An output buffer.
    pub fn out(&mut self, rows: usize, cols: usize, dtype: DType) -> View {
        let buf = Buf(self.program.bufs.len() as u32);
        let (rows, place) = (Rows::Fixed(rows), Place::Resident(Purpose::Exchange));
        self.program.bufs.push(BufInfo { name: format!("operand {}", buf.0), rows, cols, dtype, place });
        self.program.view(buf)
    }
    /// A buffer of standard normal numbers times `scale`.
    pub fn normal(&mut self, rows: usize, cols: usize, dtype: DType, scale: f32) -> View {
        let view = self.out(rows, cols, dtype);
        let values = self.normal.iter().take(rows * cols).map(|x| x * scale);
        let bytes = match dtype {
            DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
            _ => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        };
        self.contents.push((view.buf, bytes));
        view
    }
    /// A buffer of one or more rows of these values.
    pub fn f32(&mut self, rows: usize, values: &[f32]) -> View {
        let view = self.out(rows, values.len() / rows, DType::F32);
        self.contents.push((view.buf, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
        view
    }
    /// A buffer of i32 values.
    pub fn i32(&mut self, rows: usize, cols: usize, value: impl Fn(usize) -> i32) -> View {
        let view = self.out(rows, cols, DType::I32);
        self.contents.push((view.buf, (0..rows * cols).flat_map(|i| value(i).to_le_bytes()).collect()));
        view
    }
    /// A buffer of i64 values.
    pub fn i64(&mut self, rows: usize, cols: usize, values: &[i64]) -> View {
        let view = self.out(rows, cols, DType::I64);
        self.contents.push((view.buf, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
        view
    }
    /// A buffer of arbitrary bytes.
    pub fn u8(&mut self, rows: usize, cols: usize) -> View {
        let view = self.out(rows, cols, DType::U8);
        self.contents.push((view.buf, (0..rows * cols).map(|i| (i * 167 % 251) as u8).collect()));
        view
    }
}

/// Runs benches on the GPU, or on the CPU if there is none.
pub struct Bencher {
    cuda: Option<Cuda>,
    /// The GPU on the path sm_80, if it prefers another path.
    sm_80: Option<Cuda>,
    /// Measured bandwidth of a copy, in bytes read and written per second.
    copy_rate: f64,
    normal: Arc<Vec<f32>>,
    lines: Vec<String>,
}

impl Bencher {
    /// Opens the GPU, if there is one, and measures its copy bandwidth.
    pub fn new() -> Self {
        // Sums of uniform numbers approximate normal ones; only the spread matters here.
        let mut state = 1u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let normal = Arc::new((0..1 << 18).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect());
        let open = |arch| Cuda::new(CudaOptions { arch, graph: false, ..CudaOptions::default() });
        let cuda = open(None);
        if let Err(e) = &cuda {
            println!("GPU benches SKIPPED ({}); the CPU device is timed instead", e.what());
        }
        let cuda = cuda.ok();
        let sm_80 = cuda.as_ref().filter(|c| c.arch() != Arch::Sm80).and_then(|_| open(Some(Arch::Sm80)).ok());
        let mut bencher = Self { cuda, sm_80, copy_rate: 0.0, normal, lines: Vec::new() };
        if bencher.cuda.is_some() {
            let (rows, cols) = (1 << 14, 1 << 14);
            let copy = Bench::memory("copy", 4 * rows * cols, move |b| {
                let from = b.normal(rows, cols, DType::Bf16, 1.0);
                Op::Start { copy: Transfer { from, to: b.out(rows, cols, DType::Bf16) } }
            });
            let count = bencher.load(&copy);
            let seconds = bencher.time(10).as_secs_f64() / (10 * count) as f64;
            bencher.copy_rate = copy.bytes / seconds;
            println!("copy: {:.0} GB/s, the achievable memory bandwidth", bencher.copy_rate / 1e9);
        }
        bencher
    }

    /// Tokens per bench: 4 × 2048 on a GPU, few on the CPU.
    pub fn tokens(&self) -> usize {
        if self.cuda.is_some() { 8192 } else { 32 }
    }

    /// Times one bench, and prints its rate.
    pub fn run(&mut self, criterion: &mut Criterion, bench: &Bench) {
        self.run_as(criterion, bench, &bench.name);
    }

    /// Times a bench on the path sm_80, if the card has a better one.
    pub fn run_on_sm_80(&mut self, criterion: &mut Criterion, bench: &Bench) {
        if self.sm_80.is_some() {
            std::mem::swap(&mut self.cuda, &mut self.sm_80);
            self.run_as(criterion, bench, &format!("{} sm_80", bench.name));
            std::mem::swap(&mut self.cuda, &mut self.sm_80);
        }
    }

    fn run_as(&mut self, criterion: &mut Criterion, bench: &Bench, name: &str) {
        let mut group = criterion.benchmark_group("kernels");
        if bench.bytes > 0.0 {
            group.throughput(Throughput::Bytes(bench.bytes as u64));
        } else {
            group.throughput(Throughput::Elements(bench.flops as u64));
        }
        let mut best = f64::INFINITY;
        let mut cpu = None;
        let mut count = 0;
        group.bench_function(name, |b| {
            // Loads lazily, so that benches excluded by the filter cost nothing.
            if count == 0 {
                match self.cuda {
                    Some(_) => count = self.load(bench),
                    None => (cpu, count) = (Some(self.load_cpu(bench)), 1),
                }
            }
            b.iter_custom(|iterations| {
                let time = match &mut cpu {
                    None => self.time(iterations),
                    Some(cpu) => {
                        let started = Instant::now();
                        (0..iterations).for_each(|_| cpu.run(Phase::Micro, 1).expect("runs"));
                        started.elapsed()
                    }
                };
                let each = time.div_f64(count as f64);
                best = best.min(each.as_secs_f64() / iterations as f64);
                each
            });
        });
        group.finish();
        if best.is_finite() {
            let rate = if bench.flops > 0.0 {
                let share = self.peak().map(|peak| format!("  {:3.0} % of peak", bench.flops / best / peak * 100.0));
                format!("{:7.1} TFLOP/s{}", bench.flops / best / 1e12, share.unwrap_or_default())
            } else {
                let share = bench.bytes / best / self.copy_rate * 100.0;
                let share = if share.is_finite() { format!("  {share:3.0} % of copy") } else { String::new() };
                format!("{:7.1} GB/s{share}", bench.bytes / best / 1e9)
            };
            self.lines.push(format!("{name:48} {:9.1} us  {rate}", best * 1e6));
        }
    }

    /// Peak FLOP/s from the GPU's data sheet, if known.
    fn peak(&self) -> Option<f64> {
        let name = &self.cuda.as_ref()?.gpu().name;
        PEAKS.iter().find(|(card, _)| card == name).map(|(_, peak)| peak * 1e12)
    }

    /// Prints all rates in one table.
    pub fn table(&self) {
        println!("\n{:48} {:>9}", "bench", "best");
        self.lines.iter().for_each(|line| println!("{line}"));
    }

    /// Builds a program with the op on several sets of buffers; returns the number of sets.
    fn load(&mut self, bench: &Bench) -> usize {
        let mut buffers = self.buffers();
        let mut ops = vec![(bench.make)(&mut buffers)];
        let one: usize = buffers.program.all().map(|b| buffers.program.bytes(b)).sum();
        for _ in 1..FOOTPRINT.div_ceil(one).clamp(2, 32) {
            ops.push((bench.make)(&mut buffers));
        }
        let count = ops.len();
        let device = self.cuda.as_mut().expect("asked for only with a GPU");
        fill(device, buffers, ops);
        // The first run loads the modules and raises the clocks.
        device.run(Phase::Micro, 1).expect("runs");
        device.synchronize().expect("runs");
        count
    }

    fn load_cpu(&self, bench: &Bench) -> Cpu {
        let mut buffers = self.buffers();
        let op = (bench.make)(&mut buffers);
        let mut cpu = Cpu::new(CpuOptions::default());
        fill(&mut cpu, buffers, vec![op]);
        cpu
    }

    fn buffers(&self) -> Buffers {
        let program = Program { tokens: 1, bufs: Vec::new(), phases: Vec::new(), constants: Vec::new() };
        Buffers { program, contents: Vec::new(), normal: self.normal.clone() }
    }

    /// Device time of `runs` runs of the phase.
    fn time(&mut self, runs: u64) -> Duration {
        let device = self.cuda.as_mut().expect("asked for only with a GPU");
        device.time(Phase::Micro, 1, runs as usize).expect("runs")
    }
}

fn fill(device: &mut dyn Device, buffers: Buffers, ops: Vec<Op>) {
    let Buffers { mut program, contents, .. } = buffers;
    program.phases.push((Phase::Micro, ops));
    let program = Arc::new(program);
    device.allocate(program.clone(), Arc::new(plan(&program))).expect("fits");
    for (buf, pattern) in contents {
        let size = program.bytes(buf);
        let chunk = if pattern.len() < size { pattern.repeat((8 << 20) / pattern.len() + 1) } else { pattern };
        for at in (0..size).step_by(chunk.len()) {
            device.write(buf, at, &chunk[..chunk.len().min(size - at)]).expect("fits");
        }
    }
}
