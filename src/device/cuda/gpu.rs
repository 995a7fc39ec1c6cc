//! Which GPUs there are, and whether one of them can be used. Everything here works, or fails with a reason, on a machine
//! without a driver.

use crate::error::{Error, Result};
use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};
use std::ffi::CStr;
use std::fmt;
use std::str::FromStr;

/// The oldest driver API that takes our PTX (ISA 8.1, see `kernels/build.py`), as the driver counts: 12.1.
const DRIVER_API: i32 = 12010;

/// A family of code paths: which instructions the kernels may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arch {
    /// Tensor cores through `mma.sync`, copies through `cp.async`: every GPU since Ampere.
    Sm80,
    /// Large products and attention through `wgmma`, loads through the copy engine (TMA): Hopper only, not later GPUs.
    Sm90a,
}

impl Arch {
    /// The path that serves a GPU of this compute capability best.
    fn best(capability: (i32, i32)) -> Option<Arch> {
        [Arch::Sm90a, Arch::Sm80].into_iter().find(|arch| arch.runs_on(capability))
    }

    /// Whether a GPU of this compute capability has the path's instructions.
    pub fn runs_on(self, capability: (i32, i32)) -> bool {
        match self {
            Arch::Sm80 => capability >= (8, 0),
            Arch::Sm90a => capability == (9, 0),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm90a => "sm_90a",
        })
    }
}

impl FromStr for Arch {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "sm_80" => Ok(Arch::Sm80),
            "sm_90a" => Ok(Arch::Sm90a),
            _ => Err(Error::usage(format!("unknown code path `{name}`"))
                .hint("there are `--arch sm_80` and, on Hopper cards, `--arch sm_90a`")),
        }
    }
}

/// Properties of one GPU.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its number.
    pub ordinal: usize,
    /// Name that the driver reports.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub total: usize,
    /// The most shared memory that a block may ask for.
    pub shared_memory: usize,
    /// Number of multiprocessors, 132 on an H200.
    pub multiprocessors: usize,
    /// The path that is chosen for it; `None`: it is too old.
    pub arch: Option<Arch>,
}

/// The version of the driver's API as (major, minor), after checking that there is a driver and that it is new enough.
pub fn driver_version() -> Result<(i32, i32)> {
    // SAFETY: only opens the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::system("there is no NVIDIA driver (libcuda was not found)")
            .hint("install the driver, or use the CPU with `--device cpu`"));
    }
    let mut version = 0;
    // SAFETY: the library is there; the pointer is valid. This call needs no initialization.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    if status != CUresult::CUDA_SUCCESS {
        return Err(failed("ask for the version of the driver", DriverError(status)));
    }
    let pair = new_enough(version)?;
    match result::init() {
        Ok(()) => Ok(pair),
        Err(e) => Err(failed("start the driver", e)
            .hint("look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES, or use the CPU with `--device cpu`")),
    }
}

/// A version of the driver's API as (major, minor), if it takes our PTX.
fn new_enough(version: i32) -> Result<(i32, i32)> {
    let (major, minor) = (version / 1000, version % 1000 / 10);
    match version < DRIVER_API {
        true => Err(Error::system(format!("the NVIDIA driver is too old: it speaks CUDA {major}.{minor}"))
            .hint("install driver 530 or newer (CUDA 12.1)")),
        false => Ok((major, minor)),
    }
}

/// All GPUs, as the driver lists them.
pub fn list() -> Result<Vec<Gpu>> {
    driver_version()?;
    let count = result::device::get_count().map_err(|e| failed("count the GPUs", e))?;
    (0..count as usize).map(|ordinal| describe(ordinal).map_err(|e| failed("ask for a GPU's properties", e))).collect()
}

/// The GPU with this number, if it can be used.
pub fn select(ordinal: usize) -> Result<(Gpu, Arch)> {
    choose(&list()?, ordinal)
}

