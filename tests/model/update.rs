//! The decisions about an update: loss scale, skipped steps, experts that saw no token; and the padding of ranks.

use crate::fixtures::{batch, session, spec};
use crate::invariants::{left, loss_scale};
use halfbyte_core::device::cpu::{CpuOptions, adamw};
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{AdapterSpec, AdapterTensor, LoraFactor, OptimizerKind, Paging, Spec};
use halfbyte_core::op::{AdamState, Betas, Control};
use halfbyte_core::session::init::init_optimizer;
use halfbyte_core::session::{Session, Update};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An f16 model; the loss scale grows after two good steps.
fn f16(moe: bool) -> Session {
    let mut spec = spec(moe, DType::F16, true);
    let optimizer = spec.optimizer.as_mut().expect("trains");
    optimizer.rule.growth_interval = Some(2);
    let mut s = session(spec, CpuOptions::default());
    let schedule = s.model.params.optimizer.clone().expect("trains").schedule;
    let rates: Vec<f64> = (1..=schedule.cols).map(|i| i as f64 / 1024.0).collect();
    s.write(schedule, &rates).expect("written");
    s
}

fn accumulate(s: &mut Session, seed: u64) {
    let (batch, items) = batch(&[6, 7], seed);
    s.begin().expect("begin");
    s.micro(&batch, items, [seed as i32, 0]).expect("micro");
}

fn step(s: &mut Session, seed: u64) -> Update {
    accumulate(s, seed);
    s.update().expect("update")
}

fn field(s: &mut Session, field: Control) -> f64 {
    s.control().expect("read")[field as usize]
}

#[test]
fn an_overflow_halves_the_loss_scale_and_changes_nothing_else() {
    for moe in [false, true] {
        let mut s = f16(moe);
        loss_scale(&mut s, 256.0);
        assert!(!step(&mut s, 1).skipped);
        loss_scale(&mut s, 1e30);
        accumulate(&mut s, 2);
        let before = left(&mut s);
        assert!(s.update().expect("update").skipped);
        let after = left(&mut s);
        let changed: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
        assert_eq!(changed, ["control", "gradient_norm"]);
        let fields = |left: &[u8]| left.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
        let (old, mut new) = (fields(&before["control"]), fields(&after["control"]));
        assert_eq!(new[Control::LossScale as usize], old[Control::LossScale as usize] / 2.0);
        assert_eq!((old[Control::GoodSteps as usize], new[Control::GoodSteps as usize]), (1.0, 0.0));
        assert_eq!(new[Control::Skipped as usize], 1.0);
        for allowed in [Control::LossScale, Control::GoodSteps, Control::Skipped, Control::GradNorm] {
            new[allowed as usize] = old[allowed as usize];
        }
        assert_eq!(old, new);

        // The next good step is the second: its learning rate, and the bias correction of two updates.
        loss_scale(&mut s, 256.0);
        let update = step(&mut s, 3);
        assert_eq!((update.skipped, update.learning_rate), (false, 2.0 / 1024.0));
        let steps = s.model.params.optimizer.clone().expect("trains").groups[0].steps;
        let steps = s.read_bytes(steps).expect("read");
        assert!(steps.as_chunks().0.iter().any(|b| i32::from_le_bytes(*b) == 2));
    }
}

#[test]
fn the_loss_scale_doubles_after_the_interval_and_not_before() {
    let mut s = f16(false);
    loss_scale(&mut s, 16.0);
    let mut scales = Vec::new();
    for seed in 0..5 {
        assert!(!step(&mut s, seed).skipped);
        scales.push((field(&mut s, Control::LossScale), field(&mut s, Control::GoodSteps)));
    }
    assert_eq!(scales, [(16.0, 1.0), (32.0, 0.0), (32.0, 1.0), (64.0, 0.0), (64.0, 1.0)]);
}

#[test]
fn from_its_first_value_the_loss_scale_finds_one_that_works() {
    let mut s = f16(true);
    assert_eq!(field(&mut s, Control::LossScale), 65536.0);
    let skipped: Vec<bool> = (0..12).map(|seed| step(&mut s, seed).skipped).collect();
    assert!(!skipped[11] || !skipped[10], "{skipped:?}");
    let master = s.model.params.master.expect("adapters").0;
    assert!(s.read(master, 0).expect("read").iter().all(|x| x.is_finite()));
}

