//! Turns operands into kernel arguments and launches kernels. The family files know the grids, and the order of each kernel's
//! arguments.

use super::gpu::Arch;
use super::gpu::failed;
use super::memory::DeviceMemory;
use super::modules::{Family, Modules};
use super::tensor_map::{TensorMap, TensorMaps};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Place, Program, Rows, View};
use crate::plan::Plan;
use cudarc::driver::{result, sys};
use std::ffi::c_void;

/// Elements of one 16-byte load (`PACK` in `common.cuh`).
pub const PACK: usize = 8;

/// A value that can be passed to a kernel.
///
/// # Safety
/// The type has the layout of a parameter of the kernels: a C number, pointer, or `repr(C)` struct of them.
pub unsafe trait Argument {
    /// Address of the value.
    fn address(&self) -> *mut c_void;
}

/// Makes kernel arguments of C numbers and of `repr(C)` structs that the kernels declare alike.
macro_rules! arguments {
    ($($type:ty),*) => {$(
        // SAFETY: a C number or a `repr(C)` struct declared alike in the kernels.
        unsafe impl $crate::device::cuda::launch::Argument for $type {
            fn address(&self) -> *mut std::ffi::c_void {
                std::ptr::from_ref(self).cast_mut().cast()
            }
        }
    )*};
}
pub(super) use arguments;

arguments!(i32, u32, i64, u64, f32, f64, Mat, RowCount, F32OrElem, TensorMap);

/// `Mat<T>` of `common.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Mat {
    /// Address of the first element, or 0.
    pub at: u64,
    /// Leading dimension.
    pub ld: i64,
}

impl Mat {
    /// An operand that is absent.
    pub const NONE: Mat = Mat { at: 0, ld: 0 };
}

/// `F32OrElem` of `common.cuh`: elements that are f32 or of the 16-bit type.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct F32OrElem {
    /// Address of the first element, or 0.
    pub at: u64,
    /// Leading dimension.
    pub ld: i64,
    /// 1 if the elements are f32.
    pub wide: i32,
}

impl F32OrElem {
    /// An operand that is absent.
    pub const NONE: F32OrElem = F32OrElem { at: 0, ld: 0, wide: 0 };
}

/// `Rows` of `common.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RowCount {
    live: u64,
    times: i32,
    start: i32,
    capacity: i32,
}

/// A launch's shape.
#[derive(Clone, Copy)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

impl Grid {
    /// One block of `threads` for each of `blocks`.
    pub fn blocks(blocks: usize, threads: usize) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
    /// At least `items` threads.
    pub fn items(items: usize) -> Self {
        Self::blocks(items.div_ceil(256), 256)
    }
}

/// Everything that the family files need to launch kernels.
pub struct Launcher<'a> {
    /// The loaded program.
    pub program: &'a Program,
    /// Its addresses.
    pub plan: &'a Plan,
    /// The memory that addresses point into.
    pub memory: &'a DeviceMemory,
    /// Its kernels.
    pub modules: &'a mut Modules,
    /// The tensor maps of its operands.
    pub maps: &'a mut TensorMaps,
    /// The stream that kernels are launched in.
    pub stream: sys::CUstream,
    /// Tokens that grids are cut for: the live ones, or the capacity while a graph is captured.
    pub tokens: usize,
    /// The code path that the device uses.
    pub arch: Arch,
    /// The most shared memory of a block.
    pub shared_memory: usize,
    /// Number of multiprocessors. A grid of persistent blocks has at most this many.
    pub multiprocessors: usize,
    /// Name of the op, for errors.
    pub op: &'static str,
}

