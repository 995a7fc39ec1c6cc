//! `halfbyte devices`: the devices of this machine, and the code path that a run would use on each.

use super::human_bytes;
use halfbyte_core::device::cuda::{self, Cuda, CudaOptions, Family, Gpu};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use std::time::Duration;

/// Arguments of `devices`.
#[derive(clap::Args, Debug)]
pub struct DevicesArgs {
    /// Also load all kernels on each GPU and print the load time of each family. With CUDA_CACHE_DISABLE=1 the driver
    /// compiles them; otherwise it may load them from its cache
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

/// Loads all kernels for bf16 and f16 and prints the load time of each family in milliseconds.
fn print_load_times(ordinal: usize) -> Result<()> {
    let mut device = Cuda::new(CudaOptions { ordinal, ..CudaOptions::default() })?;
    let types = [DType::Bf16, DType::F16];
    types.into_iter().try_for_each(|elem| device.load_all(elem))?;
    let times = device.load_times();
    let ms = |family: Option<Family>, elem: DType| {
        let chosen = times.iter().filter(|t| t.elem == elem && family.is_none_or(|f| f == t.family));
        chosen.map(|t| t.time).sum::<Duration>().as_secs_f64() * 1e3
    };
    let compiled = std::env::var_os("CUDA_CACHE_DISABLE").is_some_and(|v| v == "1");
    let how = if compiled { "compiled by the driver" } else { "compiled, or from the driver's cache" };
    say!("\nkernels on cuda:{ordinal}, {how}: milliseconds to load for bf16 and f16");
    for family in Family::ALL {
        say!("  {:14} {:9.1} {:9.1}", family.name(), ms(Some(*family), types[0]), ms(Some(*family), types[1]));
    }
    say!("  {:14} {:9.1} {:9.1}", "total", ms(None, types[0]), ms(None, types[1]));
    Ok(())
}
