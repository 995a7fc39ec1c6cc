//! Loads kernels. A family is loaded when its first kernel is launched.

pub use super::compiled::Family;
use super::compiled::{Compiled, PTX, machine_code};
use super::gpu::{Arch, failed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// The time to load a family: about a millisecond for machine code. The driver needs seconds to compile PTX, or milliseconds if it
/// is in the driver's cache.
#[derive(Clone, Copy, Debug)]
pub struct LoadTime {
    /// The code path whose kernels were loaded.
    pub arch: Arch,
    /// The family that was loaded.
    pub family: Family,
    /// The element type.
    pub elem: DType,
    /// The image that was loaded: the GPU that machine code is for, or `ptx`.
    pub image: &'static str,
    /// Time until its kernels could be launched.
    pub time: Duration,
}

/// Everything loaded so far. Modules go with the context.
pub struct Modules {
    capability: (i32, i32),
    elem: DType,
    modules: HashMap<(DType, Arch, Family), sys::CUmodule>,
    kernels: HashMap<(DType, Arch, Family, &'static str), sys::CUfunction>,
    /// In the order of loading.
    pub times: Vec<LoadTime>,
}

impl Modules {
    /// Nothing loaded, for a GPU of this compute capability.
    pub fn new(capability: (i32, i32)) -> Self {
        Self { capability, elem: DType::Bf16, modules: HashMap::new(), kernels: HashMap::new(), times: Vec::new() }
    }

    /// Kernels for another 16-bit type from now on.
    pub fn set_elem(&mut self, elem: DType) {
        self.elem = elem;
    }

    /// The 16-bit type that kernels are compiled for.
    pub fn elem(&self) -> DType {
        self.elem
    }

    /// Loads all families that have kernels of their own on this path.
    pub fn load_all(&mut self, arch: Arch) -> Result<()> {
        let own = |family: &&Family| Compiled::find(arch, **family, self.elem).is_some();
        let families: Vec<Family> = Family::ALL.iter().filter(own).copied().collect();
        families.into_iter().try_for_each(|family| self.load(arch, family).map(|_| ()))
    }

    /// The module of `family`, loaded if it is not yet.
    fn load(&mut self, arch: Arch, family: Family) -> Result<sys::CUmodule> {
        if let Some(module) = self.modules.get(&(self.elem, arch, family)) {
            return Ok(*module);
        }
        let started = Instant::now();
        let compiled = Compiled::find(arch, family, self.elem)
            .ok_or_else(|| Error::run(format!("there are no kernels of {family:?} for {arch}")))?;
        let (module, image) = self.load_best(compiled, arch, family)?;
        self.times.push(LoadTime { arch, family, elem: self.elem, image, time: started.elapsed() });
        self.modules.insert((self.elem, arch, family), module);
        Ok(module)
    }

    /// Loads machine code if there is some for this GPU, and PTX if there is none or the driver rejects it. Returns the image's name,
    /// too.
    fn load_best(&self, compiled: Compiled, arch: Arch, family: Family) -> Result<(sys::CUmodule, &'static str)> {
        if let Some(name) = machine_code(arch, self.capability)
            && let Some(image) = compiled.image(name)?
        {
            match load(&image) {
                Ok(module) => return Ok((module, name)),
                Err((CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_IMAGE, _)) => (),
                Err((status, log)) => return Err(not_loaded(family, status, log)),
            }
        }
        let mut ptx = compiled.image(PTX)?.ok_or_else(|| Error::run(format!("there is no PTX of {family:?}")))?;
        // The driver expects a C string.
        ptx.push(0);
        let module = load(&ptx).map_err(|(status, log)| not_loaded(family, status, log))?;
        Ok((module, PTX))
    }

    /// The kernel `name` of `family`, which may ask for `shared` bytes of dynamic shared memory.
    pub fn kernel(&mut self, arch: Arch, family: Family, name: &'static str, shared: usize) -> Result<sys::CUfunction> {
        if let Some(kernel) = self.kernels.get(&(self.elem, arch, family, name)) {
            return Ok(*kernel);
        }
        let module = self.load(arch, family)?;
        let symbol = CString::new(name).map_err(|_| Error::run(format!("kernel name {name:?} holds a zero")))?;
        // SAFETY: the module is loaded and never unloaded while the context lives.
        let kernel = unsafe { result::module::get_function(module, symbol) }
            .map_err(|e| failed(&format!("find kernel {name} of {family:?}"), e))?;
        // More than the 48 KB that every kernel may have; all launches of a kernel that does this ask for the same.
        if shared > 48 << 10 {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was found above.
            unsafe { result::function::set_function_attribute(kernel, attribute, shared as i32) }
                .map_err(|e| failed(&format!("give {name} {shared} bytes of shared memory"), e))?;
        }
        self.kernels.insert((self.elem, arch, family, name), kernel);
        Ok(kernel)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        for module in self.modules.values() {
            // SAFETY: loaded once, unloaded once; `Cuda` drops its modules after the stream is idle. An error here
            // means that the context is already gone, and the modules with it.
            let _ = unsafe { result::module::unload(*module) };
        }
    }
}

/// Loads machine code, or PTX that ends with a zero byte. An error includes the log of the driver's compiler.
fn load(image: &[u8]) -> Result<sys::CUmodule, (CUresult, String)> {
    let mut log = [0u8; 4096];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast(), log.len() as *mut std::ffi::c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: a context is current; the image is an ELF file, whose header gives its size, or ends with a zero byte; the two
    // options take a buffer and its size.
    let status = unsafe {
        sys::cuModuleLoadDataEx(
            &raw mut module,
            image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    match status {
        CUresult::CUDA_SUCCESS => Ok(module),
        _ => Err((status, CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned())),
    }
}

fn not_loaded(family: Family, status: CUresult, log: String) -> Error {
    let error = failed(&format!("load the kernels of {family:?}"), DriverError(status));
    match status {
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => error.hint("install driver 530 or newer (CUDA 12.1)"),
        _ if log.is_empty() => error,
        _ => error.at(log),
    }
}
