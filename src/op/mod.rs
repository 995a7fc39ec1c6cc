//! The instruction set. Plain data without behavior: which ops exist, and what each of them reads and writes.
//!
//! A program is a flat list of ops over buffers. Everything else in the crate is a pass over such lists (`tape`,
//! `plan`) or executes them (`device`); all of them learn what an op touches from [`Op::visit`] alone.
//!
//! `T` is the number of live tokens, `D` the model width, `V` the vocabulary, `E` the number of experts.

mod operands;
mod program;
mod view;

pub use operands::{AdamState, AdamW, Attention, AttentionBwd, Betas, CrossEntropy, Form, Gemm, Groups, Nested, Route};
pub use operands::{Term, Transfer, Weight4};
pub use program::{BufInfo, Phase, Place, Program, Purpose};
pub use view::{Buf, Rows, View};

/// Targets of this value take no part in the loss (PyTorch's `ignore_index`).
pub const IGNORED: i32 = -100;

/// Rules of the [`Op::Control`] op.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ControlRule {
    /// Gradients are scaled by `min(1, max_norm / (norm + 1e-6))`; `None`: no clipping.
    pub max_norm: Option<f64>,
    /// f16 only: when the gradient is not finite (the update is skipped then, in any type) the loss scale is halved; it
    /// doubles after this many good steps.
    pub growth_interval: Option<u32>,
}

/// The fields of the control buffer, F32 `[1, CONTROL_FIELDS]` (F64 in f64 programs).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Factor on the loss gradient (1 unless f16).
    LossScale = 0,
    /// Good steps since the loss scale last changed.
    GoodSteps = 1,
    /// Updates done; index into the learning-rate table.
    Step = 2,
    /// Factor on gradients in the update: clip factor / loss scale.
    GradScale = 3,
    /// Learning rate of this update.
    LearningRate = 4,
    /// 1 if this update was skipped because the gradient is not finite, else 0.
    Skipped = 5,
    /// Norm of the unscaled gradient, before clipping.
    GradNorm = 6,
}
/// Number of fields of the control buffer.
pub const CONTROL_FIELDS: usize = 8;

/// The fields of a rule of [`Op::Sample`], F32 `[1, SAMPLE_FIELDS]` (F64 in f64 programs).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SampleField {
    /// Logits are divided by it; 0: the largest is taken.
    Temperature = 0,
    /// Only the k largest logits (and those equal to the last of them) take part; 0: all.
    TopK = 1,
    /// Among these, the smallest set of the most probable with at least this probability takes part; from 1 on: all.
    TopP = 2,
}
/// Number of fields of a sampling rule.
pub const SAMPLE_FIELDS: usize = 3;

/// Rows that an [`Op::Gemv`] may have.
pub const GEMV_ROWS: usize = 4;
/// Columns of a [`Op::Gemv`]'s x are a multiple of this.
pub const GEMV_STEP: usize = 32;
/// Experts that a token may choose, at most (`MAX_CHOICES` in the kernels).
pub const MAX_CHOICES: usize = 8;
/// Elements of the gradient that one partial sum of its norm covers: a property of the result's bits, hence fixed.
pub const NORM_PARTIAL: usize = 65536;

/// Columns of a segment table, I64 `[segments, SEGMENT_FIELDS]`: one row for each PEFT tensor that an AdamW op updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// First element in master and gradient.
    Offset = 0,
    /// Number of elements.
    Length = 1,
    /// First element in `m` and `v`.
    State = 2,
    /// First block in `absmax_m` and `absmax_v` (8-bit state).
    Block = 3,
    /// Index into `touched`, or -1: the tensor takes part in every step.
    Touched = 4,
}
/// Number of columns of a segment table.
pub const SEGMENT_FIELDS: usize = 5;

