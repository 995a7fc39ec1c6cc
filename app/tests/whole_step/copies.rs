//! Copies on separate streams, op by op and in a graph, give the same result as on the CPU.

#[path = "../../../tests/shared/copies.rs"]
#[allow(dead_code, reason = "the planner's tests use the buffer addresses")]
mod shared;

use crate::{Case, text};
use halfbyte_core::device::cuda::{Cuda, CudaOptions};
use halfbyte_core::plan::plan;
use shared::{expected, program, run};

pub fn cases() -> Vec<Case> {
    let case = |graph: bool| {
        let name = if graph { "copies/in a graph" } else { "copies/op by op" };
        Case::on_gpu(name, move || {
            let (program, names) = program();
            let mut device = Cuda::new(CudaOptions { graph, ..CudaOptions::default() }).map_err(text)?;
            // The second run of a phase captures the graph, the third replays it.
            for times in [1, 2, 3, 50] {
                if run(&mut device, &program, &names, &plan(&program), times).map_err(text)? != expected() {
                    return Err(format!("a different result after {times} runs"));
                }
            }
            Ok("same as on the CPU, up to 50 times".into())
        })
    };
    vec![case(false), case(true)]
}
