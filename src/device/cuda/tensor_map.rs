//! Tensor maps: descriptors of tensors for the copy engine (TMA) of Hopper cards.

use super::gpu::failed;
use crate::dtype::DType;
use crate::error::Result;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// `TensorMap` of `kernels/sm_90a/wgmma.cuh`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct TensorMap([u64; 16]);

impl TensorMap {
    /// For an operand that the kernel does not access through a map.
    pub const NONE: TensorMap = TensorMap([0; 16]);
}

/// A row-major tensor of 16-bit elements, innermost dimension first, and the box that one copy moves. In shared memory, a box has
/// 128-byte swizzle, so its rows have 64 elements.
///
/// It describes the operand's capacity instead of the live rows, because a captured graph keeps its maps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BoxedTensor<const N: usize> {
    /// Address of the first element: a multiple of 16.
    pub at: u64,
    /// Elements in each dimension.
    pub dims: [usize; N],
    /// Stride of each dimension, in elements: 1 for the first, multiples of 8 for the others.
    pub strides: [usize; N],
    /// Elements of the box in each dimension, at most 256.
    pub box_dims: [usize; N],
}

/// The maps of a loaded program. Each is encoded on its first use, and then kept, because addresses do not change.
#[derive(Default)]
pub struct TensorMaps {
    matrices: HashMap<(DType, BoxedTensor<2>), TensorMap>,
    stacks: HashMap<(DType, BoxedTensor<3>), TensorMap>,
}

impl TensorMaps {
    /// The map of a matrix.
    pub fn matrix(&mut self, elem: DType, tensor: BoxedTensor<2>) -> Result<TensorMap> {
        find(&mut self.matrices, elem, tensor)
    }

    /// The map of a stack of matrices.
    pub fn stack(&mut self, elem: DType, tensor: BoxedTensor<3>) -> Result<TensorMap> {
        find(&mut self.stacks, elem, tensor)
    }
}

fn find<const N: usize>(
    maps: &mut HashMap<(DType, BoxedTensor<N>), TensorMap>,
    elem: DType,
    tensor: BoxedTensor<N>,
) -> Result<TensorMap> {
    match maps.entry((elem, tensor)) {
        Entry::Occupied(map) => Ok(*map.get()),
        Entry::Vacant(place) => Ok(*place.insert(encode(elem, &tensor)?)),
    }
}

fn encode<const N: usize>(elem: DType, tensor: &BoxedTensor<N>) -> Result<TensorMap> {
    use sys::{
        CUtensorMapDataType_enum as Type, CUtensorMapFloatOOBfill_enum as Outside,
        CUtensorMapInterleave_enum as Interleave, CUtensorMapL2promotion_enum as Promotion,
        CUtensorMapSwizzle_enum as Swizzle,
    };
    let of_elem = match elem {
        DType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        _ => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let dims = tensor.dims.map(|n| n as u64);
    // In bytes. The driver does not take the innermost stride.
    let strides = tensor.strides.map(|n| (n * elem.bytes()) as u64);
    let (box_dims, steps) = (tensor.box_dims.map(|n| n as u32), [1u32; N]);
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the arrays have one entry per dimension (the strides one less); the driver writes only the map, and does not access
    // GPU memory.
    let status = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            of_elem,
            N as u32,
            tensor.at as *mut std::ffi::c_void,
            dims.as_ptr(),
            strides[1..].as_ptr(),
            box_dims.as_ptr(),
            steps.as_ptr(),
            Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            Outside::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    match status {
        sys::CUresult::CUDA_SUCCESS => Ok(TensorMap(map.opaque)),
        _ => Err(failed(&format!("encode the map of {tensor:?}"), DriverError(status))),
    }
}