/// One instruction. `plus`, where an op has it, is added to the result (`out = plus + …`); it may be `out` itself.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the line above each op gives the shape of every field")]
pub enum Op {
    /// `out[i] = table[ids[i]]`. ids I32 `[n,1]`, table `[V,D]`, out `[n,D]`.
    Embed { ids: View, table: View, out: View },
    /// `out = round(x · rstd) · weight`, `rstd = 1/√(mean(x²) + eps)`, for each D columns on their own. x, out `[T,n·D]`,
    /// weight `[1,D]`, rstd F32 `[T,n]`.
    RmsNorm { x: View, weight: View, out: View, rstd: View, eps: f64 },
    /// `dx = plus + rstd·(g − x·rstd²·mean(g·x))`, `g = dout·weight`.
    RmsNormBwd { dout: View, x: View, weight: View, rstd: View, plus: Option<View>, dx: View },
    /// `out = plus + scale · (product(a, b) + product(term.a, term.b))`, see [`Form`].
    Gemm(Gemm),
    /// `out = level[code] · absmax`; out `[rows, cols]`.
    Dequantize { weight: Weight4, out: View },
    /// The reverse, bit-equal to bitsandbytes. x `[rows, cols]`, contiguous; the codes have `⌈rows·cols/2⌉` bytes. All parts of
    /// `weight` are written (the offset is the mean of the scales).
    Quantize { x: View, weight: Weight4 },
    /// `out = x · Wᵀ` for at most four rows of x, W what [`Op::Dequantize`] makes of `weight` in the type of x. x `[n, in]`,
    /// out `[n, out]`; `in` is a multiple of 32.
    Gemv { x: View, weight: Weight4, out: View },
    /// In place, each head's pairs (i, i + d/2) turned by `pos · inv_freq[i]` (backwards if `inverse`).
    /// x `[T, heads·d]`, pos I32 `[T,1]`, inv_freq F32 `[1, d/2]`. cos and sin are rounded to x's type.
    Rope { x: View, pos: View, inv_freq: View, inverse: bool },
    /// `out = softmax(scale · q kᵀ) v`; token t sees the key rows `lo[t] .. hi[t]`.
    Attention(Attention),
    /// Gradients of q, k, v.
    AttentionBwd(AttentionBwd),
    /// `out = silu(gate) · up`, all `[n, F]`.
    SwiGlu { gate: View, up: View, out: View },
    /// `dgate = dout · up · silu'(gate)`, `dup = dout · silu(gate)`.
    SwiGluBwd { dout: View, gate: View, up: View, dgate: View, dup: View },
    /// `out = a + b`.
    Add { a: View, b: View, out: View },
    /// `out = plus + x · keep(seed, site, row·cols + col) / (1 − p)`; keep is Philox4x32-10, seed I32 `[1,2]`.
    Dropout { x: View, seed: View, site: u32, p: f64, plus: Option<View>, out: View },
    /// `out = x + magnitude · u(seed, site, row·cols + col)`, u uniform in (−1, 1) from Philox4x32-10; magnitude 0 copies the
    /// bits of x. seed I32 `[1,2]`, magnitude F32 `[1,1]`.
    Noise { x: View, seed: View, site: u32, magnitude: View, out: View },
    /// Each of `parts` equal slabs of x, times `scale`, goes to row and column `at` of its slab of out, in out's type; the rest
    /// becomes zero.
    Cast { x: View, out: View, parts: usize, at: [usize; 2], scale: f64 },
    /// `out = 0`.
    Zero { out: View },
    /// Routing: softmax over all experts, the K largest (lower index first on ties), renormalized where asked.
    Route(Route),
    /// `dlogits = plus + gradient of the weights` (if they are renormalized, zero for the experts not chosen).
    RouteBwd { dweights: View, logits: View, renormalize: bool, experts: View, plus: Option<View>, dlogits: View },
    /// `out[t] = plus[t] + Σ_k weights[t,k] · y[slots[t,k]]` (all weights 1 where there are none). y `[K·T,D]`, out `[T,D]`.
    Combine { y: View, weights: Option<View>, slots: View, plus: Option<View>, out: View },
    /// `dy[slots[t,k]] = weights[t,k] · dout[t]`, `dweights[t,k] = ⟨dout[t], y[slots[t,k]]⟩`.
    CombineBwd { dout: View, y: View, weights: View, slots: View, dy: View, dweights: View },
    /// Load-balancing loss of Switch Transformers as HF computes it for Mixtral, over the logits of all layers together:
    /// `aux = coef · E · Σ_{k,e} f[k,e] · P[e]` over `choices` values of k, and its gradient. logits, dlogits: `[T,E]` for each
    /// layer; aux F32 `[1,1]`.
    AuxLoss { logits: Vec<View>, choices: usize, coef: f64, control: View, aux: View, dlogits: Vec<View> },
    /// `logp[t] = log softmax(logits[t])[targets[t]]`, `hit[t] = [targets[t] is the first largest of logits[t]]` (both 0 if
    /// the target is −100) and, where asked, `dlogits[t] = loss_scale · weight[t] · (softmax(logits[t]) − onehot)`.
    CrossEntropy(CrossEntropy),
    /// One token for each row: the first of the largest logits, or one drawn by [`SampleField`]; −1 where the row has a NaN
    /// or no finite largest. logits F32 `[n,V]`, rule `[1, SAMPLE_FIELDS]`, seed I32 `[1,2]`, token I32 `[n,1]`.
    Sample { logits: View, rule: View, seed: View, token: View },
    /// `norm[0] = ‖grads‖₂` in two stages of fixed order. grads `[1,N]`, partials F32 `[1, ⌈N/65536⌉]`, norm F32 `[1,1]`.
    GradNorm { grads: View, partials: View, norm: View },
    /// Decides about the update: clip factor, learning rate `rates[min(step, last)]`, loss scale, step count. See [`Control`].
    Control { rule: ControlRule, norm: View, rates: View, control: View },
    /// AdamW over the tensors of `segments`.
    AdamW(AdamW),
    /// Begins a copy. The data may move at any time up to the `Wait`.
    Start { copy: Transfer },
    /// The copy has arrived.
    Wait { copy: Transfer },
}

