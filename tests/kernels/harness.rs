//! Runs one op alone on each device. Only its declared reads hold data, everything else is NaN; afterwards only its
//! declared writes may have changed, and all of them must have. The CPU in f32 is the "exact" result, the CPU with
//! 16-bit buffers the "rounded" one; the GPU's error may be at most twice that of the rounded result.

use crate::cases::gpu_is_required;
use half::{bf16, f16};
use halfbyte_core::device::Device;
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::device::cuda::{Arch, Cuda, CudaOptions};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Access, Buf, BufInfo, Op, Phase, Place, Program, Purpose, Rows, View};
use halfbyte_core::plan::plan;
use std::sync::Arc;

/// One op and its operands.
pub struct Case {
    /// Name in the form of a path: `rms_norm/T=77 D=4096`.
    pub name: String,
    /// Tokens that the program is planned for.
    pub capacity: usize,
    /// Tokens of the run.
    pub live: usize,
    /// Builds the op; called once per element type, with the same random numbers.
    pub make: Box<dyn Fn(&mut Build) -> Op>,
    /// Limit on the relative L2 error of 16-bit outputs, in addition to the 2× rule.
    pub limit: f64,
    /// Limit on the relative L2 error of f32 outputs, for which rounded and exact may be the same arithmetic.
    pub limit_f32: f64,
    /// Whether the GPU must be bit-equal to the rounded CPU.
    pub bits: bool,
    /// Whether the GPU runs the case [`REPEATS`] times, and must give the same bits each time.
    pub repeated: bool,
}

impl Case {
    /// A case whose capacity exceeds `live` by a few tokens, with the limits for an op that rounds its results once.
    pub fn new(name: impl Into<String>, live: usize, make: impl Fn(&mut Build) -> Op + 'static) -> Self {
        let make = Box::new(make);
        Self {
            name: name.into(),
            capacity: live + 5,
            live,
            make,
            limit: 2.5e-3,
            limit_f32: 1e-5,
            bits: false,
            repeated: false,
        }
    }
    /// Sets other limits on the error of 16-bit and of f32 outputs.
    pub fn limits(self, limit: f64, limit_f32: f64) -> Self {
        Self { limit, limit_f32, ..self }
    }
    /// Total size of the operands, with f32 for those of the element type.
    pub fn bytes(&self) -> usize {
        let mut build = Build::new(self, DType::F32, DType::F32);
        (self.make)(&mut build);
        build.program.all().map(|buf| build.program.bytes(buf)).sum()
    }
    /// Requires results that are bit-equal to the CPU's.
    pub fn bits(self) -> Self {
        Self { bits: true, ..self }
    }
    /// Also run many times over: for kernels whose threads hand data to each other in ways that could race.
    pub fn repeated(self) -> Self {
        Self { repeated: true, ..self }
    }
}

/// Runs of a case that is repeated.
const REPEATS: usize = 1000;

/// Values of an operand.
enum Values {
    Float(Vec<f32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
}

/// Builder of a program with one op.
pub struct Build {
    program: Program,
    inputs: Vec<(View, Values)>,
    /// Buffers of the element type. In the exact program they are F32 like all others.
    elems: Vec<Buf>,
    /// The element type; F32 in the exact program.
    elem: DType,
    /// Type to which inputs of the element type are rounded, in the exact program too.
    rounding: DType,
    random: u64,
}

impl Build {
    fn new(case: &Case, elem: DType, rounding: DType) -> Self {
        let program = Program { tokens: case.capacity, bufs: Vec::new(), phases: Vec::new(), constants: Vec::new() };
        // The name is the random seed, so all types and devices get the same numbers.
        let random =
            case.name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        Self { program, inputs: Vec::new(), elems: Vec::new(), elem, rounding, random }
    }

