//! `halfbyte devices`: what this machine has, and what would be used.

use super::human_bytes;
use crate::device::cuda;
use crate::error::Result;

/// Arguments of `devices`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Prints version, driver, and each GPU with the path chosen for it. A machine without a GPU is no error: the CPU remains.
pub fn run(_args: Args) -> Result<()> {
    say!("halfbyte {}", env!("CARGO_PKG_VERSION"));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    say!("cpu     {threads} threads");
    match gpus() {
        Ok(lines) => lines.iter().for_each(|line| say!("{line}")),
        Err(error) => say!("cuda    none: {error}"),
    }
    Ok(())
}

fn gpus() -> Result<Vec<String>> {
    let (major, minor) = cuda::driver_version()?;
    let mut lines = vec![format!("driver  CUDA {major}.{minor}")];
    for gpu in cuda::list()? {
        let (major, minor) = gpu.capability;
        let path = gpu.arch.map_or("too old: bf16 tensor cores begin with 8.0".into(), |a| format!("path {a}"));
        let free = cuda::free_memory(gpu.ordinal)?;
        lines.push(format!(
            "cuda:{}  {}, capability {major}.{minor}, {} ({} free), {path}",
            gpu.ordinal,
            gpu.name,
            human_bytes(gpu.total),
            human_bytes(free),
        ));
    }
    Ok(lines)
}