impl Weight4 {
    /// Visits the codes and the scales, all of them accessed alike.
    fn visit(&mut self, f: &mut dyn FnMut(&mut View, Access), access: Access) {
        f(&mut self.codes, access);
        f(&mut self.absmax, access);
        if let Some(Nested { absmax, offset }) = &mut self.nested {
            f(absmax, access);
            f(offset, access);
        }
    }
}

/// How an op touches an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read only.
    Read,
    /// Every live element is written; what was there does not matter.
    Write,
    /// Read, then written.
    ReadWrite,
}

impl Op {
    /// Visits every operand with how it is accessed. The one place that lists them; lifetimes, poison, derivatives and
    /// the audit all rest on it. An operand that is added to itself (`plus` = out) is visited once, as `ReadWrite`.
    pub fn visit(&mut self, f: &mut dyn FnMut(&mut View, Access)) {
        use Access::{Read, ReadWrite, Write};
        use Op::*;
        match self {
            Embed { ids, table, out } => all(f, [ids, table], [out]),
            RmsNorm { x, weight, out, rstd, eps: _ } => all(f, [x, weight], [out, rstd]),
            RmsNormBwd { dout, x, weight, rstd, plus, dx } => {
                all(f, [dout, x, weight, rstd], []);
                sum(f, plus, dx);
            }
            Gemm(self::Gemm { form: _, a, b, term, scale: _, plus, out, groups }) => {
                all(f, [a, b], []);
                if let Some(Term { a, b }) = term {
                    all(f, [a, b], []);
                }
                if let Some(groups) = groups {
                    f(&mut groups.offsets, Read);
                }
                sum(f, plus, out);
            }
            Dequantize { weight, out } => {
                weight.visit(f, Read);
                f(out, Write);
            }
            Quantize { x, weight } => {
                f(x, Read);
                weight.visit(f, Write);
            }
            Gemv { x, weight, out } => {
                f(x, Read);
                weight.visit(f, Read);
                f(out, Write);
            }
            Rope { x, pos, inv_freq, inverse: _ } => {
                all(f, [pos, inv_freq], []);
                f(x, ReadWrite);
            }
            Attention(self::Attention { q, k, v, lo, hi, out, lse, heads: _, kv_heads: _, scale: _ }) => {
                all(f, [q, k, v, lo, hi], [out, lse])
            }
            AttentionBwd(self::AttentionBwd { forward, qlo, qhi, dout, delta, dq, dk, dv }) => {
                let self::Attention { q, k, v, lo, hi, out, lse, heads: _, kv_heads: _, scale: _ } = forward;
                all(f, [q, k, v, lo, hi, qlo, qhi, out, lse, dout], [delta, dq, dk, dv])
            }
            SwiGlu { gate, up, out } => all(f, [gate, up], [out]),
            SwiGluBwd { dout, gate, up, dgate, dup } => all(f, [dout, gate, up], [dgate, dup]),
            Add { a, b, out } => all(f, [a, b], [out]),
            Dropout { x, seed, site: _, p: _, plus, out } => {
                all(f, [x, seed], []);
                sum(f, plus, out);
            }
            Noise { x, seed, site: _, magnitude, out } => all(f, [x, seed, magnitude], [out]),
            Cast { x, out, parts: _, at: _, scale: _ } => all(f, [x], [out]),
            Zero { out } => f(out, Write),
            Route(self::Route { logits, renormalize: _, weights, experts, slots, source, offsets, touched }) => {
                all(f, [logits], [weights, experts, slots, source, offsets]);
                if let Some(touched) = touched {
                    f(touched, ReadWrite);
                }
            }
            RouteBwd { dweights, logits, renormalize: _, experts, plus, dlogits } => {
                all(f, [dweights, logits, experts], []);
                sum(f, plus, dlogits);
            }
            Combine { y, weights, slots, plus, out } => {
                if let Some(weights) = weights {
                    f(weights, Read);
                }
                all(f, [y, slots], []);
                sum(f, plus, out);
            }
            CombineBwd { dout, y, weights, slots, dy, dweights } => all(f, [dout, y, weights, slots], [dy, dweights]),
            AuxLoss { logits, choices: _, coef: _, control, aux, dlogits } => {
                logits.iter_mut().for_each(|v| f(v, Read));
                all(f, [control], [aux]);
                dlogits.iter_mut().for_each(|v| f(v, Write));
            }
            CrossEntropy(self::CrossEntropy { logits, targets, weight, control, logp, hit, dlogits }) => {
                all(f, [logits, targets, weight, control], [logp, hit]);
                if let Some(dlogits) = dlogits {
                    f(dlogits, Write);
                }
            }
            Sample { logits, rule, seed, token } => all(f, [logits, rule, seed], [token]),
            GradNorm { grads, partials, norm } => all(f, [grads], [partials, norm]),
            Control { rule: _, norm, rates, control } => {
                all(f, [norm, rates], []);
                f(control, ReadWrite);
            }
            AdamW(self::AdamW { state, betas: _, master, grads, segments, rates, steps, touched, control }) => {
                all(f, [grads, segments, rates, touched, control], []);
                f(master, ReadWrite);
                f(steps, ReadWrite);
                state.visit(|x| f(x, ReadWrite));
            }
            Start { copy } => all(f, [&mut copy.from], [&mut copy.to]),
            Wait { copy } => {
                f(&mut copy.from, Read);
                f(&mut copy.to, ReadWrite);
            }
        }

        fn all<const R: usize, const W: usize>(
            f: &mut dyn FnMut(&mut View, Access),
            reads: [&mut View; R],
            writes: [&mut View; W],
        ) {
            reads.into_iter().for_each(|v| f(v, Read));
            writes.into_iter().for_each(|v| f(v, Write));
        }
        fn sum(f: &mut dyn FnMut(&mut View, Access), plus: &mut Option<View>, out: &mut View) {
            match plus {
                None => f(out, Write),
                Some(plus) if *plus == *out => {
                    f(out, ReadWrite);
                    *plus = *out;
                }
                Some(plus) => {
                    f(plus, Read);
                    f(out, Write);
                }
            }
        }
    }

