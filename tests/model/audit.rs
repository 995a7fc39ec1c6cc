//! The access audit: `Op::visit` tells the truth about every op. Lifetimes, poison, fusion and the derivatives rest on it,
//! and end-to-end gradients notice fewer than half of all wrong declarations.
//!
//! Whole programs run op by op, each op alone on memory of which only its declared reads exist (see [`Alone::audit`]).

use crate::alone::{Alone, State};
use crate::fixtures::{batch, config, qwen_moe, session, spec, spec_of};
use crate::lies::{Key, Lie, Lies};
use crate::ops_no_model_records::ops_no_model_records;
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{AdapterSpec, OptimizerKind, Spec};
use halfbyte_core::op::{Buf, Op, Phase, Place, Program, View};
use halfbyte_core::session::{Sampling, Session};
use std::collections::BTreeMap;

/// Cases audited so far.
#[derive(Default)]
struct Record {
    /// Ops, by their place in the instruction set.
    seen: [usize; VARIANTS],
    /// Outputs that took an input's place, by name of the op.
    taken: BTreeMap<&'static str, usize>,
    lies: Lies,
}

impl Record {
    /// Audits `op`; `state` becomes the memory after it.
    fn audit(&mut self, alone: &Alone, program: &Program, op: &Op, live: usize, state: &mut State) {
        let declared = op.accesses();
        let after = alone.run(op, live, state, &[]).expect("an op runs where all memory exists");
        if let Err(why) = alone.audit(op, &declared, live, state, &after) {
            panic!("{} ({live} tokens): {why}\n{op:?}", op.name());
        }
        self.seen[variant(op)] += 1;
        for moved in takings(program, op) {
            let taken = alone.run(op, live, state, &moved).expect("runs in place");
            assert!(alone.same_writes(&declared, live, &taken, &after), "{} does not work in place", op.name());
            *self.taken.entry(op.name()).or_insert(0) += 1;
        }
        self.lies.tell(alone, op, live, state, &after);
        *state = after;
    }
}

/// Each way in which outputs may share the memory of inputs.
fn takings(program: &Program, op: &Op) -> Vec<Vec<(Buf, Buf)>> {
    let fits = |out: &View, from: &View| {
        out.buf != from.buf
            && (out.offset, out.rows, out.ld) == (from.offset, from.rows, from.ld)
            && program.info(out.buf).dtype == program.info(from.buf).dtype
            && program.bytes(out.buf) == program.bytes(from.buf)
    };
    let pairs = op.may_take().into_iter().filter(|(out, from)| fits(out, from));
    pairs.map(|(out, from)| vec![(out.buf, from.buf)]).collect()
}

/// Memory as a session left it: resident buffers hold what they held, everything else a finite sentinel.
fn resident(s: &mut Session, alone: &Alone) -> State {
    let mut state = alone.filled(0x3C);
    let program = s.model.program.clone();
    for buf in program.all().filter(|b| matches!(program.info(*b).place, Place::Resident(_) | Place::Host)) {
        s.device().read(buf, 0, &mut state[buf.0 as usize]).expect("read");
    }
    state
}

/// Audits one phase. `run` runs it on the session first, at planned addresses; that also brings the inputs. Afterwards
/// all that is resident must be the same in both.
fn phase(record: &mut Record, s: &mut Session, phase: Phase, live: usize, run: impl FnOnce(&mut Session)) {
    let alone = Alone::new(&s.model.program, CpuOptions::default());
    let mut state = resident(s, &alone);
    run(s);
    let end = resident(s, &alone);
    let program = s.model.program.clone();
    let x = &s.model.params.exchange;
    let mut inputs = vec![x.ids, x.targets, x.weight, x.pos, x.lo, x.hi, x.qlo, x.qhi, x.seed];
    inputs.extend(x.full.into_iter().flat_map(|(lo, qhi)| [lo, qhi]));
    inputs.extend(x.noise.into_iter().chain(x.selected.into_iter().flat_map(|s| [s.rows, s.rule])));
    for input in inputs {
        state[input.buf.0 as usize].clone_from(&end[input.buf.0 as usize]);
    }
    for op in program.ops(phase) {
        record.audit(&alone, &program, op, live, &mut state);
    }
    for buf in program.all().filter(|b| matches!(program.info(*b).place, Place::Resident(_) | Place::Host)) {
        let i = buf.0 as usize;
        assert!(state[i] == end[i], "{phase:?}: {} differs at planned addresses", program.info(buf).name);
    }
}

