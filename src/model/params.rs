//! The resident buffers of a program: base weights, adapters, inputs and outputs, optimizer state; and which tensor of a
//! checkpoint or of an adapter file belongs where.

use super::linear::{Adapter, Base, Part, Projection};
use super::llama::Block;
use super::optimizer::{OptimizerState, declare_optimizer};
use super::spec::{AdapterSpec, Spec};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{CONTROL_FIELDS, Kind, Nested, Place, Rows, SAMPLE_FIELDS, View};
use crate::quant::Scheme;
use crate::quant::blockwise8::BLOCK;
use crate::tape::{Quantized, Tape};

/// Columns of the padded copies of adapters are a multiple of this: the K step of a tensor-core product.
pub const RANK_STEP: usize = 16;

/// Where the values of a checkpoint tensor go.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fill {
    /// In the compute type, row by row.
    Dense(View),
    /// Quantised to 4 bits.
    Quantized(Quantized),
}

/// A tensor of the checkpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightTensor {
    /// Its HF name.
    pub name: String,
    /// `[rows, cols]`; norm weights have one row.
    pub shape: (usize, usize),
    /// Its place.
    pub fill: Fill,
}

/// Which of the two matrices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Half {
    /// `lora_A`, `[r, in]`.
    A,
    /// `lora_B`, `[out, r]`.
    B,
}

/// One trained tensor, as PEFT names them.
#[derive(Clone, PartialEq, Debug)]
pub struct AdapterTensor {
    /// `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// A or B.
    pub half: Half,
    /// First element in master and gradient.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Index into `touched` (layer · experts + expert), if the module belongs to an expert.
    pub touched: Option<usize>,
}

/// What the host writes before a run and reads after it. `[T,1]` unless stated.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// I32: token ids.
    pub ids: View,
    /// I32: the next token's id, or −100.
    pub targets: View,
    /// Factor on the loss of each token.
    pub weight: View,
    /// I32: position inside of the document.
    pub pos: View,
    /// I32: first key that a token sees.
    pub lo: View,
    /// I32: one past the last.
    pub hi: View,
    /// I32: first query that sees a key.
    pub qlo: View,
    /// I32: one past the last.
    pub qhi: View,
    /// `[1, d/2]`: angle of one position for each pair.
    pub inv_freq: View,
    /// I32 `[1,2]`: key of the random numbers of this micro-step.
    pub seed: View,
    /// `[1,1]`: size of the noise on the embeddings in this micro-step, where there is any.
    pub noise: Option<View>,
    /// `[1, CONTROL_FIELDS]`, see [`crate::op::Control`].
    pub control: View,
    /// Log-probability of each target.
    pub logp: View,
    /// I32: 1 where the target is the most probable token.
    pub hit: View,
    /// `[1,1]`: the router's auxiliary loss, where there is one.
    pub aux: Option<View>,
    /// Where there are `Logits` phases.
    pub selected: Option<Selected>,
}

/// Rows of the stream whose logits are wanted, and what comes of them.
#[derive(Clone, Copy, Debug)]
pub struct Selected {
    /// I32 `[n,1]`: the rows.
    pub rows: View,
    /// `[n,V]`.
    pub logits: View,
    /// `[1, SAMPLE_FIELDS]`: how tokens are chosen, see [`crate::op::SampleField`].
    pub rule: View,
    /// I32 `[n,1]`: the token chosen for each row.
    pub token: View,
}

/// A cast of the `begin` phase: masters to the padded copy in the compute type.
#[derive(Clone, Copy, Debug)]
pub struct AdapterCopy {
    /// The master as a matrix `[experts · rows, cols]`.
    pub master: View,
    /// The padded copy.
    pub copy: View,
    /// Number of experts.
    pub experts: usize,
}

/// All resident buffers.
#[derive(Clone, Debug)]
pub struct Params {
    /// `[V,D]`.
    pub embedding: View,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// `[1,D]`.
    pub final_norm: View,
    /// `lm_head`; its base is the embedding if they are tied.
    pub head: Projection,
    /// Checkpoint tensors.
    pub weights: Vec<WeightTensor>,
    /// Trained tensors, in the order of the master.
    pub adapter: Vec<AdapterTensor>,
    /// Adapter weights in full precision and their gradients, `[1,N]`; `None` without adapters.
    pub master: Option<(View, View)>,
    /// Padded copies.
    pub copies: Vec<AdapterCopy>,
    /// I32 `[1, layers · experts]` (at least one): experts that saw a token since `begin`.
    pub touched: View,
    /// Inputs and outputs.
    pub exchange: Exchange,
    /// The optimizer, if the program trains.
    pub optimizer: Option<OptimizerState>,
}

