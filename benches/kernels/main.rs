//! Every family at sizes of real models: device time, cold caches, GB/s or TFLOP/s and the share of what the machine can do.
//! Without a GPU the CPU device is timed at a small size, and a line says that the GPU benches were skipped.
//! `cargo bench --bench kernels -- rms_norm` runs a part.

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
    bencher.table();
}

criterion_group! {
    name = kernels;
    // Device time is steady: few samples are enough, and machine time is short.
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    targets = all
}
criterion_main!(kernels);
