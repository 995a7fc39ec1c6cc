//! Throughput of loading, encoding, decoding and training.
//!
//! By default it uses the small model and the small corpus of the tests. `HALFBYTE_BENCH_MODEL` names another model (a
//! `.model` or a `.json`), `HALFBYTE_BENCH_TEXT` a folder of `*.txt` files (those of `benches/compare/corpus.py`), each
//! of which is a case.
#![expect(missing_docs, reason = "criterion_group! makes a public function without documentation")]

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte_tokenizer::{Tokenizer, Trainer};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

fn model() -> Vec<u8> {
    let path = std::env::var_os("HALFBYTE_BENCH_MODEL").map(PathBuf::from);
    std::fs::read(path.unwrap_or_else(|| format!("{DATA}/tokenizers/small/tokenizer.model").into())).unwrap()
}

fn load_from(bytes: &[u8]) -> Tokenizer {
    if bytes.starts_with(b"{") { Tokenizer::from_json(bytes).unwrap() } else { Tokenizer::from_bytes(bytes).unwrap() }
}

fn tokenizer() -> Tokenizer {
    load_from(&model())
}

/// The name and the text of each case.
fn texts() -> Vec<(String, String)> {
    let folder = std::env::var_os("HALFBYTE_BENCH_TEXT").map_or_else(|| DATA.into(), PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    let name = |file: &PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), std::fs::read_to_string(file).unwrap())).collect()
}

fn load(c: &mut Criterion) {
    let bytes = model();
    c.bench_function("load", |b| b.iter(|| load_from(black_box(&bytes))));
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.sample_size(10);
    for (name, text) in texts() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        // A fresh tokenizer each time: the cache must not know the words from the round before.
        group.bench_function(&name, |b| {
            b.iter_batched(tokenizer, |tokenizer| tokenizer.encode(black_box(&text)), BatchSize::PerIteration)
        });
    }
    group.finish();
}

/// A megabyte without a place to cut.
fn worst_case(c: &mut Criterion) {
    let tokenizer = tokenizer();
    let mut state = 1u64;
    let mut random = |letters: u8| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (b'a' + (state >> 33) as u8 % letters) as char
    };
    let cases: [(&str, String); 6] = [
        ("one letter", "a".repeat(1 << 20)),
        ("spaces", " ".repeat(1 << 20)),
        ("dashes", "-".repeat(1 << 20)),
        ("one word", "the".repeat(1 << 18)),
        ("two letters", (0..1 << 20).map(|_| random(2)).collect()),
        ("all letters", (0..1 << 20).map(|_| random(26)).collect()),
    ];
    let mut group = c.benchmark_group("worst case");
    group.sample_size(10);
    for (name, text) in cases {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| tokenizer.encode(black_box(&text))));
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let tokenizer = tokenizer();
    let mut group = c.benchmark_group("decode");
    group.sample_size(10);
    for (name, text) in texts() {
        let ids = tokenizer.encode(&text);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(&name, |b| b.iter(|| tokenizer.decode(black_box(&ids)).unwrap()));
    }
    group.finish();
}

fn train(c: &mut Criterion) {
    let corpus = std::fs::read_to_string(format!("{DATA}/corpus.txt")).unwrap();
    let lines: Vec<&str> = corpus.split_inclusive('\n').collect();
    let trainer = Trainer { vocab_size: 1000, character_coverage: 0.995, ..Trainer::default() };
    let mut group = c.benchmark_group("train");
    group.sample_size(10).throughput(Throughput::Bytes(corpus.len() as u64));
    group.bench_function("corpus", |b| b.iter(|| trainer.train(black_box(&lines)).unwrap()));
    group.finish();
}

criterion_group!(benches, load, encode, worst_case, decode, train);
criterion_main!(benches);
