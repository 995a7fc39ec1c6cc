//! Memory plans of real model sizes: sound, and next to as small as can be.

use crate::shapes::{MODELS, spec};
use halfbyte_core::model::{Model, record};
use halfbyte_core::plan::{Plan, plan};

const GIB: f64 = (1u64 << 30) as f64;

/// Records, plans, checks; prints what a person would want to know.
fn planned(name: &str) -> (Model, Plan) {
    let model = record(spec(name, 4096)).expect("recorded");
    let plan = plan(&model.program);
    let most = plan.check(&model.program).expect("a sound plan");
    assert_eq!(most, plan.lower_bound, "two ways to find the most bytes that are alive at once");
    let percent = 100.0 * (plan.arena_bytes as f64 / most as f64 - 1.0);
    let ops: usize = model.program.phases.iter().map(|(_, ops)| ops.len()).sum();
    println!(
        "{name}: {ops} ops, {} buffers; arena {:.4} GiB, {percent:.2} % above the most that is alive; all {:.2} GiB",
        model.program.bufs.len(),
        plan.arena_bytes as f64 / GIB,
        plan.bytes as f64 / GIB,
    );
    for (kind, bytes) in &plan.resident {
        println!("    {kind:?}: {:.3} GiB", *bytes as f64 / GIB);
    }
    let peak = plan.peak(&model.program).expect("an arena");
    println!("    peak at {:?} op {} ({}):", peak.phase, peak.op, model.program.ops(peak.phase)[peak.op].name());
    for (buf, bytes) in peak.alive.iter().take(8) {
        println!("        {:8.1} MiB {}", *bytes as f64 / f64::from(1 << 20), model.program.info(*buf).name);
    }
    let rest: usize = peak.alive.iter().skip(8).map(|(_, b)| b).sum();
    println!("        {:8.1} MiB in {} more", rest as f64 / f64::from(1 << 20), peak.alive.len().saturating_sub(8));
    assert!(plan.arena_bytes * 100 <= most * 101, "{name}: the arena is {percent:.2} % larger than it must be");
    (model, plan)
}

#[test]
fn arenas_of_real_models_are_at_most_one_percent_too_large() {
    for name in MODELS {
        planned(name);
    }
}

#[test]
fn llama_2_7b_at_4096_tokens_has_less_than_1_8_gib_of_activations() {
    let (_, plan) = planned("llama-2-7b");
    let gib = plan.arena_bytes as f64 / GIB;
    assert!(gib <= 1.8, "{gib}");
}