/// The bytes of a tensor's master and moments, and its step count.
fn tensor(s: &mut Session, i: usize) -> (Vec<f64>, i32) {
    let t: AdapterTensor = s.model.params.adapter[i].clone();
    let group = s.model.params.optimizer.clone().expect("trains").groups[0].clone();
    let (AdamState::Torch { m, v } | AdamState::Bitsandbytes { m, v }) = group.state else { panic!("32-bit state") };
    let mut values = Vec::new();
    for flat in [s.model.params.master.expect("adapters").0, m, v] {
        values.extend(s.read(flat.within(t.offset, t.rows, t.cols), 0).expect("read"));
    }
    let steps = s.read_bytes(group.steps).expect("read");
    (values, i32::from_le_bytes(steps.as_chunks().0[i]))
}

#[test]
fn an_expert_that_saw_no_token_is_not_updated() {
    for state in [OptimizerKind::Torch, OptimizerKind::Bitsandbytes32] {
        let mut spec = spec(true, DType::F32, true);
        spec.optimizer.as_mut().expect("trains").state = state;
        let mut s = session(spec, CpuOptions::default());
        let count = s.model.params.adapter.len();
        let before: Vec<_> = (0..count).map(|i| tensor(&mut s, i)).collect();
        // One token after the other: what one of them touched stays touched.
        let after = |s: &mut Session, seed: u64| -> BTreeSet<usize> {
            s.micro(&batch(&[1], seed).0, 1, [0, 0]).expect("micro");
            let bytes = s.read_bytes(s.model.params.touched).expect("read");
            (0..8).filter(|e| i32::from_le_bytes(bytes.as_chunks().0[*e]) != 0).collect()
        };
        let found = (0..100).any(|seed| {
            s.begin().expect("begin");
            let (first, both) = (after(&mut s, seed), after(&mut s, seed + 1));
            assert!(first.len() == 4 && both.is_superset(&first), "{first:?} and then {both:?} of 2 × 4 experts");
            both.len() > 4 && both.len() < 8
        });
        assert!(found, "no two tokens that use other experts and leave some idle");
        let bytes = s.read_bytes(s.model.params.touched).expect("read");
        let touched: Vec<bool> = bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) != 0).collect();
        s.update().expect("update");
        for i in 0..count {
            let after = tensor(&mut s, i);
            let idle = s.model.params.adapter[i].touched.is_some_and(|e| !touched[e]);
            if idle {
                assert_eq!(after, before[i], "{}", s.model.params.adapter[i].module);
            } else {
                // Weight decay moves even those whose gradient is zero.
                assert!(after.1 == 1 && after.0 != before[i].0, "{}", s.model.params.adapter[i].module);
            }
        }
        s.begin().expect("begin");
        let bytes = s.read_bytes(s.model.params.touched).expect("read");
        assert!(bytes.iter().all(|b| *b == 0), "a new update forgets who was touched");
    }
}

/// Masters and moments after three updates, of which f16 skips the second.
fn trained(state: OptimizerKind, dtype: DType, paging: Option<Paging>) -> Vec<Vec<u8>> {
    let mut spec = spec(true, dtype, true);
    let experts = (0..4).map(|e| format!("model.layers.1.block_sparse_moe.experts.{e}.w1"));
    for module in experts.chain(["lm_head".into()]) {
        spec.adapters.insert(module, AdapterSpec { r: 520, scale: 0.9 });
    }
    let optimizer = spec.optimizer.as_mut().expect("trains");
    (optimizer.state, optimizer.paging) = (state, paging);
    let mut s = session(spec, CpuOptions { poison: true, late_copies: true });
    init_optimizer(&mut s).expect("initialized");
    let half = dtype == DType::F16;
    for (seed, overflows) in [false, half, false].into_iter().enumerate() {
        if half {
            loss_scale(&mut s, if overflows { 1e30 } else { 16.0 });
        }
        assert_eq!(step(&mut s, seed as u64).skipped, overflows, "update {seed}");
    }
    let mut groups = s.model.params.optimizer.clone().expect("trains").groups;
    assert_eq!(groups.len() > 4, paging.is_some(), "{} pages", groups.len());
    // Pages of one kind, one after the other, are what a single page has.
    let master = s.model.params.master.expect("adapters").0;
    let mut left = BTreeMap::from([((0, 0), s.read_bytes(master).expect("read"))]);
    for group in &mut groups {
        let kind = if matches!(group.state, AdamState::Blockwise8 { .. }) { 8 } else { 32 };
        let (mut views, mut number) = (vec![group.steps], 0);
        group.state.visit(|view| views.push(*view));
        for view in views {
            left.entry((kind, number)).or_default().extend(s.read_bytes(view).expect("read"));
            number += 1;
        }
    }
    left.into_values().collect()
}

