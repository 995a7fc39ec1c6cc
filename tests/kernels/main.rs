//! Tests every op on every device against the CPU device in f32. It has its own harness, so that each case prints a
//! line and a skipped GPU is visible. `cargo test --test kernels -- rms_norm` runs a subset; REQUIRE_GPU=1 turns a skip
//! into a failure. KERNEL_BYTES=N skips cases whose operands exceed N bytes, for tools that are too slow for large
//! ones. The binary reads no files, so it runs on a machine without Rust.

#[path = "../shared/cases.rs"]
mod cases;
mod harness;

mod adamw;
mod attention;
mod cross_entropy;
mod embed;
mod gemm;
mod gemv;
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
    let families: [fn() -> Vec<Case>; 15] = [
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
        gemv::cases,
        attention::cases,
    ];
    let mut devices = Devices::new();
    let mut tally = Tally::from_args();
    let most = std::env::var("KERNEL_BYTES").ok().filter(|text| !text.is_empty());
    let most: Option<usize> = most.map(|text| text.parse().expect("KERNEL_BYTES is a number of bytes"));
    let mut left_out = 0;
    for case in families.iter().flat_map(|family| family()) {
        if most.is_some_and(|most| tally.wants(&case.name) && case.bytes() > most) {
            left_out += 1;
            continue;
        }
        tally.run(&case.name, || devices.check(&case));
    }
    let small = most.map_or(String::new(), |most| format!(", {left_out} LEFT OUT: more than {most} bytes"));
    let fine = tally.end(&format!("{small}; {}", devices.summary()));
    if !fine || tally.passed() == 0 || devices.gpu_is_missing_but_required() {
        std::process::exit(1);
    }
}
