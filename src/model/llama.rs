//! Llama and its relatives: pre-norm blocks of attention and MLP (or a mixture of experts) on a residual stream. The shapes
//! and parts that differ (grouped heads, biases, norms of heads, windows, experts) are data.

use super::config::ModelConfig;
use super::exchange::Exchange;
use super::linear::{AdapterUse, Projection};
use super::params::{Block, Params};
use crate::op::{Groups, View};
use crate::tape::{Policy, Ranges, Tape};

/// Properties in which the phases that run the stack differ.
#[derive(Clone, Copy, Debug)]
pub struct StackPass<'a> {
    /// Adapters and dropout.
    pub with: AdapterUse,
    /// For the pass that trains, the policy of each block. There, experts are marked as touched, too.
    pub training: Option<&'a [Policy]>,
}

/// The site of the noise on the embeddings; those of adapters begin at 1.
const NOISE_SITE: u32 = 0;

/// Embeddings and all blocks. Returns the residual stream, `[T,D]`, and the router logits of each layer.
pub fn stack(t: &mut Tape, config: &ModelConfig, params: &Params, pass: StackPass<'_>) -> (View, Vec<View>) {
    let inputs = &params.exchange;
    let mut x = t.embed("embedded", inputs.ids, params.embedding);
    if let Some(magnitude) = inputs.noise.filter(|_| pass.training.is_some()) {
        x = t.noise("noisy", x, inputs.seed, NOISE_SITE, magnitude);
    }
    let mut router_logits = Vec::new();
    for (i, layer) in params.blocks.iter().enumerate() {
        // A layer ahead, so that the copies run beside its kernels.
        params.blocks.get(i + 1).into_iter().flat_map(Block::projections).for_each(|next| next.fetch_ahead(t));
        t.scoped(&format!("layers.{i}"), |t| {
            let record = |t: &mut Tape| block(t, config, i, layer, inputs, x, pass);
            let (out, logits) = match pass.training {
                Some(policies) => t.block(policies[i], x, record),
                None => record(t),
            };
            x = out;
            router_logits.extend(logits);
        });
    }
    (x, router_logits)
}

/// Block `i`. x `[T,D]`; returns the stream after it and the router's logits.
fn block(
    t: &mut Tape,
    config: &ModelConfig,
    i: usize,
    layer: &Block,
    inputs: &Exchange,
    x: View,
    pass: StackPass<'_>,
) -> (View, Option<View>) {
    let h = t.rms_norm("input_norm", x, layer.input_norm, config.rms_norm_eps);
    let ranges = Ranges { lo: inputs.lo, hi: inputs.hi, qlo: inputs.qlo, qhi: inputs.qhi };
    let ranges = match inputs.full {
        Some((lo, qhi)) if config.full_layers.contains(&i) => Ranges { lo, qhi, ..ranges },
        _ => ranges,
    };
    let a = attention(t, config, layer, inputs, ranges, h, pass);
    let x = t.add("attended", x, a);

    let h = t.rms_norm("post_norm", x, layer.post_norm, config.rms_norm_eps);
    let (y, logits) = match &layer.router {
        None => (mlp(t, layer, h, None, pass), None),
        Some(router) => {
            let (y, logits) = experts(t, config, layer, router, h, pass);
            (y, Some(logits))
        }
    };
    (t.add("out", x, y), logits)
}

/// Self-attention with rotary positions. h `[T,D]`; returns `[T,D]`.
fn attention(
    t: &mut Tape,
    config: &ModelConfig,
    layer: &Block,
    inputs: &Exchange,
    ranges: Ranges,
    h: View,
    pass: StackPass<'_>,
) -> View {
    let (wide, narrow) = (config.q_width(), config.kv_width());
    let qkv = layer.qkv.forward(t, h, None, pass.with, t.compute);
    let (mut q, mut k, v) = (qkv.columns(0, wide), qkv.columns(wide, narrow), qkv.columns(wide + narrow, narrow));
    if let Some([q_norm, k_norm]) = layer.head_norms {
        q = t.rms_norm("q_norm", q, q_norm, config.rms_norm_eps);
        k = t.rms_norm("k_norm", k, k_norm, config.rms_norm_eps);
    }
    t.rope(q, inputs.pos, inputs.inv_freq);
    t.rope(k, inputs.pos, inputs.inv_freq);
    let scale = (config.head_dim as f64).powf(-0.5) * config.rope.score_factor();
    let a = t.attention([q, k, v], ranges, [config.heads, config.kv_heads], scale);
    layer.o.forward(t, a, None, pass.with, t.compute)
}

/// `down(silu(gate(h)) · up(h))`; with groups, the rows belong to experts. h `[n,D]`; returns `[n,D]`.
fn mlp(t: &mut Tape, layer: &Block, h: View, groups: Option<Groups>, pass: StackPass<'_>) -> View {
    let gate_up = layer.gate_up.forward(t, h, groups, pass.with, t.compute);
    let width = gate_up.cols / 2;
    let a = t.swiglu(gate_up.columns(0, width), gate_up.columns(width, width));
    layer.down.forward(t, a, groups, pass.with, t.compute)
}

/// A mixture of experts: each token goes to some of them. h `[T,D]`; returns the weighted sum of its experts for each token,
/// `[T,D]`, and the router's logits, `[T,E]`.
fn experts(
    t: &mut Tape,
    config: &ModelConfig,
    layer: &Block,
    router: &Projection,
    h: View,
    pass: StackPass<'_>,
) -> (View, View) {
    let logits = router.forward(t, h, None, pass.with, t.compute);
    let (choices, renormalize) = config.experts.as_ref().map_or((1, false), |e| (e.per_token, e.renormalize));
    let routed = t.route(logits, choices, renormalize, layer.touched.filter(|_| pass.training.is_some()));
    let rows = t.gather(h, &routed);
    let y = mlp(t, layer, rows, Some(routed.groups), pass);
    (t.combine(y, &routed), logits)
}