/// A module group before its buffers exist.
struct Shape {
    name: &'static str,
    input: usize,
    /// (leaf name, output features).
    parts: Vec<(&'static str, usize)>,
    /// What stands before the leaf (before the number of the expert): `model.layers.0.mlp`. Empty for the head.
    prefix: String,
    /// Number of experts, and the index of the first in `touched`.
    experts: Option<(usize, usize)>,
}

impl Shape {
    /// Full names of the modules of one leaf: one, or one for each expert.
    fn modules(&self, leaf: &str) -> Vec<String> {
        match self.experts {
            Some((count, _)) => (0..count).map(|e| format!("{}.{e}.{leaf}", self.prefix)).collect(),
            None if self.prefix.is_empty() => vec![leaf.into()],
            None => vec![format!("{}.{leaf}", self.prefix)],
        }
    }
    fn count(&self) -> usize {
        self.experts.map_or(1, |(count, _)| count)
    }
}

/// Declares everything.
pub fn declare(t: &mut Tape, spec: &Spec) -> Result<Params> {
    let mut d = Declare { spec, weights: Vec::new(), adapter: Vec::new(), pending: Vec::new(), site: 0, size: 0 };
    let config = &spec.config;
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let experts = config.experts.as_ref().map_or(0, |e| e.count);
    let touched = t.resident("touched", 1, (config.layers * experts).max(1), DType::I32, Kind::Exchange);

    let embedding = d.tensor(t, "model.embed_tokens.weight", config.vocab_size, hidden);
    let mut blocks = Vec::new();
    for i in 0..config.layers {
        let layer = format!("model.layers.{i}");
        let plain = |name, input, parts: &[(&'static str, usize)], within: &str| Shape {
            name,
            input,
            parts: parts.to_vec(),
            prefix: format!("{layer}.{within}"),
            experts: None,
        };
        let block = t.scoped(&format!("layers.{i}"), |t| -> Result<Block> {
            let input_norm = d.tensor(t, &format!("{layer}.input_layernorm.weight"), 1, hidden);
            let qkv = plain("qkv", hidden, &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)], "self_attn");
            let qkv = d.projection(t, qkv)?;
            let o = d.projection(t, plain("o", q, &[("o_proj", hidden)], "self_attn"))?;
            let post_norm = d.tensor(t, &format!("{layer}.post_attention_layernorm.weight"), 1, hidden);
            let (router, gate_up, down) = if experts > 0 {
                let router = d.projection(t, plain("router", hidden, &[("gate", experts)], "block_sparse_moe"))?;
                let within = "block_sparse_moe.experts";
                let stacked = |shape| Shape { experts: Some((experts, i * experts)), ..shape };
                let gate_up = stacked(plain("gate_up", hidden, &[("w1", inner), ("w3", inner)], within));
                let gate_up = d.projection(t, gate_up)?;
                (Some(router), gate_up, d.projection(t, stacked(plain("down", inner, &[("w2", hidden)], within)))?)
            } else {
                let gate_up = plain("gate_up", hidden, &[("gate_proj", inner), ("up_proj", inner)], "mlp");
                let gate_up = d.projection(t, gate_up)?;
                (None, gate_up, d.projection(t, plain("down", inner, &[("down_proj", hidden)], "mlp"))?)
            };
            let touched = (experts > 0).then(|| touched.columns(i * experts, experts));
            Ok(Block { input_norm, qkv, o, post_norm, router, gate_up, down, touched })
        })?;
        blocks.push(block);
    }
    let final_norm = d.tensor(t, "model.norm.weight", 1, hidden);
    let head = d.head(t, embedding)?;

