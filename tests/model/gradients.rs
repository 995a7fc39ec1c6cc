//! Every adapter gradient against central differences, in f64, at planned (overlapping) addresses.

use crate::fixtures::{batch, session, spec};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
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

fn check(moe: bool) {
    let mut s = session(spec(moe, DType::F64, true), CpuOptions { poison: true, late_copies: false });
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
    println!("moe {moe}: {} gradients, worst relative error {worst:.1e}, {zeros} exactly zero", values.len());
    assert!(zeros * 5 < values.len(), "most parameters must have an influence");
}

#[test]
fn dense_gradients_match_central_differences() {
    check(false);
}

#[test]
fn mixtral_gradients_match_central_differences() {
    check(true);
}
