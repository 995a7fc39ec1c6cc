//! The resident buffers of a program: base weights and adapters, and which tensor of a checkpoint or of an adapter file
//! belongs where.

use super::exchange::{Exchange, declare_exchange};
use super::linear::{AdapterTensor, Base, LoraCopy, LoraDown, LoraFactor, Part, Projection};
use super::names::MlpNames;
use super::optimizer::{OptimizerState, declare_optimizer};
use super::spec::{AdapterSpec, Spec};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Nested, Place, Purpose, Rows, View, Weight4};
use crate::quant::Scheme;
use crate::quant::blockwise8::BLOCK;
use crate::tape::{Policy, Tape, TrainedMatrix};

/// The ranks of a projection's adapters are padded to a multiple of this: the K step of a tensor-core product.
pub const RANK_STEP: usize = 16;

/// Each adapter's ranks begin at a multiple of this: 16 bytes in the narrowest type.
const RANK_ALIGN: usize = 8;

/// The place of a checkpoint tensor's values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fill {
    /// In the compute type, row by row.
    Dense(View),
    /// Quantized to 4 bits.
    Quantized(Weight4),
}

/// A tensor of the checkpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightTensor {
    /// Its HF name.
    pub name: String,
    /// `[rows, cols]`; vectors (norm weights and biases) have one row.
    pub shape: (usize, usize),
    /// Its place.
    pub fill: Fill,
}

/// A cast of the `begin` phase: masters to their place in a copy of the compute type; see [`Op::Cast`](crate::op::Op::Cast).
#[derive(Clone, Copy, Debug)]
pub struct AdapterCopy {
    /// The master as a matrix, slab by slab.
    pub master: View,
    /// The part of the copy that is written.
    pub copy: View,
    /// Number of slabs.
    pub parts: usize,
    /// Row and column of the master in a slab of the copy.
    pub at: [usize; 2],
    /// Factor on the master's elements.
    pub scale: f64,
}

/// The frozen and trained parts of a block.
#[derive(Clone, Debug)]
pub struct Block {
    /// `input_layernorm`, `[1,D]`.
    pub input_norm: View,
    /// q, k, v.
    pub qkv: Projection,
    /// `q_norm` and `k_norm`, `[1,d]` each, where the model has them.
    pub head_norms: Option<[View; 2]>,
    /// `o_proj`.
    pub o: Projection,
    /// `post_attention_layernorm`, `[1,D]`.
    pub post_norm: View,
    /// The router; `None` for a dense MLP.
    pub router: Option<Projection>,
    /// gate and up (of all experts).
    pub gate_up: Projection,
    /// down (of all experts).
    pub down: Projection,
    /// I32 `[1,E]`: experts that saw a token since `Begin`.
    pub touched: Option<View>,
}

impl Block {
    /// Its linear layers.
    pub fn projections(&self) -> impl Iterator<Item = &Projection> {
        [&self.qkv, &self.o, &self.gate_up, &self.down].into_iter().chain(&self.router)
    }
}

/// All resident buffers.
#[derive(Clone, Debug)]
pub struct Params {
    /// `[V,D]`; in host memory if some block does not keep its activations, unless the head shares it.
    pub embedding: View,
    /// The decoder blocks, from the first layer to the last.
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

/// Modules that share an input, before their buffers exist.
struct Layout {
    name: &'static str,
    input: usize,
    /// (leaf name, output features).
    parts: Vec<(&'static str, usize)>,
    /// Whether the modules have a bias.
    biased: bool,
    /// The module name without the leaf (and the number of the expert): `model.layers.0.mlp`. Empty for the head.
    prefix: String,
    /// Number of experts, and the index of the first in `touched`.
    experts: Option<(usize, usize)>,
}

impl Layout {
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
    let resident = Place::Resident(Purpose::Weight);
    let mut d = Declare {
        spec,
        weights: Vec::new(),
        adapter: Vec::new(),
        pending: Vec::new(),
        site: 0,
        size: 0,
        codes: resident,
    };
    let config = &spec.config;
    let hidden = config.hidden_size;
    let (q, kv) = (config.q_width(), config.kv_width());
    let count = config.experts.as_ref().map_or(0, |e| e.count);
    let touched = t.resident("touched", 1, (config.layers * count).max(1), DType::I32, Purpose::Exchange);
    let MlpNames { path, gate_up: [gate, up], down, .. } = MlpNames::of(config.family);

