//! Programs for at most four tokens multiply with 4-bit weights directly.

use crate::fixtures::{batch, session, spec};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{Spec, record};
use halfbyte_core::op::{Op, Phase};

/// Width 32, so that rows are whole runs of codes; `inner` of the MLP.
fn narrow(tokens: usize, dtype: DType, inner: usize) -> Spec {
    let mut spec = Spec { tokens, ..spec(false, dtype, true) };
    (spec.config.hidden_size, spec.config.intermediate_size, spec.config.head_dim) = (32, inner, 8);
    spec
}

fn count(spec: Spec, phase: Phase, kind: fn(&Op) -> bool) -> usize {
    let program = record(spec).expect("recorded").program;
    program.ops(phase).iter().filter(|op| kind(op)).count()
}

fn gemv(op: &Op) -> bool {
    matches!(op, Op::Gemv { .. })
}

fn dequantize(op: &Op) -> bool {
    matches!(op, Op::Dequantize { .. })
}

#[test]
fn each_4_bit_weight_is_read_once_and_never_written() {
    // Seven linears in two layers; one is in 16 bits.
    for adapter in [true, false] {
        for phase in [Phase::Eval { adapter }, Phase::Logits { adapter }] {
            assert_eq!(count(narrow(4, DType::Bf16, 64), phase, gemv), 13);
            assert_eq!(count(narrow(4, DType::Bf16, 64), phase, dequantize), 0);
            assert_eq!(count(narrow(5, DType::Bf16, 64), phase, gemv), 0);
        }
    }
    // An inner size of 40 is not a whole number of runs: the two `down` are dequantized.
    assert_eq!(count(narrow(4, DType::Bf16, 40), Phase::Eval { adapter: true }, gemv), 11);
    assert_eq!(count(narrow(4, DType::Bf16, 40), Phase::Eval { adapter: true }, dequantize), 2);
    // Training needs the weights twice.
    assert_eq!(count(narrow(4, DType::Bf16, 64), Phase::Micro, gemv), 0);
}

#[test]
fn it_gives_what_dequantization_and_product_give() {
    for lengths in [&[1][..], &[1, 2], &[4]] {
        let [few, many] = [4, 5].map(|tokens| {
            let mut s = session(narrow(tokens, DType::F64, 64), CpuOptions { poison: true, late_copies: false });
            s.begin().expect("begin");
            let batch = batch(lengths, 3).0;
            let logp = s.eval(&batch, true).expect("eval").logp;
            [logp, s.logits(&batch, &[0], false).expect("logits")].concat()
        });
        // The sums of a part and of merged parts may be ordered otherwise.
        let error = few.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-12 && few.len() == many.len(), "{lengths:?}: {error}");
    }
}