/// Audits all phases of a program; two micro-steps, of which the first has fewer tokens than there is room for.
fn all_phases(record: &mut Record, spec: Spec) {
    let mut s = session(spec, CpuOptions::default());
    phase(record, &mut s, Phase::Begin, 0, |s| s.begin().expect("begin"));
    for (lengths, seed) in [(&[5, 1, 5][..], 3), (&[16], 4)] {
        let (batch, items) = batch(lengths, seed);
        let live = batch.tokens();
        phase(record, &mut s, Phase::Micro, live, |s| {
            s.micro(&batch, items, [5, seed as i32]).expect("micro");
        });
    }
    phase(record, &mut s, Phase::Update, 0, |s| {
        s.update().expect("update");
    });
    let (batch, _) = batch(&[4, 7], 5);
    for adapter in [true, false] {
        phase(record, &mut s, Phase::Eval { adapter }, 11, |s| {
            s.eval(&batch, adapter).expect("eval");
        });
        phase(record, &mut s, Phase::Logits { adapter }, 11, |s| {
            s.logits(&batch, &[0, 10, 3], adapter).expect("logits");
        });
    }
    // The phase alone: its inputs are there.
    for temperature in [0.0, 0.8] {
        let sampling = Sampling { temperature, top_k: 7, top_p: 0.5, seed: 3 };
        s.next_tokens(&batch, &[0, 10, 3], true, &sampling, 4).expect("tokens");
        phase(record, &mut s, Phase::Sample, 0, |s| s.device().run(Phase::Sample, 0).expect("runs"));
    }
}

#[test]
fn every_op_reads_and_writes_what_it_declares() {
    let mut record = Record::default();
    for config in [config(false), qwen_moe(), config(true)] {
        let mut spec = Spec { neftune: Some(5.0), ..spec_of(config, DType::F32, true) };
        // The declarations of a loss over one layer have other numbers than those in `HARMLESS`.
        spec.loss.aux = spec.loss.aux.filter(|_| spec.config.experts_of(0).is_some());
        all_phases(&mut record, spec);
    }
    for state in [OptimizerKind::Bitsandbytes32, OptimizerKind::Bitsandbytes8] {
        update(&mut record, state);
    }
    for late_copies in [false, true] {
        hand_made(&mut record, late_copies);
    }
    let missing: Vec<usize> = (0..VARIANTS).filter(|v| record.seen[*v] == 0).collect();
    assert!(missing.is_empty(), "no op of the variants {missing:?} was audited: add one to `ops_no_model_records`");
    for name in [
        "add",
        "combine",
        "cross_entropy",
        "dropout",
        "gemm_nn",
        "gemm_nn_term",
        "gemm_nt",
        "gemm_nt_term",
        "gemm_tn",
        "noise",
        "grouped_nn",
        "grouped_nt",
        "grouped_tn",
        "rms_norm_bwd",
        "route_bwd",
        "swiglu",
        "swiglu_bwd",
    ] {
        assert!(record.taken.contains_key(name), "no {name} ran in place");
    }
    println!("{} ops audited; in place: {:?}", record.seen.iter().sum::<usize>(), record.taken);
    report(&record.lies);
}

/// The update of a Mixtral of which some experts saw no token; some adapters are large enough for 8-bit state.
fn update(record: &mut Record, state: OptimizerKind) {
    let mut spec = spec(true, DType::F32, true);
    let experts = (0..4).map(|e| format!("model.layers.1.block_sparse_moe.experts.{e}.w1"));
    for module in experts.chain(["lm_head".into()]) {
        spec.adapters.insert(module, AdapterSpec { r: 520, scale: 0.9 });
    }
    if let Some(optimizer) = &mut spec.optimizer {
        optimizer.state = state;
    }
    let mut s = session(spec, CpuOptions::default());
    s.begin().expect("begin");
    // Two tokens, of which the first has a label. The last expert must be idle, so that it matters what the op knows of it.
    let touched = s.model.params.touched;
    let found = (0..100).any(|seed| {
        s.begin().expect("begin");
        let loss = s.micro(&batch(&[2], seed).0, 1, [5, 6]).expect("micro").loss;
        loss > 0.0 && s.read_bytes(touched).expect("read").ends_with(&[0; 4])
    });
    assert!(found, "the last expert is never idle");
    for _ in 0..2 {
        phase(record, &mut s, Phase::Update, 0, |s| {
            s.update().expect("update");
        });
    }
}