fn choose(gpus: &[Gpu], ordinal: usize) -> Result<(Gpu, Arch)> {
    if gpus.is_empty() {
        return Err(Error::system("the NVIDIA driver sees no GPU")
            .hint("look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES, or use the CPU with `--device cpu`"));
    }
    let Some(gpu) = gpus.get(ordinal) else {
        return Err(Error::usage(format!("there is no cuda:{ordinal}, only {} GPU(s)", gpus.len()))
            .hint("`halfbyte devices` lists them"));
    };
    match gpu.arch {
        Some(arch) => Ok((gpu.clone(), arch)),
        None => Err(Error::system(format!(
            "{} has compute capability {}.{}, which is too old: bf16 tensor cores begin with 8.0 (Ampere)",
            gpu.name, gpu.capability.0, gpu.capability.1
        ))
        .hint("use the CPU with `--device cpu`")),
    }
}

/// Bytes that are free on a GPU. Starts it.
pub fn free_memory(ordinal: usize) -> Result<usize> {
    let context = CudaContext::new(ordinal).map_err(|e| failed("start", e))?;
    context.mem_get_info().map(|(free, _)| free).map_err(|e| failed("ask for free memory", e))
}

/// Where a GPU is on the PCI bus, as NVML takes it: `0000:65:00.0`.
pub(super) fn bus_id(ordinal: usize) -> Option<String> {
    let device = result::device::get(ordinal as i32).ok()?;
    let mut text = [0_u8; 32];
    // SAFETY: `device` was just given out by the driver; the buffer has the length passed.
    let status = unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as i32, device) };
    let bus = CStr::from_bytes_until_nul(&text).ok()?;
    (status == CUresult::CUDA_SUCCESS).then(|| bus.to_string_lossy().into())
}

fn describe(ordinal: usize) -> Result<Gpu, DriverError> {
    let device = result::device::get(ordinal as i32)?;
    // SAFETY: `device` was just given out by the driver.
    let attribute = |a| unsafe { result::device::get_attribute(device, a) };
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(Gpu {
        ordinal,
        name: result::device::get_name(device)?,
        capability,
        // SAFETY: as above.
        total: unsafe { result::device::total_mem(device)? },
        shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        arch: Arch::best(capability),
    })
}

/// An error of the driver, in words.
pub(super) fn failed(doing: &str, error: DriverError) -> Error {
    let name = error.error_string().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown error");
    Error::system(format!("the GPU could not {doing}: {name} ({:?})", error.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_path_is_refused() {
        assert_eq!("sm_80".parse::<Arch>().expect("known"), Arch::Sm80);
        assert!("sm_75".parse::<Arch>().is_err());
    }

    #[test]
    fn an_old_driver_is_refused_with_the_one_that_is_needed() {
        assert_eq!((new_enough(12010).expect("enough"), new_enough(13020).expect("enough")), ((12, 1), (13, 2)));
        let error = new_enough(11080).expect_err("too old").to_string();
        assert!(error.contains("speaks CUDA 11.8") && error.contains("driver 530"), "{error}");
    }

    #[test]
    fn a_gpu_that_is_not_there_or_too_old_is_refused_by_name() {
        let gpu = |ordinal, name: &str, capability| Gpu {
            ordinal,
            name: name.into(),
            capability,
            total: 24 << 30,
            shared_memory: 96 << 10,
            multiprocessors: 82,
            arch: Arch::best(capability),
        };
        let gpus = [gpu(0, "NVIDIA GeForce RTX 2080 Ti", (7, 5)), gpu(1, "NVIDIA GeForce RTX 3090", (8, 6))];
        assert_eq!(choose(&gpus, 1).expect("usable").1, Arch::Sm80);
        assert_eq!([(9, 0), (10, 0), (7, 5)].map(Arch::best), [Some(Arch::Sm90a), Some(Arch::Sm80), None]);
        let refused = |gpus: &[Gpu], ordinal| choose(gpus, ordinal).expect_err("refused").to_string();
        for (error, words) in [
            (refused(&gpus, 0), ["RTX 2080 Ti", "capability 7.5", "--device cpu"]),
            (refused(&gpus, 2), ["no cuda:2", "2 GPU", "halfbyte devices"]),
            (refused(&[], 0), ["sees no GPU", "CUDA_VISIBLE_DEVICES", "--device cpu"]),
        ] {
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn without_a_driver_the_error_says_so() {
        // SAFETY: only opens the library.
        if !unsafe { sys::is_culib_present() } {
            let error = select(0).expect_err("no driver, no GPU").to_string();
            assert!(error.contains("no NVIDIA driver") && error.contains("--device cpu"), "{error}");
        }
    }
}
