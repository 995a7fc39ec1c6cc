//! `--device`: where a command runs.

use crate::config::recipe::AUTO;
use crate::sensors::Nvml;
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::device::cuda::{self, Arch, Cuda, CudaOptions};
use halfbyte_core::device::{Device, DeviceName};
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};

/// Arguments of every command that computes.
#[derive(clap::Args, Debug)]
pub struct DeviceArgs {
    /// cpu, cuda, cuda:N, or auto: the first GPU that supports the compute type, or the CPU [default: the
    /// recipe's device_map, or auto]
    #[arg(long)]
    device: Option<String>,
    /// Code path on the GPU [default: the best for the card]
    #[arg(long)]
    arch: Option<Arch>,
    /// Launch kernels one by one instead of replaying CUDA graphs
    #[arg(long)]
    no_graph: bool,
}

impl DeviceArgs {
    /// Opens the device that the command line names, or else the recipe (`map`, its `device_map`). Returns it with its
    /// description for the user.
    pub fn open(&self, map: Option<&str>, compute: DType, cpu: CpuOptions) -> Result<(Box<dyn Device>, String)> {
        let name = self.name(map, compute)?;
        match name {
            DeviceName::Cpu => Ok((Box::new(Cpu::new(cpu)), "cpu".into())),
            DeviceName::Cuda(_) if !matches!(compute, DType::Bf16 | DType::F16) => {
                Err(Error::usage(format!("the GPU computes in bf16 or f16, not in {}", compute.torch_name()))
                    .hint("set bnb_4bit_compute_dtype = \"bfloat16\", or use --device cpu"))
            }
            DeviceName::Cuda(ordinal) => {
                let device = Cuda::new(CudaOptions { ordinal, arch: self.arch, graph: !self.no_graph })?;
                let gpu = device.gpu();
                let sensors = Nvml::of(&device).err().map(|why| format!(" (its sensors are not logged: {why})"));
                let words = format!("{name}, {}{}", gpu.name, sensors.unwrap_or_default());
                Ok((Box::new(device), words))
            }
        }
    }

    /// The compute type if neither the command line nor a recipe sets one: on a GPU the type of the model's weights
    /// (`model`) if it has 16 bits, or bfloat16; float32 on the CPU.
    pub fn best_type(&self, model: Option<DType>) -> Result<DType> {
        let half = model.filter(|dtype| *dtype == DType::F16).unwrap_or(DType::Bf16);
        Ok(match self.name(None, half)? {
            DeviceName::Cpu => DType::F32,
            DeviceName::Cuda(_) => half,
        })
    }

    fn name(&self, map: Option<&str>, compute: DType) -> Result<DeviceName> {
        match self.device.as_deref().or(map).unwrap_or(AUTO) {
            AUTO => Ok(self.auto(compute)),
            name => name.parse(),
        }
    }

    fn auto(&self, compute: DType) -> DeviceName {
        let usable = |gpus: Vec<cuda::Gpu>| gpus.iter().find(|g| g.arch.is_some()).map(|g| g.ordinal);
        let gpu = cuda::list().ok().and_then(usable).filter(|_| matches!(compute, DType::Bf16 | DType::F16));
        gpu.map_or(DeviceName::Cpu, DeviceName::Cuda)
    }
}
