//! The device for tests of whole programs: the CPU, or the GPU if `HALFBYTE_DEVICE=cuda` is set and the program stores
//! 16-bit types. Programs that store f32 always run on the CPU.

use halfbyte_core::device::cpu::{Cpu, CpuOptions, Observer};
use halfbyte_core::device::cuda::{Cuda, CudaOptions};
use halfbyte_core::device::{Device, DeviceName};
use halfbyte_core::dtype::DType;

/// The device named by the environment.
pub fn named() -> Result<DeviceName, String> {
    match std::env::var("HALFBYTE_DEVICE") {
        Ok(name) => name.parse().map_err(|e: halfbyte_core::error::Error| format!("HALFBYTE_DEVICE: {e}")),
        Err(_) => Ok(DeviceName::Cpu),
    }
}

/// A device for programs that store `compute`; on the CPU, `observer` is called for every write.
pub fn open(compute: DType, observer: Observer) -> Result<Box<dyn Device>, String> {
    match (named()?, compute) {
        (DeviceName::Cuda(ordinal), DType::Bf16 | DType::F16) => {
            let options = CudaOptions { ordinal, ..CudaOptions::default() };
            Ok(Box::new(Cuda::new(options).map_err(|e| e.to_string())?))
        }
        _ => Ok(Box::new(Cpu::new(CpuOptions::default()).observed(observer))),
    }
}