    // Where blocks give up activations, a table of which a step reads a few rows need not be on the device.
    let scarce = spec.policies.iter().any(|policy| *policy != Policy::Keep) && !config.tied;
    let place = if scarce { Place::Host } else { resident };
    let embedding = d.tensor_in(t, "model.embed_tokens.weight", config.vocab_size, hidden, place);
    let mut blocks = Vec::new();
    for i in 0..config.layers {
        let layer = format!("model.layers.{i}");
        d.codes = if i < spec.streamed { Place::Host } else { resident };
        let plain = |name, input, parts: &[(&'static str, usize)], within: &str| Layout {
            name,
            input,
            parts: parts.to_vec(),
            prefix: format!("{layer}.{within}"),
            biased: false,
            experts: None,
        };
        let block = t.scoped(&format!("layers.{i}"), |t| -> Result<Block> {
            let input_norm = d.tensor(t, &format!("{layer}.input_layernorm.weight"), 1, hidden);
            let qkv = plain("qkv", hidden, &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)], "self_attn");
            let qkv = d.projection(t, Layout { biased: config.qkv_bias, ..qkv })?;
            let head_norms = config.head_norms.then(|| {
                ["q_norm", "k_norm"]
                    .map(|name| d.tensor(t, &format!("{layer}.self_attn.{name}.weight"), 1, config.head_dim))
            });
            let o = d.projection(t, plain("o", q, &[("o_proj", hidden)], "self_attn"))?;
            let post_norm = d.tensor(t, &format!("{layer}.post_attention_layernorm.weight"), 1, hidden);
            let experts = config.experts_of(i);
            let router = experts.map(|_| d.projection(t, plain("router", hidden, &[("gate", count)], path)));
            let inner = experts.map_or(config.intermediate_size, |e| e.width);
            let within = if experts.is_some() { format!("{path}.experts") } else { path.to_string() };
            let stacked = |layout| Layout { experts: experts.map(|_| (count, i * count)), ..layout };
            let gate_up = plain("gate_up", hidden, &[(gate, inner), (up, inner)], &within);
            let gate_up = d.projection(t, stacked(gate_up))?;
            let down = d.projection(t, stacked(plain("down", inner, &[(down, hidden)], &within)))?;
            let touched = experts.map(|_| touched.columns(i * count, count));
            Ok(Block { input_norm, qkv, head_norms, o, post_norm, router: router.transpose()?, gate_up, down, touched })
        })?;
        blocks.push(block);
    }
    d.codes = resident;
    let final_norm = d.tensor(t, "model.norm.weight", 1, hidden);
    let head = d.head(t, embedding)?;

    let Declare { weights, adapter, pending, size, .. } = d;
    let master = (size > 0).then(|| {
        let master = t.resident("master", 1, size, t.wide(), Purpose::Master);
        (master, t.resident("gradient", 1, size, t.wide(), Purpose::Gradient))
    });
    let mut copies = Vec::new();
    if let Some((master, gradient)) = master {
        for p in pending {
            let matrix = |flat: View| flat.within(p.offset, p.rows, p.cols);
            let [row, column] = p.at;
            t.trainable(p.param, TrainedMatrix { gradient: matrix(gradient), row, column, scale: p.scale });
            copies.extend(p.casts.iter().map(|cast| AdapterCopy {
                master: matrix(master).slab(cast.row, cast.rows),
                copy: cast.copy,
                parts: cast.parts,
                at: cast.at,
                scale: p.scale,
            }));
        }
    }
    let exchange = declare_exchange(t, spec);
    let optimizer = spec.optimizer.as_ref().filter(|_| size > 0).map(|o| declare_optimizer(t, o, &adapter));
    Ok(Params { embedding, blocks, final_norm, head, weights, adapter, master, copies, touched, exchange, optimizer })
}

/// A trained matrix whose master does not exist yet.
struct Pending {
    /// The copy that it belongs to.
    param: View,
    /// First element in the master.
    offset: usize,
    /// Rows, those of all experts, and columns.
    rows: usize,
    cols: usize,
    /// Its row and column in a slab of the copy.
    at: [usize; 2],
    scale: f64,
    casts: Vec<PendingCast>,
}

/// A cast of some of its rows.
struct PendingCast {
    row: usize,
    rows: usize,
    copy: View,
    parts: usize,
    at: [usize; 2],
}

/// A part of a projection that has an adapter.
struct Target {
    leaf: &'static str,
    /// The modules of all experts.
    modules: Vec<String>,
    /// Output features, and the first of them in the projection.
    out: usize,
    row: usize,
    /// Ranks, and the first of them in the projection.
    r: usize,
    column: usize,
    scale: f64,
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
    /// The memory for 4-bit codes.
    codes: Place,
}

impl Declare<'_> {
    /// A 16-bit tensor with a buffer of its own.
    fn tensor(&mut self, t: &mut Tape, name: &str, rows: usize, cols: usize) -> View {
        self.tensor_in(t, name, rows, cols, Place::Resident(Purpose::Weight))
    }