    let Declare { weights, adapter, pending, size, .. } = d;
    let master = (size > 0).then(|| {
        let master = t.resident("master", 1, size, t.wide(), Kind::Master);
        (master, t.resident("gradient", 1, size, t.wide(), Kind::Gradient))
    });
    let mut copies = Vec::new();
    if let Some((master, gradient)) = master {
        for p in pending {
            let part = |flat: View| flat.within(p.offset, p.experts * p.rows, p.cols);
            t.trainable(p.copy, part(gradient));
            copies.push(AdapterCopy { master: part(master), copy: p.copy, experts: p.experts });
        }
    }
    let exchange = exchange(t, spec);
    let optimizer = spec.optimizer.as_ref().filter(|_| size > 0).map(|o| declare_optimizer(t, o, &adapter));
    Ok(Params { embedding, blocks, final_norm, head, weights, adapter, master, copies, touched, exchange, optimizer })
}

/// A padded copy whose master does not exist yet.
struct Pending {
    copy: View,
    offset: usize,
    experts: usize,
    rows: usize,
    cols: usize,
}

struct Declare<'a> {
    spec: &'a Spec,
    weights: Vec<WeightTensor>,
    adapter: Vec<AdapterTensor>,
    pending: Vec<Pending>,
    /// Next dropout site.
    site: u32,
    /// Elements of the master so far.
    size: usize,
}

impl Declare<'_> {
    /// A 16-bit tensor with a buffer of its own.
    fn tensor(&mut self, t: &mut Tape, name: &str, rows: usize, cols: usize) -> View {
        let view = t.resident(name, rows, cols, t.compute, Kind::Weight);
        self.weights.push(WeightTensor { name: name.into(), shape: (rows, cols), fill: Fill::Dense(view) });
        view
    }

    fn projection(&mut self, t: &mut Tape, shape: Shape) -> Result<Projection> {
        let dense_leaf = |leaf: &str| shape.modules(leaf).iter().all(|m| !self.spec.base.contains_key(m));
        let all_dense = shape.parts.iter().all(|(leaf, _)| dense_leaf(leaf));
        let width: usize = shape.parts.iter().map(|(_, out)| out).sum();
        let rows = shape.count() * width;
        let merged = format!("{}.weight", shape.name);
        let dense = all_dense.then(|| t.resident(&merged, rows, shape.input, t.compute, Kind::Weight));
        let mut parts = Vec::new();
        let mut row = 0;
        for &(leaf, out) in &shape.parts {
            let modules = shape.modules(leaf);
            let mut base = Vec::new();
            for (e, module) in modules.iter().enumerate() {
                let slab = dense.map(|w| w.slab(e * width + row, out));
                base.push(self.base(t, module, slab, out, shape.input));
            }
            let touched = shape.experts.map(|(_, first)| first);
            let adapter = self.adapter(t, leaf, &modules, out, shape.input, touched)?;
            parts.push(Part { leaf: leaf.into(), out, base, adapter });
            row += out;
        }
        Ok(Projection { name: shape.name, input: shape.input, parts, dense })
    }

    /// The base of one module: a slab of a merged weight, or buffers of its own.
    fn base(&mut self, t: &mut Tape, module: &str, slab: Option<View>, out: usize, input: usize) -> Base {
        let name = format!("{module}.weight");
        let base = match (slab, self.spec.base.get(module)) {
            (Some(slab), _) => Base::Dense(slab),
            (None, None) => Base::Dense(t.resident(&name, out, input, t.compute, Kind::Weight)),
            (None, Some(&Scheme { kind, blocksize: block, double })) => {
                let blocks = (out * input).div_ceil(block);
                let codes = t.resident(&name, out, input / 2, DType::U8, Kind::Weight);
                let scale = if double { DType::U8 } else { DType::F32 };
                let absmax = t.resident(&format!("{name}.absmax"), 1, blocks, scale, Kind::Weight);
                let nested = double.then(|| Nested {
                    absmax: t.resident(
                        &format!("{name}.nested_absmax"),
                        1,
                        blocks.div_ceil(BLOCK),
                        DType::F32,
                        Kind::Weight,
                    ),
                    offset: t.resident(&format!("{name}.nested_offset"), 1, 1, DType::F32, Kind::Weight),
                });
                Base::Quantized(Quantized { kind, block, codes, absmax, nested })
            }
        };
        let fill = match base {
            Base::Dense(view) => Fill::Dense(view),
            Base::Quantized(q) => Fill::Quantized(q),
        };
        self.weights.push(WeightTensor { name, shape: (out, input), fill });
        base
    }

    /// The adapters of the experts of one matrix (or of the one module), which lie one after the other.
    fn adapter(
        &mut self,
        t: &mut Tape,
        leaf: &str,
        modules: &[String],
        out: usize,
        input: usize,
        touched: Option<usize>,
    ) -> Result<Option<Adapter>> {
        let specs: Vec<Option<&AdapterSpec>> = modules.iter().map(|m| self.spec.adapters.get(m)).collect();
        if let Some(odd) = specs.iter().position(|s| *s != specs[0]) {
            return Err(Error::usage(format!(
                "the experts of one matrix must have the same adapter, but {} and {} differ",
                modules[0], modules[odd]
            ))
            .hint("name the matrix (w1, w2, w3) in `target_modules`, and use no rank_pattern for single experts"));
        }
        let Some(&AdapterSpec { r, scale }) = specs[0] else { return Ok(None) };
        let (experts, padded) = (modules.len(), r.next_multiple_of(RANK_STEP));
        let a = t.resident(&format!("{leaf}.lora_A"), experts * padded, input, t.compute, Kind::Adapter);
        let b = t.resident(&format!("{leaf}.lora_B"), experts * out, padded, t.compute, Kind::Adapter);
        for (half, copy, rows, cols) in [(Half::A, a, r, input), (Half::B, b, out, r)] {
            self.pending.push(Pending { copy, offset: self.size, experts, rows, cols });
            for (e, module) in modules.iter().enumerate() {
                let touched = touched.map(|first| first + e);
                self.adapter.push(AdapterTensor {
                    module: module.clone(),
                    half,
                    offset: self.size,
                    rows,
                    cols,
                    touched,
                });
                self.size += rows * cols;
            }
        }
        self.site += 1;
        Ok(Some(Adapter { a, b, scale, site: self.site }))
    }

    fn head(&mut self, t: &mut Tape, embedding: View) -> Result<Projection> {
        let config = &self.spec.config;
        let parts = vec![("lm_head", config.vocab_size)];
        let shape = Shape { name: "logits", input: config.hidden_size, parts, prefix: String::new(), experts: None };
        if !config.tied {
            return self.projection(t, shape);
        }
        let adapter = self.adapter(t, "lm_head", &["lm_head".to_string()], config.vocab_size, shape.input, None)?;
        let part = Part { leaf: "lm_head".into(), out: config.vocab_size, base: vec![Base::Dense(embedding)], adapter };
        Ok(Projection { name: shape.name, input: shape.input, parts: vec![part], dense: Some(embedding) })
    }
}