/// The ops that no model records.
fn hand_made(record: &mut Record, late_copies: bool) {
    let (program, mut state) = ops_no_model_records();
    let alone = Alone::new(&program, CpuOptions { late_copies, ..CpuOptions::default() });
    for op in program.ops(Phase::Micro) {
        match op {
            // Here the copy happens at the Wait: the declared write is not yet due.
            Op::Start { .. } if late_copies => {
                let after = alone.run(op, program.tokens, &state, &[]).expect("runs");
                assert!(after == state, "a late copy has not happened yet");
            }
            _ => record.audit(&alone, &program, op, program.tokens - 3, &mut state),
        }
    }
}

/// Lies that no audit on this device can notice, because the op does not need the operand (or its last column) there:
/// kind of op, number of its operands, operand, harmless lies about it, reason.
const HARMLESS: [(&str, usize, usize, &[Lie], &str); 9] = [
    ("adamw", 9, 4, &[Lie::Short], LAST_FIELD),
    ("adamw", 11, 4, &[Lie::Short], LAST_FIELD),
    ("aux_loss", 6, 2, &[Lie::Short], LAST_FIELD),
    ("control", 3, 2, &[Lie::Short], LAST_FIELD),
    ("cross_entropy", 7, 3, &[Lie::Short], LAST_FIELD),
    ("control", 3, 1, &[Lie::Short], "one learning rate is read, that of the step"),
    ("aux_loss", 4, 2, &[Lie::Omitted, Lie::Short], NO_GRADIENT),
    ("cross_entropy", 6, 2, &[Lie::Omitted], NO_GRADIENT),
    ("cross_entropy", 6, 3, &[Lie::Omitted, Lie::Short], NO_GRADIENT),
];
const LAST_FIELD: &str = "the last field of the control buffer is not in use";
const NO_GRADIENT: &str =
    "the loss scale and the weight of a row are factors of the gradient, which is not wanted here";

/// Every lie is noticed, or is known to be harmless.
fn report(lies: &Lies) {
    let known = |key: &Key| HARMLESS.iter().find(|h| (h.0, h.1, h.2) == (key.0, key.1, key.2) && h.3.contains(&key.3));
    let missed: Vec<_> = lies.told.iter().filter(|(_, o)| !o.caught).collect();
    println!("{} of {} lies noticed", lies.told.len() - missed.len(), lies.told.len());
    for (key, outcome) in &missed {
        let why = known(key).unwrap_or_else(|| panic!("{key:?} was not noticed: {}", outcome.operand)).4;
        println!("harmless: {key:?}: {why}");
    }
    let stale = lies.told.iter().find(|(key, o)| o.caught && known(key).is_some());
    assert!(stale.is_none(), "noticed after all: {stale:?}");
}

const VARIANTS: usize = 29;

/// The place of an op in the instruction set. No wildcard: a new op does not compile until it has a number, and then
/// fails the test until a program contains it.
fn variant(op: &Op) -> usize {
    match op {
        Op::Embed { .. } => 0,
        Op::RmsNorm { .. } => 1,
        Op::RmsNormBwd { .. } => 2,
        Op::Gemm(_) => 3,
        Op::Dequantize { .. } => 4,
        Op::Rope { .. } => 5,
        Op::Attention(_) => 6,
        Op::AttentionBwd(_) => 7,
        Op::SwiGlu { .. } => 8,
        Op::SwiGluBwd { .. } => 9,
        Op::Add { .. } => 10,
        Op::Dropout { .. } => 11,
        Op::Cast { .. } => 12,
        Op::Zero { .. } => 13,
        Op::Route(_) => 14,
        Op::RouteBwd { .. } => 15,
        Op::Combine { .. } => 16,
        Op::CombineBwd { .. } => 17,
        Op::AuxLoss { .. } => 18,
        Op::CrossEntropy(_) => 19,
        Op::GradNorm { .. } => 20,
        Op::Control { .. } => 21,
        Op::AdamW(_) => 22,
        Op::Start { .. } => 23,
        Op::Wait { .. } => 24,
        Op::Noise { .. } => 25,
        Op::Sample { .. } => 26,
        Op::Quantize { .. } => 27,
        Op::Gemv { .. } => 28,
    }
}
