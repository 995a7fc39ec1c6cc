//! The embedded kernels: PTX of each family and element type, loaded when the first of its kernels is launched.

use super::gpu::{Arch, failed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// Declares the families, each with the name of its `.cu` file, and finds their PTX.
macro_rules! families {
    ($($family:ident = $name:literal,)*) => {
        /// Kernels of one `.cu` file.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Family {
            $(#[doc = concat!("`", $name, ".cu`")] $family,)*
        }

        impl Family {
            /// All of them.
            pub const ALL: &[Family] = &[$(Family::$family,)*];

            /// The name of its files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Family::$family => $name,)*
                }
            }
        }

        fn source(arch: Arch, family: Family, elem: DType) -> &'static str {
            let (bf16, f16) = match (arch, family) {
                $((Arch::Sm80, Family::$family) => (
                    include_str!(concat!("../../../ptx/sm_80/bf16/", $name, ".ptx")),
                    include_str!(concat!("../../../ptx/sm_80/f16/", $name, ".ptx")),
                ),)*
            };
            if elem == DType::F16 { f16 } else { bf16 }
        }
    };
}

families! {
    Adamw = "adamw",
    Attention = "attention",
    CrossEntropy = "cross_entropy",
    Embed = "embed",
    Gemm = "gemm",
    Gemv = "gemv",
    GradNorm = "grad_norm",
    Nf4 = "nf4",
    Permute = "permute",
    Pointwise = "pointwise",
    RmsNorm = "rms_norm",
    Rope = "rope",
    Route = "route",
    Sample = "sample",
    Swiglu = "swiglu",
}

/// How long the driver took to load a family: seconds when it compiles the PTX, milliseconds when its cache has it.
#[derive(Clone, Copy, Debug)]
pub struct LoadTime {
    /// The family that was loaded.
    pub family: Family,
    /// The element type.
    pub elem: DType,
    /// Time until its kernels could be launched.
    pub time: Duration,
}

/// Everything loaded so far. Modules go with the context.
pub struct Modules {
    arch: Arch,
    elem: DType,
    modules: HashMap<(DType, Family), sys::CUmodule>,
    kernels: HashMap<(DType, Family, &'static str), sys::CUfunction>,
    /// In the order of loading.
    pub times: Vec<LoadTime>,
}

impl Modules {
    /// Nothing loaded.
    pub fn new(arch: Arch) -> Self {
        Self { arch, elem: DType::Bf16, modules: HashMap::new(), kernels: HashMap::new(), times: Vec::new() }
    }

    /// Kernels for another 16-bit type from now on.
    pub fn set_elem(&mut self, elem: DType) {
        self.elem = elem;
    }

    /// The 16-bit type that kernels are compiled for.
    pub fn elem(&self) -> DType {
        self.elem
    }

    /// The module of `family`, loaded if it is not yet.
    pub fn load(&mut self, family: Family) -> Result<sys::CUmodule> {
        if let Some(module) = self.modules.get(&(self.elem, family)) {
            return Ok(*module);
        }
        let started = Instant::now();
        let module = load(source(self.arch, family, self.elem), family)?;
        self.times.push(LoadTime { family, elem: self.elem, time: started.elapsed() });
        self.modules.insert((self.elem, family), module);
        Ok(module)
    }

    /// The kernel `name` of `family`, which may ask for `shared` bytes of dynamic shared memory.
    pub fn kernel(&mut self, family: Family, name: &'static str, shared: usize) -> Result<sys::CUfunction> {
        if let Some(kernel) = self.kernels.get(&(self.elem, family, name)) {
            return Ok(*kernel);
        }
        let module = self.load(family)?;
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
        self.kernels.insert((self.elem, family, name), kernel);
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

fn load(ptx: &str, family: Family) -> Result<sys::CUmodule> {
    let image = CString::new(ptx).map_err(|_| Error::run(format!("the PTX of {family:?} holds a zero")))?;
    // The driver's compiler writes here what it does not like.
    let mut log = [0u8; 4096];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast(), log.len() as *mut std::ffi::c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: a context is current; the image ends with a zero; the two options take a buffer and its size.
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
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            Err(failed(&format!("load the kernels of {family:?}"), DriverError(status))
                .hint("install driver 530 or newer (CUDA 12.1)"))
        }
        _ => {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            let error = failed(&format!("load the kernels of {family:?}"), DriverError(status));
            Err(if log.is_empty() { error } else { error.at(log) })
        }
    }
}
