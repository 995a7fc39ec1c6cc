//! `halfbyte devices`: the devices of this machine, and the code path that a run would use on each.

use super::human_bytes;
use halfbyte_core::device::cuda::{self, Cuda, CudaOptions, Gpu, LoadTime};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use std::time::Duration;

/// Arguments of `devices`.
#[derive(clap::Args, Debug)]
pub struct DevicesArgs {
    /// Also load all kernels on each GPU and print what was loaded, machine code or PTX, and how long each family takes
    #[arg(long)]
    kernels: bool,
}

/// Prints the version, the driver, and each GPU with its code path. A machine without a GPU is not an error: the run
/// then uses the CPU.
pub fn run(args: DevicesArgs) -> Result<()> {
    say!("halfbyte {}", env!("CARGO_PKG_VERSION"));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    say!("cpu     {threads} threads");
    let gpus = match gpus() {
        Ok(gpus) => gpus,
        Err(error) => {
            say!("cuda    none: {error}");
            return Ok(());
        }
    };
    for gpu in gpus.iter().filter(|gpu| args.kernels && gpu.arch.is_some()) {
        print_load_times(gpu.ordinal)?;
    }
    Ok(())
}

/// Prints the driver version and the GPUs, and returns the GPUs.
fn gpus() -> Result<Vec<Gpu>> {
    let (major, minor) = cuda::driver_version()?;
    let gpus = cuda::list()?;
    say!("driver  CUDA {major}.{minor}, {} GPU(s)", gpus.len());
    for gpu in &gpus {
        let (major, minor) = gpu.capability;
        let path = gpu.arch.map_or("too old: bf16 tensor cores begin with 8.0".into(), |a| format!("path {a}"));
        let free = cuda::free_memory(gpu.ordinal)?;
        say!(
            "cuda:{}  {}, capability {major}.{minor}, {} ({} free), {path}",
            gpu.ordinal,
            gpu.name,
            human_bytes(gpu.total),
            human_bytes(free),
        );
    }
    Ok(gpus)
}

/// Loads everything and prints, for each family and path, what was loaded and the milliseconds for bf16 and f16.
fn print_load_times(ordinal: usize) -> Result<()> {
    let mut device = Cuda::new(CudaOptions { ordinal, ..CudaOptions::default() })?;
    let types = [DType::Bf16, DType::F16];
    types.into_iter().try_for_each(|elem| device.load_all(elem))?;
    say!("\nkernels on cuda:{ordinal}: what was loaded (machine code of a GPU, or PTX), milliseconds for bf16 and f16");
    let (bf16, f16): (Vec<&LoadTime>, Vec<&LoadTime>) = device.load_times().iter().partition(|t| t.elem == types[0]);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for (first, second) in bf16.iter().zip(&f16) {
        say!("  {:14} {:8} {:9.1} {:9.1}", first.family.name(), first.image, ms(first.time), ms(second.time));
    }
    let total = |times: &[&LoadTime]| ms(times.iter().map(|t| t.time).sum());
    say!("  {:14} {:8} {:9.1} {:9.1}", "total", "", total(&bf16), total(&f16));
    Ok(())
}