    /// A buffer of the element type.
    pub fn elem(&mut self, rows: Rows, cols: usize) -> View {
        let view = self.buf(rows, cols, self.elem);
        self.elems.push(view.buf);
        view
    }
    /// A buffer of the given type.
    pub fn buf(&mut self, rows: Rows, cols: usize, dtype: DType) -> View {
        let buf = Buf(self.program.bufs.len() as u32);
        let place = Place::Resident(Purpose::Exchange);
        self.program.bufs.push(BufInfo { name: format!("operand {}", buf.0), rows, cols, dtype, place });
        self.program.view(buf)
    }
    /// An input of the element type: standard normal numbers times `scale`.
    pub fn normal(&mut self, rows: Rows, cols: usize, scale: f32) -> View {
        let view = self.elem(rows, cols);
        self.fill(view, scale)
    }
    /// An f32 input: standard normal numbers times `scale`.
    pub fn normal_f32(&mut self, rows: Rows, cols: usize, scale: f32) -> View {
        let view = self.buf(rows, cols, DType::F32);
        self.fill(view, scale)
    }
    /// Makes `view` an input: standard normal numbers times `scale`.
    pub fn fill(&mut self, view: View, scale: f32) -> View {
        let n = view.rows.count(self.program.tokens) * view.cols;
        let values = (0..n).map(|_| self.gauss() * scale).collect();
        self.float(view, values)
    }
    /// Makes `view` an input with these values, rounded if the view is of the element type.
    pub fn float(&mut self, view: View, mut values: Vec<f32>) -> View {
        if self.elems.contains(&view.buf) {
            values.iter_mut().for_each(|v| *v = self.rounding.round(*v));
        }
        self.inputs.push((view, Values::Float(values)));
        view
    }
    /// An I32 input.
    pub fn i32(&mut self, rows: Rows, cols: usize, values: Vec<i32>) -> View {
        let view = self.buf(rows, cols, DType::I32);
        self.inputs.push((view, Values::I32(values)));
        view
    }
    /// An I64 input.
    pub fn i64(&mut self, rows: Rows, cols: usize, values: Vec<i64>) -> View {
        let view = self.buf(rows, cols, DType::I64);
        self.inputs.push((view, Values::I64(values)));
        view
    }
    /// A U8 input.
    pub fn u8(&mut self, rows: Rows, cols: usize, values: Vec<u8>) -> View {
        let view = self.buf(rows, cols, DType::U8);
        self.inputs.push((view, Values::U8(values)));
        view
    }
    /// Tokens that the program is planned for.
    pub fn tokens(&self) -> usize {
        self.program.tokens
    }
    /// A random integer below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
    /// A standard normal number, approximated by the sum of twelve uniform ones.
    pub fn gauss(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele et al. 2014).
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// One output of an op.
#[derive(PartialEq)]
struct Output {
    dtype: DType,
    /// The live elements, as stored.
    bytes: Vec<u8>,
}

impl Output {
    fn floats(&self) -> Vec<f64> {
        let chunks = |n| self.bytes.chunks_exact(n);
        match self.dtype {
            DType::F32 => chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
            DType::Bf16 => chunks(2).map(|b| f64::from(bf16::from_le_bytes([b[0], b[1]]))).collect(),
            DType::F16 => chunks(2).map(|b| f64::from(f16::from_le_bytes([b[0], b[1]]))).collect(),
            _ => Vec::new(),
        }
    }
}

/// The devices under test.
pub struct Devices {
    /// The first GPU, once per code path that it can run. The preferred path is first.
    paths: Vec<Cuda>,
    why_not: String,
}

impl Devices {
    /// The CPU, and the first GPU if there is one.
    pub fn new() -> Self {
        let open = |arch| Cuda::new(CudaOptions { arch, graph: false, ..CudaOptions::default() });
        let paths = open(None).and_then(|best| match best.arch() {
            Arch::Sm80 => Ok(vec![best]),
            Arch::Sm90a => Ok(vec![best, open(Some(Arch::Sm80))?]),
        });
        match paths {
            Ok(paths) => Self { paths, why_not: String::new() },
            Err(e) => {
                let why_not = e.what().to_string();
                println!("GPU part SKIPPED: {why_not}");
                Self { paths: Vec::new(), why_not }
            }
        }
    }

    /// Summary of the devices that ran.
    pub fn summary(&self) -> String {
        let Some(best) = self.paths.first() else { return format!("on the CPU only, GPU SKIPPED: {}", self.why_not) };
        let paths: Vec<String> = self.paths.iter().map(|cuda| cuda.arch().to_string()).collect();
        let times = self.paths.iter().flat_map(Cuda::load_times);
        let slowest = times.clone().max_by_key(|t| t.time);
        let slowest = slowest.map_or(String::new(), |t| format!("{:?} {} ms", t.family, t.time.as_millis()));
        let total: u128 = times.map(|t| t.time.as_millis()).sum();
        let paths = paths.join(" and ");
        format!("on the CPU and {}, {paths}; modules loaded in {total} ms, slowest {slowest}", best.gpu().name)
    }

