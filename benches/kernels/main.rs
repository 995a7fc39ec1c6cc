//! Benchmarks every family at the sizes of real models, with cold caches: device time, GB/s or TFLOP/s, and the share
//! of the machine's limit. Without a GPU, the CPU device is timed at a small size, and a line reports that the GPU
//! benches were skipped. `cargo bench --bench kernels -- rms_norm` runs a subset.

#![expect(missing_docs, reason = "criterion_group! makes a public function")]

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

use criterion::{Criterion, criterion_group, criterion_main};
use harness::Bencher;
use std::time::Duration;

fn all(criterion: &mut Criterion) {
    let mut bencher = Bencher::new();
    for family in [
        embed::benches,
        rms_norm::benches,
        rope::benches,
        swiglu::benches,
        pointwise::benches,
        nf4::benches,
        permute::benches,
        route::benches,
        cross_entropy::benches,
        sample::benches,
        grad_norm::benches,
        adamw::benches,
        gemm::benches,
        gemv::benches,
        attention::benches,
    ] {
        for bench in family(bencher.tokens()) {
            bencher.run(criterion, &bench);
        }
    }
    // Families that have kernels for more than one path.
    for family in [gemm::benches, attention::benches] {
        for bench in family(bencher.tokens()) {
            bencher.run_on_sm_80(criterion, &bench);
        }
    }
    bencher.table();
}

criterion_group! {
    name = kernels;
    // Device time varies little, so few samples suffice, and machine time is scarce.
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    targets = all
}
criterion_main!(kernels);