#[test]
fn paging_the_optimizer_changes_no_bit() {
    for state in [OptimizerKind::Torch, OptimizerKind::Bitsandbytes32, OptimizerKind::Bitsandbytes8] {
        for dtype in [DType::F32, DType::F16] {
            let resident = trained(state, dtype, None);
            for on_host in [0, 1, 3, usize::MAX] {
                let paged = trained(state, dtype, Some(Paging { elements: 300, on_host }));
                assert!(paged == resident, "{state:?}, {dtype:?}, {on_host} pages in host memory");
            }
        }
    }
}

/// The same adapters with rank 3 and with rank 16 of which 13 are zero.
#[test]
fn padding_a_rank_has_no_effect() {
    for (moe, dtype) in [(false, DType::F32), (true, DType::F32), (false, DType::Bf16), (true, DType::Bf16)] {
        let narrow = spec(moe, dtype, true);
        let mut wide: Spec = narrow.clone();
        wide.adapters.values_mut().for_each(|a| *a = AdapterSpec { r: 16, ..*a });
        let options = CpuOptions::default();
        let (mut narrow, mut wide) = (session(narrow, options), session(wide, options));
        let (values, _) = narrow.model.params.master.expect("adapters");
        let values = narrow.read(values, 0).expect("read");
        let (master, _) = wide.model.params.master.expect("adapters");
        let mut padded = vec![0.0; master.cols];
        let pairs = places(&narrow, &wide);
        pairs.iter().for_each(|&(from, to)| padded[to] = values[from]);
        wide.write(master, &padded).expect("written");
        let run = |s: &mut Session| {
            s.begin().expect("begin");
            let (batch, items) = batch(&[6, 1, 6], 3);
            let micro = s.micro(&batch, items, [4, 5]).expect("micro");
            let gradient = s.model.params.master.expect("adapters").1;
            (micro, s.read(gradient, 0).expect("read"), s.logits(&batch, &[3, 12], true).expect("logits"))
        };
        let (a, b) = (run(&mut narrow), run(&mut wide));
        assert_eq!((a.0, a.2), (b.0, b.2), "loss and logits");
        let mut rest = b.1.clone();
        for (from, to) in pairs {
            assert_eq!(a.1[from], b.1[to], "gradient {from}");
            rest[to] = 0.0;
        }
        assert!(rest.iter().all(|g| *g == 0.0), "the padding itself has no gradient");
    }
}

/// For each element of the narrow master, its place in the wide one.
fn places(narrow: &Session, wide: &Session) -> Vec<(usize, usize)> {
    let key = |t: &AdapterTensor| (t.module.clone(), t.factor);
    let large: HashMap<(String, LoraFactor), AdapterTensor> =
        wide.model.params.adapter.iter().map(|t| (key(t), t.clone())).collect();
    let mut pairs = Vec::new();
    for t in &narrow.model.params.adapter {
        let to = &large[&key(t)];
        let elements = (0..t.rows).flat_map(|r| (0..t.cols).map(move |c| (r, c)));
        pairs.extend(elements.map(|(r, c)| (t.offset + r * t.cols + c, to.offset + r * to.cols + c)));
    }
    pairs
}

