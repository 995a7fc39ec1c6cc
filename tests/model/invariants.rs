//! Bits do not depend on how a program is run, planned or grouped. Whole training steps, update included.

use crate::fixtures::{batch, session, spec};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::Spec;
use halfbyte_core::op::{Control, Place, Purpose, Rows};
use halfbyte_core::session::batch::MicroBatch;
use halfbyte_core::session::{EvalLoss, Session};
use halfbyte_core::tape::Policy;
use std::collections::BTreeMap;

/// Everything that training leaves behind, by name: losses, and the resident buffers of fixed size but for the weights.
type Left = BTreeMap<String, Vec<u8>>;

pub fn left(s: &mut Session) -> Left {
    let program = s.model.program.clone();
    let mut left = Left::new();
    for buf in program.all() {
        let info = program.info(buf);
        let kept =
            !matches!(info.place, Place::Resident(Purpose::Weight | Purpose::Constant) | Place::Arena | Place::Host);
        if kept && matches!(info.rows, Rows::Fixed(_)) {
            let mut bytes = vec![0; program.bytes(buf)];
            s.device().read(buf, 0, &mut bytes).expect("read");
            assert!(left.insert(info.name.clone(), bytes).is_none(), "{} is a name twice", info.name);
        }
    }
    left
}

/// At most 13 tokens each; the third has documents of one token.
fn batches() -> Vec<(MicroBatch, usize)> {
    vec![batch(&[5, 1, 7], 1), batch(&[9, 4], 2), batch(&[1, 1, 6, 1], 3), batch(&[13], 4)]
}

/// Two updates of two micro-steps each, an evaluation, and some logits.
fn train(s: &mut Session) -> Left {
    if s.model.spec.compute == DType::F16 {
        // The usual first scale would overflow here, and skip the update.
        loss_scale(s, 256.0);
    }
    let mut losses = Vec::new();
    let batches = batches();
    for (i, pair) in batches.chunks(2).enumerate() {
        s.begin().expect("begin");
        for (j, (batch, _)) in pair.iter().enumerate() {
            let micro = s.micro(batch, pair.iter().map(|b| b.1).sum(), [i as i32, j as i32]).expect("micro");
            losses.extend([micro.loss, micro.aux]);
        }
        assert!(!s.update().expect("update").skipped);
    }
    let EvalLoss { logp, aux, .. } = s.eval(&batches[0].0, true).expect("eval");
    losses.extend(logp);
    losses.push(aux);
    losses.extend(s.logits(&batches[1].0, &[0, 12], true).expect("logits"));
    assert!(losses.iter().all(|l| l.is_finite()));
    let mut left = left(s);
    left.insert("losses".into(), losses.iter().flat_map(|l| l.to_le_bytes()).collect());
    left
}

/// Sets the loss scale, as if training had found it.
pub fn loss_scale(s: &mut Session, scale: f64) {
    let view = s.model.params.exchange.control;
    let mut control = s.control().expect("read");
    control[Control::LossScale as usize] = scale;
    s.write(view, &control).expect("written");
}

fn same(what: &str, a: &Left, b: &Left) {
    assert!(a.keys().eq(b.keys()), "{what}: other buffers");
    for (name, bytes) in a {
        let differing = bytes.iter().zip(&b[name]).filter(|(x, y)| x != y).count();
        assert!(*bytes == b[name], "{what}: {differing} of {} bytes of {name} differ", bytes.len());
    }
}

fn in_all_types(check: impl Fn(&str, &dyn Fn(bool) -> Spec)) {
    for moe in [false, true] {
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            check(&format!("moe {moe}, {dtype:?}"), &|checkpointing| spec(moe, dtype, checkpointing));
        }
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    in_all_types(|name, spec| {
        let options = CpuOptions::default();
        let (a, b) = (train(&mut session(spec(true), options)), train(&mut session(spec(true), options)));
        same(name, &a, &b);
    });
}

#[test]
fn no_policy_changes_a_bit() {
    use Policy::{Keep, Offload, Recompute, RecomputeGateUp};
    let alike = [Keep, RecomputeGateUp, Recompute, Offload].map(|policy| [policy; 2]);
    let mixed = [[Offload, Keep], [Keep, Offload], [Recompute, RecomputeGateUp], [RecomputeGateUp, Recompute]];
    in_all_types(|name, spec| {
        let kept = train(&mut session(spec(false), CpuOptions::default()));
        for policies in alike.into_iter().chain(mixed) {
            for (late_copies, streamed) in [(false, 0), (true, 0), (true, 1), (false, 2)] {
                let spec = Spec { policies: policies.to_vec(), streamed, ..spec(false) };
                let left = train(&mut session(spec, CpuOptions { poison: true, late_copies }));
                same(&format!("{name}, {policies:?}, late copies {late_copies}, {streamed} streamed"), &kept, &left);
            }
        }
    });
}

#[test]
fn nothing_depends_on_what_dead_buffers_hold() {
    in_all_types(|name, spec| {
        let poisoned = CpuOptions { poison: true, late_copies: true };
        for checkpointing in [true, false] {
            let a = train(&mut session(spec(checkpointing), CpuOptions::default()));
            same(name, &a, &train(&mut session(spec(checkpointing), poisoned)));
        }
    });
}

