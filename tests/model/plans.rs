//! Memory plans of real model sizes: sound, and next to as small as can be.

use crate::shapes::{MODELS, spec};
use halfbyte_core::model::{Model, OptimizerKind, record};
use halfbyte_core::plan::{Plan, plan};
use halfbyte_core::tape::Policy;

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
    assert!(plan.arena_bytes * 100 <= most * 101, "{name}: the arena is {percent:.2} % larger than it must be");
    (model, plan)
}

#[test]
fn arenas_of_real_models_are_at_most_one_percent_too_large() {
    for name in MODELS {
        planned(name);
    }
}

/// GiB on the device and on the host that a model with r = 16 and AdamW in 8 bits needs.
fn needs(model: &str, tokens: usize, policy: Policy, dropout: f64, streamed: bool) -> [f64; 2] {
    let mut spec = spec(model, tokens);
    spec.policies.fill(policy);
    spec.dropout = dropout;
    spec.streamed = if streamed { spec.config.layers } else { 0 };
    spec.optimizer.as_mut().expect("it trains").state = OptimizerKind::Bitsandbytes8;
    let plan = plan(&record(spec).expect("recorded").program);
    [plan.bytes, plan.host_bytes].map(|bytes| bytes as f64 / GIB)
}

fn mistral(tokens: usize, policy: Policy, dropout: f64, streamed: bool) -> [f64; 2] {
    needs("mistral-7b-v0.1", tokens, policy, dropout, streamed)
}

#[test]
fn each_policy_needs_less_memory_than_the_one_before() {
    for (policy, most) in
        [(Policy::Keep, 28.8), (Policy::RecomputeGateUp, 16.0), (Policy::Recompute, 7.2), (Policy::Offload, 5.4)]
    {
        let [device, host] = mistral(4 * 2048, policy, 0.0, false);
        assert!(device <= most, "{policy:?}: {device} GiB");
        // The inputs of 32 blocks, 64 MiB each, and the embedding.
        let embedding = 32000.0 * 4096.0 * 2.0 / GIB;
        let held = [0.0, embedding, embedding, embedding + 2.0][policy as usize];
        assert!((host - held).abs() < 1e-6, "{policy:?}: {host} GiB of host memory");
    }
    let kept = |dropout| mistral(4 * 2048, Policy::Keep, dropout, false)[0];
    assert!(kept(0.05) <= kept(0.0) + 0.5);
    let [device, _] = mistral(2048, Policy::Offload, 0.0, false);
    assert!(device <= 4.7, "{device} GiB");
}

/// Two layers of codes are on the device at once, wherever a model comes from.
#[test]
fn streamed_weights_make_large_models_fit_small_cards() {
    let cases =
        [("mistral-7b-v0.1", 2048, 2.5), ("mixtral-8x7b-v0.1", 4 * 1024, 11.0), ("llama-2-70b", 8 * 2048, 15.0)];
    for (model, tokens, most) in cases {
        let [device, host] = needs(model, tokens, Policy::Offload, 0.0, true);
        println!("{model}, {tokens} tokens: {device:.2} GiB, and {host:.2} of host memory");
        assert!(device <= most, "{model}: {device} GiB");
    }
}

#[test]
fn llama_2_7b_at_4096_tokens_has_less_than_1_8_gib_of_activations() {
    let (_, plan) = planned("llama-2-7b");
    let gib = plan.arena_bytes as f64 / GIB;
    assert!(gib <= 1.8, "{gib}");
}