impl Launcher<'_> {
    /// Rows to cut a grid for.
    pub fn grid_rows(&self, view: &View) -> usize {
        view.rows.count(self.tokens)
    }

    /// The row count as kernels take it: they ask the device how many tokens are live.
    pub fn rows(&self, view: &View) -> RowCount {
        let capacity = self.grid_rows(view) as i32;
        let live = self.memory.live();
        match view.rows {
            Rows::Fixed(_) => RowCount { live: 0, times: 0, start: 0, capacity },
            Rows::Tokens(times) => RowCount { live, times: times as i32, start: 0, capacity },
            Rows::Chunk { start, .. } => RowCount { live, times: 1, start: start as i32, capacity },
        }
    }

    /// The type of `view`'s elements.
    pub fn dtype(&self, view: &View) -> DType {
        self.program.info(view.buf).dtype
    }

    /// The address of the first element.
    pub fn address(&self, view: &View) -> u64 {
        let at = self.plan.address(view.buf) + view.offset * self.dtype(view).bytes();
        match self.program.info(view.buf).place {
            Place::Host => self.memory.host(at),
            _ => self.memory.device(at),
        }
    }

    /// An operand of a fixed type.
    pub fn of(&self, view: &View, dtype: DType) -> Result<Mat> {
        if self.dtype(view) != dtype {
            return Err(self.refused(view, &format!("must be {} on the GPU", dtype.torch_name())));
        }
        Ok(Mat { at: self.address(view), ld: view.ld as i64 })
    }

    /// An operand of a fixed type whose rows lie one after the other: its address.
    pub fn flat(&self, view: &View, dtype: DType) -> Result<u64> {
        if view.ld != view.cols && view.rows != Rows::Fixed(1) {
            return Err(self.refused(view, "must be contiguous"));
        }
        Ok(self.of(view, dtype)?.at)
    }

    /// An operand that kernels read and write in packs of 8 elements of 16 bits.
    pub fn packs(&self, view: &View) -> Result<Mat> {
        if !view.cols.is_multiple_of(PACK) {
            return Err(self.narrow(view));
        }
        self.aligned(view)
    }
    /// An operand whose rows begin at packs; columns up to the next whole pack may be read.
    pub fn aligned(&self, view: &View) -> Result<Mat> {
        let mat = self.of(view, self.modules.elem())?;
        if !view.ld.is_multiple_of(PACK) || !mat.at.is_multiple_of(16) {
            return Err(self.narrow(view));
        }
        Ok(mat)
    }
    fn narrow(&self, view: &View) -> Error {
        self.refused(view, &format!("is {} wide in rows of {}; the GPU takes multiples of {PACK}", view.cols, view.ld))
            .hint("models of this shape run on the CPU: `--device cpu`")
    }
    /// The same for an operand that may be absent.
    pub fn packs_or_none(&self, view: &Option<View>) -> Result<Mat> {
        view.as_ref().map_or(Ok(Mat::NONE), |v| self.packs(v))
    }

    /// A small operand that is f32 or of the 16-bit type.
    pub fn f32_or_elem(&self, view: &View) -> Result<F32OrElem> {
        let dtype = self.dtype(view);
        if dtype != DType::F32 && dtype != self.modules.elem() {
            return Err(self.refused(view, &format!("must be float32 or {}", self.modules.elem().torch_name())));
        }
        Ok(F32OrElem { at: self.address(view), ld: view.ld as i64, wide: i32::from(dtype == DType::F32) })
    }
    /// The same for an operand that may be absent.
    pub fn f32_or_elem_or_none(&self, view: &Option<View>) -> Result<F32OrElem> {
        view.as_ref().map_or(Ok(F32OrElem::NONE), |v| self.f32_or_elem(v))
    }

    /// An operand that this device cannot take.
    pub fn refused(&self, view: &View, why: &str) -> Error {
        let info = self.program.info(view.buf);
        Error::run(format!("{}: `{}` ({}) {why}", self.op, info.name, info.dtype.torch_name()))
    }

    /// Launches a kernel of the path sm_80, or nothing if the grid has no blocks.
    pub fn launch(&mut self, family: Family, kernel: &'static str, grid: Grid, args: &[&dyn Argument]) -> Result<()> {
        self.launch_of(Arch::Sm80, family, kernel, grid, args)
    }

    /// Launches a kernel of the given path.
    pub fn launch_of(
        &mut self,
        arch: Arch,
        family: Family,
        kernel: &'static str,
        grid: Grid,
        args: &[&dyn Argument],
    ) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let [x, y, z] = grid.blocks;
        if x > i32::MAX as usize || y > 65535 || z > 65535 {
            return Err(Error::run(format!("{}: a grid of {x}·{y}·{z} blocks is too large for the GPU", self.op)));
        }
        if grid.shared > self.shared_memory {
            let (needed, there) = (grid.shared, self.shared_memory);
            return Err(Error::run(format!("{kernel} needs {needed} bytes of shared memory; the GPU has {there}")));
        }
        let function = self.modules.kernel(arch, family, kernel, grid.shared)?;
        let mut addresses: Vec<*mut c_void> = args.iter().map(|a| a.address()).collect();
        // SAFETY: the arguments have the types of the kernel's parameters, in its order (each family file passes them,
        // and the kernel tests run every kernel); addresses and sizes come from the plan, which checks that
        // every operand lies inside the allocation; the driver copies the arguments before it returns.
        unsafe {
            result::launch_kernel(
                function,
                (x as u32, y as u32, z as u32),
                (grid.threads as u32, 1, 1),
                grid.shared as u32,
                self.stream,
                &mut addresses,
            )
        }
        .map_err(|e| failed(&format!("launch {kernel}"), e))
    }
}

/// Reads constants from the kernels' sources, for unit tests that compare them with the host's.
#[cfg(test)]
pub mod seam {
    /// The value of `NAME = value` in the declaration of a `constexpr int`.
    pub fn constant(source: &str, name: &str) -> usize {
        let declarations = source.lines().filter_map(|line| line.trim_start().strip_prefix("constexpr int "));
        let mut values = declarations.flat_map(|line| line.split([',', ';'])).filter_map(|part| part.split_once(" = "));
        let value = values.find(|(declared, _)| declared.trim() == name).map(|(_, value)| value.trim());
        value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    }
}