    /// The operands with how they are accessed.
    pub fn accesses(&self) -> Vec<(View, Access)> {
        let mut list = Vec::new();
        self.clone().visit(&mut |view, access| list.push((*view, access)));
        list
    }

    /// Pairs (output, input) where the output may be given the input's memory if the input is not needed afterwards:
    /// the op reads each element of the input before (or when) it writes that element of the output.
    pub fn may_take(&self) -> Vec<(View, View)> {
        let pairs = match self {
            Op::Add { a, b, out } => vec![(*out, *a), (*out, *b)],
            Op::SwiGluBwd { gate, up, dgate, dup, .. } => vec![(*dgate, *gate), (*dup, *up)],
            Op::SwiGlu { gate, out, .. } => vec![(*out, *gate)],
            Op::Noise { x, out, .. } => vec![(*out, *x)],
            Op::RmsNormBwd { plus: Some(plus), dx, .. } => vec![(*dx, *plus)],
            Op::Gemm(Gemm { plus: Some(plus), out, .. }) => vec![(*out, *plus)],
            Op::Combine { plus: Some(plus), out, .. } => vec![(*out, *plus)],
            Op::RouteBwd { plus: Some(plus), dlogits, .. } => vec![(*dlogits, *plus)],
            Op::Dropout { x, plus, out, .. } => plus.iter().map(|p| (*out, *p)).chain([(*out, *x)]).collect(),
            Op::CrossEntropy(CrossEntropy { logits, dlogits: Some(dlogits), .. }) => vec![(*dlogits, *logits)],
            _ => return Vec::new(),
        };
        // A row that stands for all has no room for the output. Not if the output is itself read (it has contents of its own), nor if the input's buffer is also read otherwise,
        // as a matrix of the product, say: other elements of it may still be needed.
        let accesses = self.accesses();
        let reads = |buf| accesses.iter().filter(|(v, a)| v.buf == buf && *a != Access::Write).count();
        let taken =
            |o: &View, f: &View| pairs.iter().filter(|(out, from)| (out.buf, from.buf) == (o.buf, f.buf)).count();
        let free = |(o, f): &(View, View)| reads(o.buf) == 0 && reads(f.buf) == taken(o, f);
        pairs.iter().copied().filter(|pair| pair.1.ld > 0 && free(pair)).collect()
    }

