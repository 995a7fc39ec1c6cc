//! Whole steps: models of real width on the GPU against the CPU device, bit-equal repetitions, runs of a 7B model under
//! all memory strategies, and copies concurrent with kernels. It has its own harness, so that a machine without a GPU
//! lists the cases that it skips; `REQUIRE_GPU=1` turns a skip into a failure. `HALFBYTE_DEVICE=cuda` runs the tiny
//! models on the GPU.

#[path = "../../../tests/shared/cases.rs"]
mod cases;
mod copies;
#[path = "../../../tests/shared/device.rs"]
mod device;
#[path = "../../../tests/model/fixtures.rs"]
#[allow(dead_code, reason = "only its tiny models are used here")]
mod fixtures;
#[path = "../../benches/step/model.rs"]
mod model;
mod repeats;
mod strategies;
#[path = "../../../tests/shared/ties.rs"]
mod ties;
mod widths;

use cases::{Outcome, Tally, gpu_is_required};
use halfbyte_core::device::cuda::list;

/// One test case.
pub struct Case {
    name: String,
    /// Whether the case needs a GPU.
    gpu: bool,
    run: Box<dyn FnOnce() -> Outcome>,
}

impl Case {
    /// A case that needs a GPU.
    pub fn on_gpu(name: impl Into<String>, run: impl FnOnce() -> Outcome + 'static) -> Self {
        Self { name: name.into(), gpu: true, run: Box::new(run) }
    }
    /// A case for the device named by the environment.
    pub fn anywhere(name: impl Into<String>, run: impl FnOnce() -> Outcome + 'static) -> Self {
        Self { gpu: false, ..Self::on_gpu(name, run) }
    }
}

/// Formats an error as one line.
pub fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn main() {
    let has_gpu = list().is_ok_and(|gpus| !gpus.is_empty());
    let mut tally = Tally::from_args();
    let mut skipped = 0;
    for case in [copies::cases(), repeats::cases(), widths::cases(), strategies::cases()].into_iter().flatten() {
        if has_gpu || !case.gpu {
            tally.run(&case.name, case.run);
        } else if gpu_is_required() {
            tally.run(&case.name, || Err("there is no GPU".into()));
        } else if tally.wants(&case.name) {
            skipped += 1;
            println!("SKIP  {}: there is no GPU", case.name);
        }
    }
    let remark = if skipped > 0 { format!(", {skipped} SKIPPED: there is no GPU") } else { String::new() };
    std::process::exit(i32::from(!tally.end(&remark)));
}
