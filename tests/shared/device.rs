//! The device that tests of whole programs run on: the CPU, or with `HALFBYTE_DEVICE=cuda` the GPU, for programs that store
//! 16-bit types (f32 ones are the CPU's).

use halfbyte_core::device::Device;
use halfbyte_core::device::cpu::{Cpu, CpuOptions, Observer};
use halfbyte_core::device::cuda::{Cuda, CudaOptions, DeviceName};
use halfbyte_core::dtype::DType;

/// The device that the environment names.
pub fn named() -> Result<DeviceName, String> {
    match std::env::var("HALFBYTE_DEVICE") {
        Ok(name) => name.parse().map_err(|e: halfbyte_core::error::Error| format!("HALFBYTE_DEVICE: {e}")),
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