#[test]
fn room_for_more_tokens_changes_no_bit() {
    in_all_types(|name, spec| {
        // The largest batch has 13 tokens; capacities that are and are not multiples of the loss's chunk of 5.
        let with = |tokens| {
            train(&mut session(Spec { tokens, ..spec(true) }, CpuOptions { poison: true, late_copies: false }))
        };
        let tight = with(13);
        [14, 15, 40].into_iter().for_each(|tokens| same(name, &tight, &with(tokens)));
    });
}

#[test]
fn documents_do_not_see_each_other() {
    for moe in [false, true] {
        let mut s = session(spec(moe, DType::F64, true), CpuOptions { poison: true, late_copies: false });
        s.begin().expect("begin");
        let documents = crate::fixtures::documents(&[5, 1, 7, 1, 2], 9);
        let packed = crate::fixtures::packed(&documents.iter().collect::<Vec<_>>());
        let together = s.eval(&packed, true).expect("eval").logp;
        let mut apart = Vec::new();
        for document in &documents {
            apart.extend(s.eval(&crate::fixtures::packed(&[document]), true).expect("eval").logp);
        }
        let error = together.iter().zip(&apart).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-13 && together.len() == apart.len(), "{error}");
    }
}

#[test]
fn one_token_is_a_batch() {
    in_all_types(|name, spec| {
        let run = |spec: Spec, poison| {
            let mut s = session(spec, CpuOptions { poison, late_copies: false });
            s.begin().expect("begin");
            // Nothing follows it, so there is nothing to learn but how to route.
            let micro = s.micro(&batch(&[1], 5).0, 1, [1, 2]).expect("micro");
            assert_eq!(micro.loss, 0.0);
            let gradient = s.model.params.master.expect("adapters").1;
            let gradient = s.read(gradient, 0).expect("read");
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
            assert!(s.model.spec.loss.aux.is_some() || gradient.iter().all(|g| *g == 0.0), "{name}");
            s.update().expect("update");
            left(&mut s)
        };
        let a = run(spec(true), false);
        same(name, &a, &run(spec(false), true));
        same(name, &a, &run(Spec { tokens: 1, ..spec(true) }, true));
    });
}

#[test]
fn hits_are_the_targets_that_are_the_most_probable() {
    for moe in [false, true] {
        let mut s = session(Spec { dropout: 0.0, ..spec(moe, DType::F32, true) }, CpuOptions::default());
        s.begin().expect("begin");
        let (mut batch, items) = batch(&[4, 6], 5);
        let vocab = s.model.spec.config.vocab_size;
        let most_probable: Vec<i32> = (0..batch.tokens())
            .map(|t| {
                let row = s.logits(&batch, &[t], true).expect("logits");
                (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary") as i32
            })
            .collect();
        // Half of the targets are right, in both chunks of the loss.
        for t in (0..10).step_by(2).filter(|t| *t != 8) {
            batch.targets[t] = most_probable[t];
        }
        let want = (0..10).filter(|&t| batch.targets[t] == most_probable[t]).count();
        assert!((4..10).contains(&want));
        assert_eq!(s.eval(&batch, true).expect("eval").hits, want);
        assert_eq!(s.micro(&batch, items, [1, 2]).expect("micro").hits, want);
    }
}

/// A model large enough that products and loops are shared among threads.
fn large(moe: bool) -> Spec {
    let mut spec = spec(moe, DType::F32, true);
    let c = &mut spec.config;
    (c.hidden_size, c.intermediate_size, c.head_dim, c.vocab_size) = (64, 96, 16, 200);
    (spec.tokens, spec.loss.chunk) = (150, 64);
    spec
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for moe in [false, true] {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let mut s = session(large(moe), CpuOptions::default());
                s.begin().expect("begin");
                let (batch, items) = batch(&[70, 1, 60], 5);
                s.micro(&batch, items, [1, 2]).expect("micro");
                s.update().expect("update");
                left(&mut s)
            })
        };
        let alone = with(1);
        [2, 5].into_iter().for_each(|threads| same(&format!("{threads} threads"), &alone, &with(threads)));
    }
}

/// Micro-batches of one update in either order, or all in one: the same gradient up to the order of its sums.
#[test]
fn accumulation_does_not_depend_on_how_documents_are_shared_out() {
    for moe in [false, true] {
        let documents = crate::fixtures::documents(&[5, 1, 7, 2], 11);
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| &documents[i]);
        let gradient = |parts: &[&[_]]| {
            let mut spec = spec(moe, DType::F64, true);
            // Masks belong to places in a micro-batch; the auxiliary loss is one of the micro-batch, not of its tokens.
            (spec.dropout, spec.loss.aux) = (0.0, None);
            let mut s = session(spec, CpuOptions::default());
            s.begin().expect("begin");
            for part in parts {
                s.micro(&crate::fixtures::packed(part), 10, [0, 0]).expect("micro");
            }
            let gradient = s.model.params.master.expect("adapters").1;
            s.read(gradient, 0).expect("read")
        };
        let one = gradient(&[&[a, b, c, d]]);
        let largest = one.iter().fold(0f64, |m, g| m.max(g.abs()));
        for other in [gradient(&[&[a, b], &[c, d]]), gradient(&[&[c, d], &[a, b]]), gradient(&[&[b], &[a, d], &[c]])] {
            let error = one.iter().zip(&other).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            assert!(error < 1e-13 * largest.max(1.0), "{error}");
        }
    }
}
