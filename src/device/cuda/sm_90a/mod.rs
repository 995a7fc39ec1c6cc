//! Launches of the kernels in `kernels/sm_90a`, which only Hopper cards can run.

pub mod attention;
pub mod gemm;
