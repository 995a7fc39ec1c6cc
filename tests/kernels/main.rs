//! Every op on every device, against the CPU device in f32. Its own harness, so that every case's line is printed and a
//! skipped GPU is seen. `cargo test --test kernels -- rms_norm` runs a part; REQUIRE_GPU=1 turns a skip into a failure.
//! The binary needs no files: it runs on a machine without Rust.

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
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut devices = Devices::new();
    let mut failed = Vec::new();
    let mut passed = 0;
    for case in families.iter().flat_map(|family| family()) {
        if !filter.iter().all(|f| case.name.contains(f.as_str())) {
            continue;
        }
        let name = case.name.clone();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| devices.check(&case)))
            .unwrap_or_else(|_| Err("panicked (message above)".into()));
        match outcome {
            Ok(measured) => {
                passed += 1;
                println!("ok    {name}: {measured}");
            }
            Err(wrong) => {
                println!("FAIL  {name}: {wrong}");
                failed.push(name);
            }
        }
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed; {}", failed.len(), devices.summary());
    if !failed.is_empty() || passed == 0 || devices.gpu_is_missing_but_required() {
        std::process::exit(1);
    }
}
