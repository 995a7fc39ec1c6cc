//! The device that the 16-bit cases run on: the CPU, or with `HALFBYTE_DEVICE=cuda` the GPU. (f32 cases are the CPU's.)

use halfbyte::device::Device;
use halfbyte::device::cpu::{Cpu, CpuOptions, Observer};
use halfbyte::device::cuda::{Cuda, CudaOptions, DeviceName};
use halfbyte::dtype::DType;

/// The device that the environment names.
fn named() -> Result<DeviceName, String> {
    match std::env::var("HALFBYTE_DEVICE") {
        Ok(name) => name.parse().map_err(|e: halfbyte::error::Error| format!("HALFBYTE_DEVICE: {e}")),
        Err(_) => Ok(DeviceName::Cpu),
    }
}

/// A device for programs that store `compute`; `observer` sees what the CPU writes.
pub fn open(compute: DType, observer: Observer) -> Result<Box<dyn Device>, String> {
    match (named()?, compute) {
        (DeviceName::Cuda(ordinal), DType::Bf16 | DType::F16) => {
            let options = CudaOptions { ordinal, ..CudaOptions::default() };
            Ok(Box::new(Cuda::new(options).map_err(|e| e.to_string())?))
        }
        _ => Ok(Box::new(Cpu::new(CpuOptions::default()).observed(observer))),
    }
}
