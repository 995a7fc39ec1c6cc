//! Every op on every device, against the CPU device in f32. Its own harness, so that every case's line is printed and a
//! skipped GPU is seen. `cargo test --test kernels -- rms_norm` runs a part; REQUIRE_GPU=1 turns a skip into a failure.
//! The binary needs no files: it runs on a machine without Rust.

#[path = "../shared/cases.rs"]
mod cases;
mod harness;

mod adamw;
mod attention;
mod cross_entropy;
mod embed;
mod gemm;
mod grad_norm;
mod nf4;
mod permute;
mod pointwise;
mod rms_norm;
mod rope;
mod route;
mod sample;
mod swiglu;

use cases::Tally;
use harness::{Case, Devices};

fn main() {
    let families: [fn() -> Vec<Case>; 14] = [
        embed::cases,
        rms_norm::cases,
        rope::cases,
        swiglu::cases,
        pointwise::cases,
        nf4::cases,
        permute::cases,
        route::cases,
        cross_entropy::cases,
        sample::cases,
        grad_norm::cases,
        adamw::cases,
        gemm::cases,
        attention::cases,
    ];
    let mut devices = Devices::new();
    let mut tally = Tally::from_args();
    for case in families.iter().flat_map(|family| family()) {
        tally.run(&case.name, || devices.check(&case));
    }
    let fine = tally.end(&format!("; {}", devices.summary()));
    if !fine || tally.passed() == 0 || devices.gpu_is_missing_but_required() {
        std::process::exit(1);
    }
}