fn exchange(t: &mut Tape, spec: &Spec) -> Exchange {
    let token =
        |t: &mut Tape, name: &str, dtype| t.buf(name, Rows::Tokens(1), 1, dtype, Place::Resident(Kind::Exchange));
    let fixed = |t: &mut Tape, name: &str, rows, cols, dtype| t.resident(name, rows, cols, dtype, Kind::Exchange);
    let wide = t.wide();
    let n = spec.logits_rows;
    Exchange {
        ids: token(t, "ids", DType::I32),
        targets: token(t, "targets", DType::I32),
        weight: token(t, "weight", wide),
        pos: token(t, "pos", DType::I32),
        lo: token(t, "lo", DType::I32),
        hi: token(t, "hi", DType::I32),
        qlo: token(t, "qlo", DType::I32),
        qhi: token(t, "qhi", DType::I32),
        inv_freq: fixed(t, "inv_freq", 1, spec.config.head_dim / 2, wide),
        seed: fixed(t, "seed", 1, 2, DType::I32),
        noise: spec.neftune.map(|_| fixed(t, "noise", 1, 1, wide)),
        control: fixed(t, "control", 1, CONTROL_FIELDS, wide),
        logp: token(t, "logp", wide),
        hit: token(t, "hit", DType::I32),
        aux: spec.loss.aux.map(|_| fixed(t, "aux", 1, 1, wide)),
        selected: (n > 0).then(|| Selected {
            rows: fixed(t, "select", n, 1, DType::I32),
            logits: fixed(t, "logits", n, spec.config.vocab_size, wide),
            rule: fixed(t, "rule", 1, SAMPLE_FIELDS, wide),
            token: fixed(t, "token", n, 1, DType::I32),
        }),
    }
}