/// Multiplying and dividing by a power of two changes nothing: not the norm, not the update.
#[test]
fn the_loss_scale_cancels() {
    for moe in [false, true] {
        let run = |scale: f64| {
            let mut s = session(spec(moe, DType::F32, true), CpuOptions::default());
            loss_scale(&mut s, scale);
            let updates = [step(&mut s, 1), step(&mut s, 2)];
            let (master, gradient) = s.model.params.master.expect("adapters");
            (updates, s.read(master, 0).expect("read"), s.read(gradient, 0).expect("read"))
        };
        let (plain, scaled) = (run(1.0), run(1024.0));
        assert_eq!(plain.0, scaled.0);
        assert_eq!(plain.1, scaled.1);
        assert!(plain.2.iter().zip(&scaled.2).all(|(a, b)| 1024.0 * a == *b), "the gradient itself is scaled");
    }
}

/// One tensor's moments, in each of the three forms.
#[derive(Default)]
struct Moments {
    wide: [Vec<f32>; 2],
    codes: [Vec<u8>; 2],
    absmax: [Vec<f32>; 2],
}

/// The segment table: every tensor meets its own gradient, its own moments, its own learning rate.
#[test]
fn every_tensor_is_updated_by_itself() {
    for state in [OptimizerKind::Torch, OptimizerKind::Bitsandbytes32, OptimizerKind::Bitsandbytes8] {
        let mut spec = spec(false, DType::F32, true);
        for large in ["lm_head", "model.layers.0.mlp.up_proj"] {
            spec.adapters.insert(large.into(), AdapterSpec { r: 520, scale: 0.9 });
        }
        let optimizer = spec.optimizer.as_mut().expect("trains");
        (optimizer.state, optimizer.lora_b_factor) = (state, 4.0);
        let (betas, weight_decay) = (optimizer.betas, optimizer.weight_decay);
        let mut s = session(spec, CpuOptions::default());
        let (master, gradient) = s.model.params.master.expect("adapters");
        let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let mut expected = narrow(s.read(master, 0).expect("read"));
        let tensors = s.model.params.adapter.clone();
        let mut moments: Vec<Moments> = tensors.iter().map(|_| Moments::default()).collect();
        for t in 1..=3 {
            step(&mut s, t);
            let gradient = narrow(s.read(gradient, 0).expect("read"));
            let (scale, rate) = (field(&mut s, Control::GradScale) as f32, field(&mut s, Control::LearningRate));
            for (tensor, moments) in tensors.iter().zip(&mut moments) {
                let n = tensor.rows * tensor.cols;
                let at = tensor.offset..tensor.offset + n;
                let g: Vec<f32> = gradient[at.clone()].iter().map(|g| g * scale).collect();
                let factor = if tensor.factor == LoraFactor::B { 4.0 } else { 1.0 };
                let weight_decay = f64::from(weight_decay as f32);
                let Betas { beta1, beta2, eps } = betas;
                let hyper = adamw::Hyper { lr: rate * factor, beta1, beta2, eps, weight_decay };
                moments.wide.iter_mut().for_each(|m| m.resize(n, 0.0));
                let (p, [m, v]) = (&mut expected[at], &mut moments.wide);
                match state {
                    OptimizerKind::Torch => adamw::torch(&hyper, t, p, &g, m, v, |x| x),
                    OptimizerKind::Bitsandbytes8 if n >= 4096 => {
                        moments.codes.iter_mut().for_each(|c| c.resize(n, 0));
                        moments.absmax.iter_mut().for_each(|a| a.resize(n.div_ceil(256), 0.0));
                        let ([codes1, codes2], [absmax1, absmax2]) = (&mut moments.codes, &mut moments.absmax);
                        let mut state = adamw::State8 { codes1, absmax1, codes2, absmax2 };
                        adamw::bitsandbytes8(&hyper, t, p, &g, &mut state, |x| x);
                    }
                    _ => adamw::bitsandbytes32(&hyper, t, p, &g, m, v, |x| x),
                }
            }
            assert_eq!(narrow(s.read(master, 0).expect("read")), expected, "{state:?}, update {t}");
        }
    }
}