    fn tensor_in(&mut self, t: &mut Tape, name: &str, rows: usize, cols: usize, place: Place) -> View {
        let view = t.buf(name, Rows::Fixed(rows), cols, t.compute, place);
        self.weights.push(WeightTensor { name: name.into(), shape: (rows, cols), fill: Fill::Dense(view) });
        view
    }

    fn projection(&mut self, t: &mut Tape, layout: Layout) -> Result<Projection> {
        let dense_leaf = |leaf: &str| layout.modules(leaf).iter().all(|m| !self.spec.base.contains_key(m));
        let all_dense = layout.parts.iter().all(|(leaf, _)| dense_leaf(leaf));
        let width: usize = layout.parts.iter().map(|(_, out)| out).sum();
        let rows = layout.count() * width;
        let merged = format!("{}.weight", layout.name);
        let dense = all_dense.then(|| t.resident(&merged, rows, layout.input, t.compute, Purpose::Weight));
        let mut parts = Vec::new();
        let mut row = 0;
        for &(leaf, out) in &layout.parts {
            let modules = layout.modules(leaf);
            let mut base = Vec::new();
            for (e, module) in modules.iter().enumerate() {
                let slab = dense.map(|w| w.slab(e * width + row, out));
                base.push(self.base(t, module, slab, out, layout.input));
            }
            parts.push(Part { leaf: leaf.into(), out, base });
            row += out;
        }
        let adapter = self.adapter(t, &layout)?;
        let bias = layout.biased.then(|| self.bias(t, &layout, width));
        Ok(Projection { name: layout.name, input: layout.input, parts, dense, adapter, bias })
    }

    /// The biases of all parts, side by side.
    fn bias(&mut self, t: &mut Tape, layout: &Layout, width: usize) -> View {
        let bias = t.resident(&format!("{}.bias", layout.name), 1, width, t.compute, Purpose::Weight);
        let mut column = 0;
        for &(leaf, out) in &layout.parts {
            let fill = Fill::Dense(bias.columns(column, out));
            self.weights.push(WeightTensor { name: format!("{}.{leaf}.bias", layout.prefix), shape: (1, out), fill });
            column += out;
        }
        bias
    }

    /// The base of one module: a slab of a merged weight, or buffers of its own.
    fn base(&mut self, t: &mut Tape, module: &str, slab: Option<View>, out: usize, input: usize) -> Base {
        let name = format!("{module}.weight");
        let base = match (slab, self.spec.base.get(module)) {
            (Some(slab), _) => Base::Dense(slab),
            (None, None) => Base::Dense(t.resident(&name, out, input, t.compute, Purpose::Weight)),
            (None, Some(&Scheme { kind, blocksize: block, double })) => {
                let blocks = (out * input).div_ceil(block);
                let codes = t.buf(&name, Rows::Fixed(out), input / 2, DType::U8, self.codes);
                let scale = if double { DType::U8 } else { DType::F32 };
                let absmax = t.resident(&format!("{name}.absmax"), 1, blocks, scale, Purpose::Weight);
                let nested = double.then(|| Nested {
                    absmax: t.resident(
                        &format!("{name}.nested_absmax"),
                        1,
                        blocks.div_ceil(BLOCK),
                        DType::F32,
                        Purpose::Weight,
                    ),
                    offset: t.resident(&format!("{name}.nested_offset"), 1, 1, DType::F32, Purpose::Weight),
                });
                Base::Quantized(Weight4 { kind, block, codes, absmax, nested })
            }
        };
        let fill = match base {
            Base::Dense(view) => Fill::Dense(view),
            Base::Quantized(q) => Fill::Quantized(q),
        };
        self.weights.push(WeightTensor { name, shape: (out, input), fill });
        base
    }

    /// The parts that have adapters. Each one's ranks begin at a multiple of [`RANK_ALIGN`].
    fn targets(&self, layout: &Layout) -> Result<Vec<Target>> {
        let (mut row, mut column) = (0, 0);
        let mut targets = Vec::new();
        for &(leaf, out) in &layout.parts {
            let modules = layout.modules(leaf);
            let specs: Vec<Option<&AdapterSpec>> = modules.iter().map(|m| self.spec.adapters.get(m)).collect();
            if let Some(odd) = specs.iter().position(|s| *s != specs[0]) {
                return Err(Error::usage(format!(
                    "the experts of one matrix must have the same adapter, but {} and {} differ",
                    modules[0], modules[odd]
                ))
                .hint(format!(
                    "name the matrix ({leaf}) in `target_modules`, and use no rank_pattern for single experts"
                )));
            }
            if let Some(&AdapterSpec { r, scale }) = specs[0] {
                targets.push(Target { leaf, modules, out, row, r, column, scale });
                column += r.next_multiple_of(RANK_ALIGN);
            }
            row += out;
        }
        Ok(targets)
    }