    /// The name of the op in listings and profiles.
    pub fn name(&self) -> &'static str {
        use Op::*;
        match self {
            Embed { .. } => "embed",
            RmsNorm { .. } => "rms_norm",
            RmsNormBwd { .. } => "rms_norm_bwd",
            Gemm(self::Gemm { form: Form::Nt, groups: None, term: Some(_), .. }) => "gemm_nt_term",
            Gemm(self::Gemm { form: Form::Nn, groups: None, term: Some(_), .. }) => "gemm_nn_term",
            Gemm(self::Gemm { form: Form::Nt, groups: None, .. }) => "gemm_nt",
            Gemm(self::Gemm { form: Form::Nn, groups: None, .. }) => "gemm_nn",
            Gemm(self::Gemm { form: Form::Tn, groups: None, .. }) => "gemm_tn",
            Gemm(self::Gemm { form: Form::Nt, .. }) => "grouped_nt",
            Gemm(self::Gemm { form: Form::Nn, .. }) => "grouped_nn",
            Gemm(self::Gemm { form: Form::Tn, .. }) => "grouped_tn",
            Dequantize { .. } => "dequantize",
            Quantize { .. } => "quantize",
            Gemv { .. } => "gemv",
            Rope { inverse: false, .. } => "rope",
            Rope { inverse: true, .. } => "rope_bwd",
            Attention(_) => "attention",
            AttentionBwd(_) => "attention_bwd",
            SwiGlu { .. } => "swiglu",
            SwiGluBwd { .. } => "swiglu_bwd",
            Add { .. } => "add",
            Dropout { .. } => "dropout",
            Noise { .. } => "noise",
            Cast { .. } => "cast",
            Zero { .. } => "zero",
            Route(_) => "route",
            RouteBwd { .. } => "route_bwd",
            Combine { .. } => "combine",
            CombineBwd { .. } => "combine_bwd",
            AuxLoss { .. } => "aux_loss",
            CrossEntropy(_) => "cross_entropy",
            Sample { .. } => "sample",
            GradNorm { .. } => "grad_norm",
            Control { .. } => "control",
            AdamW(_) => "adamw",
            Start { .. } => "start",
            Wait { .. } => "wait",
        }
    }
}
