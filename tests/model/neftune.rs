//! NEFTune (Jain et al. 2023): noise on the embeddings in training, and nowhere else.

use crate::alone::Alone;
use crate::fixtures::{batch, session, spec};
use crate::invariants::left;
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{Spec, record};
use halfbyte_core::op::{Buf, BufInfo, Op, Phase, Place, Program, Purpose, Rows};
use halfbyte_core::session::Session;

/// The result of the op on zeros.
fn noise(seed: [i32; 2], site: u32, magnitude: f32, n: usize) -> Vec<f64> {
    let info = |name: &str, cols, dtype| BufInfo {
        name: name.into(),
        rows: Rows::Fixed(1),
        cols,
        dtype,
        place: Place::Resident(Purpose::Exchange),
    };
    let bufs = vec![
        info("x", n, DType::F32),
        info("seed", 2, DType::I32),
        info("magnitude", 1, DType::F32),
        info("out", n, DType::F32),
    ];
    let program = Program { tokens: 1, bufs, phases: Vec::new(), constants: Vec::new() };
    let [x, seed_view, size, out] = [0, 1, 2, 3].map(|i| program.view(Buf(i)));
    let alone = Alone::new(&program, CpuOptions::default());
    let mut state = alone.filled(0);
    state[1] = seed.iter().flat_map(|s| s.to_le_bytes()).collect();
    state[2] = magnitude.to_le_bytes().to_vec();
    let op = Op::Noise { x, seed: seed_view, site, magnitude: size, out };
    let after = alone.run(&op, 1, &state, &[]).expect("runs");
    after[3].as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

#[test]
fn the_numbers_are_uniform_within_the_magnitude() {
    let (n, magnitude) = (1 << 20, 0.25);
    let values = noise([1, 2], 0, 0.25, n);
    assert!(values.iter().all(|x| x.abs() < magnitude));
    // Twenty equal parts of (−m, m): χ² with 19 degrees of freedom stays below 60 but once in 10⁵ times.
    let mut counts = [0.0; 20];
    values.iter().for_each(|x| counts[((x / magnitude + 1.0) * 10.0) as usize] += 1.0);
    let expected = n as f64 / 20.0;
    let chi: f64 = counts.iter().map(|c| (c - expected) * (c - expected) / expected).sum();
    assert!(chi < 60.0, "{chi}: {counts:?}");
    for (seed, site) in [([1, 3], 0), ([2, 2], 0), ([1, 2], 1)] {
        let other = noise(seed, site, 0.25, n);
        let product: f64 = values.iter().zip(&other).map(|(a, b)| a * b).sum::<f64>() / n as f64;
        // The product of two independent ones has the deviation m²/3.
        let bound = 5.0 * magnitude * magnitude / 3.0 / (n as f64).sqrt();
        assert!(product.abs() < bound, "{seed:?} {site}: {product}");
    }
    assert!(noise([1, 2], 0, 0.0, 100).iter().all(|x| *x == 0.0));
}

fn noisy(alpha: Option<f64>, dtype: DType, checkpointing: bool) -> Spec {
    Spec { neftune: alpha, dropout: 0.0, ..spec(false, dtype, checkpointing) }
}

/// A micro-step on two documents of 6 and 7 tokens; its loss.
fn step(s: &mut Session, seed: i32) -> f64 {
    let (batch, items) = batch(&[6, 7], 1);
    s.begin().expect("begin");
    s.micro(&batch, items, [1, seed]).expect("micro").loss
}

#[test]
fn recomputed_blocks_see_the_same_noise() {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        let [a, b] = [true, false].map(|checkpointing| {
            let mut s =
                session(noisy(Some(5.0), dtype, checkpointing), CpuOptions { poison: true, late_copies: false });
            let losses = [step(&mut s, 1), step(&mut s, 2)];
            assert_ne!(losses[0], losses[1]);
            (losses, left(&mut s))
        });
        assert!(a == b, "{dtype:?}");
    }
}

#[test]
fn the_size_of_the_noise_is_that_of_the_longest_row() {
    let mut s = session(noisy(Some(5.0), DType::F32, true), CpuOptions::default());
    step(&mut s, 1);
    let noise = s.model.params.exchange.noise.expect("recorded with noise");
    let width = s.model.spec.config.hidden_size as f64;
    assert_eq!(s.read(noise, 0).expect("read"), [f64::from((5.0 / (7.0 * width).sqrt()) as f32)]);
}

#[test]
fn evaluation_is_without_noise() {
    let eval = |alpha| {
        let mut s = session(noisy(alpha, DType::F32, true), CpuOptions::default());
        step(&mut s, 1);
        let batch = batch(&[6, 7], 1).0;
        (s.eval(&batch, true).expect("eval"), s.logits(&batch, &[12], true).expect("logits"))
    };
    assert_eq!(eval(Some(50.0)), eval(None));
}

#[test]
fn without_alpha_there_is_no_such_op() {
    for (alpha, wanted) in [(None, 0), (Some(5.0), 1)] {
        for checkpointing in [true, false] {
            let program = record(noisy(alpha, DType::F32, checkpointing)).expect("recorded").program;
            let count = |phase| program.ops(phase).iter().filter(|op| matches!(op, Op::Noise { .. })).count();
            assert_eq!(count(Phase::Micro), wanted);
            assert_eq!(count(Phase::Eval { adapter: true }) + count(Phase::Logits { adapter: true }), 0);
        }
    }
}