    /// The adapters of a projection: first all A's, then all B's.
    fn adapter(&mut self, t: &mut Tape, layout: &Layout) -> Result<Option<LoraCopy>> {
        let targets = self.targets(layout)?;
        let Some(last) = targets.last() else { return Ok(None) };
        let ranks = (last.column + last.r).next_multiple_of(RANK_STEP);
        let (experts, input) = (layout.count(), layout.input);
        let width: usize = layout.parts.iter().map(|(_, out)| out).sum();

        // Without padding between them and without masks, all A's are one matrix. Those of experts stay apart, so that the order of
        // the master does not depend on dropout.
        let one = experts == 1 && self.spec.dropout == 0.0 && targets.iter().all(|t| t.r.is_multiple_of(RANK_ALIGN));
        let runs: Vec<&[Target]> = targets.chunks(if one { targets.len() } else { 1 }).collect();
        let mut down = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            let column = run[0].column;
            let padded = runs.get(i + 1).map_or(ranks, |next| next[0].column) - column;
            let name = format!("{}.lora_A", run[0].leaf);
            let a = t.resident(&name, experts * padded, input, t.compute, Purpose::Adapter);
            let rows = experts * run.iter().map(|t| t.r).sum::<usize>();
            let casts = vec![PendingCast { row: 0, rows, copy: a, parts: experts, at: [0, 0] }];
            self.pending.push(Pending {
                param: a,
                offset: self.size,
                rows,
                cols: input,
                at: [0, 0],
                scale: 1.0,
                casts,
            });
            for e in 0..experts {
                run.iter().for_each(|target| self.trained(layout, target, e, LoraFactor::A, [target.r, input]));
            }
            self.site += 1;
            down.push(LoraDown { a, column, site: self.site });
        }

        let b = t.resident(&format!("{}.lora_B", layout.name), experts * width, ranks, t.compute, Purpose::Adapter);
        for (i, target) in targets.iter().enumerate() {
            let &Target { out, row, r, column, scale, .. } = target;
            // The rows from here to the next part with an adapter belong to this cast, which makes the others zero.
            let from = if i == 0 { 0 } else { row };
            let to = targets.get(i + 1).map_or(width, |next| next.row);
            let of = |e: usize, slabs: usize| PendingCast {
                row: e * out,
                rows: slabs * out,
                copy: b.slab(e * width + from, (slabs - 1) * width + to - from),
                parts: slabs,
                at: [row - from, column],
            };
            let casts =
                if targets.len() == 1 { vec![of(0, experts)] } else { (0..experts).map(|e| of(e, 1)).collect() };
            let pending =
                Pending { param: b, offset: self.size, rows: experts * out, cols: r, at: [row, column], scale, casts };
            self.pending.push(pending);
            (0..experts).for_each(|e| self.trained(layout, target, e, LoraFactor::B, [out, r]));
        }
        Ok(Some(LoraCopy { down, b }))
    }

    /// Gives a tensor its place in the master.
    fn trained(
        &mut self,
        layout: &Layout,
        target: &Target,
        expert: usize,
        factor: LoraFactor,
        [rows, cols]: [usize; 2],
    ) {
        let touched = layout.experts.map(|(_, first)| first + expert);
        let module = target.modules[expert].clone();
        self.adapter.push(AdapterTensor { module, factor, offset: self.size, rows, cols, touched });
        self.size += rows * cols;
    }

    fn head(&mut self, t: &mut Tape, embedding: View) -> Result<Projection> {
        let config = &self.spec.config;
        let parts = vec![("lm_head", config.vocab_size)];
        let (input, prefix) = (config.hidden_size, String::new());
        let layout = Layout { name: "logits", input, parts, prefix, biased: false, experts: None };
        if !config.tied {
            return self.projection(t, layout);
        }
        let adapter = self.adapter(t, &layout)?;
        let part = Part { leaf: "lm_head".into(), out: config.vocab_size, base: vec![Base::Dense(embedding)] };
        Ok(Projection { name: layout.name, input, parts: vec![part], dense: Some(embedding), adapter, bias: None })
    }
}
