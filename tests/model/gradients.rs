//! Every adapter gradient against central differences, in f64, at planned (overlapping) addresses.

use crate::fixtures::{batch, qwen_moe, session, spec, spec_of};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{AdapterSpec, Spec};
use halfbyte_core::session::Session;

/// Two micro-batches of packed documents: the loss and, left in the gradient buffer, its gradient.
fn accumulate(s: &mut Session) -> f64 {
    let batches = [batch(&[5, 1, 7], 1), batch(&[9, 4], 2)];
    let items: usize = batches.iter().map(|(_, n)| n).sum();
    s.begin().expect("begin");
    let mut loss = 0.0;
    for (i, (batch, _)) in batches.iter().enumerate() {
        let micro = s.micro(batch, items, [11, i as i32]).expect("micro");
        loss += micro.loss + micro.aux;
    }
    loss
}

fn check(spec: Spec) {
    let family = spec.config.family.model_type();
    let mut s = session(spec, CpuOptions { poison: true, late_copies: false });
    let (master, gradient) = s.model.params.master.expect("adapters");
    accumulate(&mut s);
    let analytic = s.read(gradient, 0).expect("read");
    let values = s.read(master, 0).expect("read");
    let largest = analytic.iter().fold(0f64, |m, g| m.max(g.abs()));
    let (mut worst, mut zeros) = (0f64, 0);
    // One thread: with matrices this small, handing work to others is all that parallel loops would do.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    for i in 0..values.len() {
        let mut at = |delta: f64| {
            let mut moved = values.clone();
            moved[i] += delta;
            s.write(master, &moved).expect("written");
            alone.install(|| accumulate(&mut s))
        };
        let h = 1e-5;
        let numeric = (at(h) - at(-h)) / (2.0 * h);
        // Relative to the gradient itself where it is not tiny, else to a hundredth of the largest.
        let error = (numeric - analytic[i]).abs() / analytic[i].abs().max(1e-2 * largest);
        assert!(error <= 1e-6, "element {i}: analytic {}, numeric {numeric}", analytic[i]);
        worst = worst.max(error);
        zeros += usize::from(analytic[i] == 0.0);
    }
    println!("{family}: {} gradients, worst relative error {worst:.1e}, {zeros} exactly zero", values.len());
    assert!(zeros * 5 < values.len(), "most parameters must have an influence");
}

#[test]
fn dense_gradients_match_central_differences() {
    check(spec(false, DType::F64, true));
}

#[test]
fn mixtral_gradients_match_central_differences() {
    check(spec(true, DType::F64, true));
}

/// Without dropout, the A's of modules that share an input are one matrix. Ranks and scales differ, and the first module, the
/// last or the one in the middle has no adapter.
#[test]
fn gradients_of_stacked_adapters_match_central_differences() {
    for (moe, left_out) in
        [(false, ["q_proj", "up_proj"]), (false, ["k_proj", "gate_proj"]), (true, ["v_proj", "gate"])]
    {
        let mut spec = spec(moe, DType::F64, false);
        spec.dropout = 0.0;
        spec.config.layers = 1;
        spec.policies.truncate(1);
        spec.adapters.retain(|module, _| !left_out.iter().any(|leaf| module.ends_with(&format!(".{leaf}"))));
        for (module, adapter) in &mut spec.adapters {
            let second = ["k_proj", "w3", "up_proj"].iter().any(|leaf| module.ends_with(leaf));
            *adapter = if second { AdapterSpec { r: 16, scale: 0.6 } } else { AdapterSpec { r: 8, scale: 1.7 } };
        }
        check(spec);
    }
}

#[test]
fn gradients_of_unnormalized_routing_match_central_differences() {
    check(spec_of(qwen_moe(), DType::F64, true));
}
