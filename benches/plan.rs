//! How long it takes to record and plan the programs of real models (goal: 0.2 s each). Parts: recording the op lists
//! (forward, derivatives, recomputation), and finding addresses.

#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use criterion::{Criterion, criterion_group, criterion_main};
use halfbyte_core::model::record;
use halfbyte_core::plan::plan;

#[path = "../tests/model/shapes.rs"]
mod shapes;

fn record_and_plan(c: &mut Criterion) {
    for model in shapes::MODELS {
        let spec = shapes::spec(model, 4096);
        let recorded = record(spec.clone()).expect("recorded");
        let mut group = c.benchmark_group(model);
        group.sample_size(10);
        group.bench_function("record", |b| b.iter(|| record(spec.clone()).expect("recorded")));
        group.bench_function("plan", |b| b.iter(|| plan(&recorded.program)));
    }
}

criterion_group!(benches, record_and_plan);
criterion_main!(benches);