    /// Whether `REQUIRE_GPU=1` is set but there is no GPU.
    pub fn gpu_is_missing_but_required(&self) -> bool {
        self.paths.is_empty() && gpu_is_required()
    }

    /// Runs a case on all devices in bf16 and f16, with separate outputs and in place.
    pub fn check(&mut self, case: &Case) -> Result<String, String> {
        let mut report = Vec::new();
        for rounding in [DType::Bf16, DType::F16] {
            report.push(self.check_type(case, rounding).map_err(|e| format!("{}: {e}", rounding.torch_name()))?);
        }
        Ok(report.join("; "))
    }

    fn check_type(&mut self, case: &Case, rounding: DType) -> Result<String, String> {
        let mut cpu = Cpu::new(CpuOptions::default());
        let exact = run(&mut cpu, case, DType::F32, rounding, None).map_err(|e| format!("CPU, f32: {e}"))?;
        let rounded = run(&mut cpu, case, rounding, rounding, None).map_err(|e| format!("CPU, rounded: {e}"))?;
        let places = places(case, rounding);
        for place in &places {
            let again =
                run(&mut cpu, case, rounding, rounding, Some(*place)).map_err(|e| format!("CPU, in place: {e}"))?;
            if again != rounded {
                return Err("the CPU's bits differ in place".into());
            }
        }
        if self.paths.is_empty() {
            return Ok(format!("{} cpu ok", rounding.torch_name()));
        }
        let mut report = rounding.torch_name().to_string();
        for (i, cuda) in self.paths.iter_mut().enumerate() {
            let path = cuda.arch().to_string();
            let gpu = on_gpu(cuda, case, rounding, &places).map_err(|e| format!("{path}: {e}"))?;
            let worst = compare(case, &exact, &rounded, &gpu).map_err(|e| format!("{path}: {e}"))?;
            report += &format!(" {path} {worst}");
            // Only the preferred path is repeated, to save time.
            if case.repeated && i == 0 {
                repeat(cuda, case, rounding, &gpu).map_err(|e| format!("{path}: {e}"))?;
                report += &format!(", same bits in {REPEATS} runs");
            }
        }
        Ok(report)
    }
}

/// Returns the outputs of one code path. Checks that running in place, with small shared memory and in a graph gives the same
/// bits.
fn on_gpu(cuda: &mut Cuda, case: &Case, rounding: DType, places: &[(View, View)]) -> Result<Vec<Output>, String> {
    cuda.use_graphs(false);
    let gpu = run(cuda, case, rounding, rounding, None)?;
    for place in places {
        if run(cuda, case, rounding, rounding, Some(*place)).map_err(|e| format!("in place: {e}"))? != gpu {
            return Err("the bits differ in place".into());
        }
    }
    if cuda.arch() == Arch::Sm80 {
        cuda.limit_shared_memory(true);
        let small = run(cuda, case, rounding, rounding, None);
        cuda.limit_shared_memory(false);
        if small.map_err(|e| format!("small shared memory: {e}"))? != gpu {
            return Err("the bits differ with small shared memory".into());
        }
    }
    cuda.use_graphs(true);
    if run(cuda, case, rounding, rounding, None).map_err(|e| format!("in a graph: {e}"))? != gpu {
        return Err("the bits differ in a graph".into());
    }
    Ok(gpu)
}

/// Runs the case [`REPEATS`] times on the same operands. The results must be bit-equal to `first` each time.
fn repeat(cuda: &mut Cuda, case: &Case, rounding: DType, first: &[Output]) -> Result<(), String> {
    let mut build = Build::new(case, rounding, rounding);
    let op = (case.make)(&mut build);
    let written: Vec<View> = op.accesses().iter().filter(|(_, a)| *a == Access::Write).map(|(v, _)| *v).collect();
    let mut program = build.program;
    program.phases.push((Phase::Micro, vec![op]));
    let program = Arc::new(program);
    let said = |e: halfbyte_core::error::Error| e.to_string();
    cuda.allocate(program.clone(), Arc::new(plan(&program))).map_err(said)?;
    for (view, values) in &build.inputs {
        let (size, mut bytes) = (program.info(view.buf).dtype.bytes(), vec![0xFF; program.bytes(view.buf)]);
        put(&mut bytes, view, case.capacity, size, &encoded(values, program.info(view.buf).dtype));
        cuda.write(view.buf, 0, &bytes).map_err(said)?;
    }
    let mut after: Vec<Vec<u8>> = written.iter().map(|v| vec![0; program.bytes(v.buf)]).collect();
    for repetition in 1..=REPEATS {
        cuda.run(Phase::Micro, case.live).map_err(said)?;
        for ((view, bytes), first) in written.iter().zip(&mut after).zip(first) {
            cuda.read(view.buf, 0, bytes).map_err(said)?;
            // The results of repeated cases start at the first byte of their buffers and are contiguous.
            if bytes[..first.bytes.len()] != first.bytes {
                return Err(format!("the bits of {} differ in run {repetition}", program.info(view.buf).name));
            }
        }
    }
    Ok(())
}

/// Pairs (output, input) of equal shape and type for which the op allows the output in place of the input.
fn places(case: &Case, elem: DType) -> Vec<(View, View)> {
    let mut build = Build::new(case, elem, elem);
    let op = (case.make)(&mut build);
    let mut pairs = op.may_take();
    pairs.retain(|(out, from)| {
        let shape = |v: &View| (v.rows, v.cols, build.program.info(v.buf).dtype);
        out.buf != from.buf && shape(out) == shape(from)
    });
    pairs
}

/// Runs the case on one device, checks its reads and writes, and returns its outputs. Runs it three times on fresh
/// inputs, since a device with graphs replays only the third.
fn run(
    device: &mut dyn Device,
    case: &Case,
    elem: DType,
    rounding: DType,
    place: Option<(View, View)>,
) -> Result<Vec<Output>, String> {
    let mut build = Build::new(case, elem, rounding);
    let mut op = (case.make)(&mut build);
    if let Some((out, from)) = place {
        op.visit(&mut |view, _| {
            if *view == out {
                *view = from;
            }
        });
    }
    let accesses = op.accesses();
    let mut program = build.program;
    program.phases.push((Phase::Micro, vec![op]));
    let program = Arc::new(program);
    let said = |e: halfbyte_core::error::Error| e.to_string();
    device.allocate(program.clone(), Arc::new(plan(&program))).map_err(said)?;

    // 0xFF bytes are NaN in every float type and −1 in the integers. The operands that the op may read are filled in
    // below.
    let nothing: Vec<Vec<u8>> = program.all().map(|b| vec![0xFF; program.bytes(b)]).collect();
    let (mut full, mut before) = (nothing.clone(), nothing);
    for (view, values) in &build.inputs {
        let dtype = program.info(view.buf).dtype;
        put(&mut full[view.buf.0 as usize], view, case.capacity, dtype.bytes(), &encoded(values, dtype));
    }
    for (view, _) in accesses.iter().filter(|(_, access)| *access != Access::Write) {
        let (i, size) = (view.buf.0 as usize, program.info(view.buf).dtype.bytes());
        put(&mut before[i], view, case.live, size, &take(&full[i], view, case.live, size));
    }
    let mut after = before.clone();
    for _ in 0..3 {
        for buf in program.all() {
            device.write(buf, 0, &before[buf.0 as usize]).map_err(said)?;
        }
        device.run(Phase::Micro, case.live).map_err(said)?;
        for buf in program.all() {
            device.read(buf, 0, &mut after[buf.0 as usize]).map_err(said)?;
        }
    }

    let written: Vec<View> = accesses.iter().filter(|(_, a)| *a != Access::Read).map(|(v, _)| *v).collect();
    let outputs: Vec<Output> = written
        .iter()
        .map(|v| Output {
            dtype: program.info(v.buf).dtype,
            bytes: take(&after[v.buf.0 as usize], v, case.live, program.info(v.buf).dtype.bytes()),
        })
        .collect();
    for (view, output) in written.iter().zip(&outputs) {
        if let Some(i) = output.floats().iter().position(|x| x.is_nan()) {
            return Err(format!(
                "element {i} of {} is NaN: it was not written, or the op read undeclared data",
                program.info(view.buf).name
            ));
        }
    }
    for view in &written {
        // Restores the declared writes; everything else must be unchanged.
        let size = program.info(view.buf).dtype.bytes();
        let old = take(&before[view.buf.0 as usize], view, case.live, size);
        put(&mut after[view.buf.0 as usize], view, case.live, size, &old);
    }
    for buf in program.all() {
        let (old, new) = (&before[buf.0 as usize], &after[buf.0 as usize]);
        if let Some(at) = old.iter().zip(new).position(|(a, b)| a != b) {
            return Err(format!("byte {at} of {} was written but not declared", program.info(buf).name));
        }
    }
    Ok(outputs)
}

/// Checks the errors of all outputs, and describes the worst.
fn compare(case: &Case, exact: &[Output], rounded: &[Output], gpu: &[Output]) -> Result<String, String> {
    let mut worst = (0.0, String::from("exact"));
    for (i, ((e, r), g)) in exact.iter().zip(rounded).zip(gpu).enumerate() {
        if !g.dtype.is_float() || case.bits {
            let wanted = if g.dtype.is_float() { r } else { e };
            if g.bytes != wanted.bytes {
                let at = g.bytes.iter().zip(&wanted.bytes).position(|(a, b)| a != b).unwrap_or(0);
                let count = g.bytes.iter().zip(&wanted.bytes).filter(|(a, b)| a != b).count();
                return Err(format!("output {i}: {count} bytes differ, the first is byte {at} of {}", g.bytes.len()));
            }
            continue;
        }
        let (of_gpu, of_cpu) = (error(g, e), error(r, e));
        let (limit, unit) = match g.dtype {
            DType::Bf16 => (case.limit, 2f64.powi(-8)),
            DType::F16 => (case.limit / 4.0, 2f64.powi(-11)),
            _ => (case.limit_f32.max(2.0 * of_cpu), case.limit_f32),
        };
        // The limit assumes many elements; with few, rounding may happen to be worse.
        let allowed = (2.0 * of_cpu).max(unit).min(limit.max(1.25 * of_cpu));
        // A NaN must fail too.
        if of_gpu.is_nan() || of_gpu > allowed {
            return Err(format!("output {i}: error {of_gpu:.2e}, rounded {of_cpu:.2e}, allowed {allowed:.2e}"));
        }
        if of_gpu / allowed >= worst.0 {
            worst = (of_gpu / allowed, format!("{of_gpu:.1e} (rounded {of_cpu:.1e}, allowed {allowed:.1e})"));
        }
    }
    Ok(worst.1)
}

/// `‖a − e‖ / ‖e‖`. Infinities must agree; the norm leaves them out.
fn error(a: &Output, exact: &Output) -> f64 {
    let (a, e) = (a.floats(), exact.floats());
    let difference: f64 = a.iter().zip(&e).map(|(a, e)| if a == e { 0.0 } else { (a - e) * (a - e) }).sum();
    let norm: f64 = e.iter().filter(|e| e.is_finite()).map(|e| e * e).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

fn encoded(values: &Values, dtype: DType) -> Vec<u8> {
    match values {
        Values::Float(v) => match dtype {
            DType::Bf16 => v.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            DType::F16 => v.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            _ => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        },
        Values::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Values::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Values::U8(v) => v.clone(),
    }
}

/// The live rows of `view`, concatenated.
fn take(buffer: &[u8], view: &View, live: usize, size: usize) -> Vec<u8> {
    let rows = 0..view.rows.count(live);
    rows.flat_map(|i| &buffer[(view.offset + i * view.ld) * size..][..view.cols * size]).copied().collect()
}

/// The reverse of `take`; `data` may hold more rows than are live.
fn put(buffer: &mut [u8], view: &View, live: usize, size: usize, data: &[u8]) {
    for i in 0..view.rows.count(live) {
        let row = &data[i * view.cols * size..][..view.cols * size];
        buffer[(view.offset + i * view.ld) * size..][..row.len()].copy_from_slice(row);
    }
}
