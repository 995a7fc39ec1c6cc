//! The operands of the larger ops, and of what several ops share.

use super::View;
use crate::quant::QuantKind;

/// The three products that a linear layer needs; all matrices are row-major.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// `out[M,N] = a[M,K] · b[N,K]ᵀ` (forward: b is the weight).
    Nt,
    /// `out[M,K] = a[M,N] · b[N,K]` (gradient of the input).
    Nn,
    /// `out[N,K] = a[M,N]ᵀ · b[M,K]` (gradient of the weight).
    Tn,
}

/// Rows belong to experts: expert e owns the rows `offsets[e] .. offsets[e+1]` of the token-sided operands and the
/// e-th of `count` equal slabs of the weight-sided one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Groups {
    /// I32 `[count + 1, 1]`, ascending.
    pub offsets: View,
    /// Number of experts.
    pub count: usize,
}

/// A second, shallow product in the sum of a [`Gemm`]: that of an adapter. Both have one chain of sums and one rounding.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Term {
    /// Left operand, with the rows of [`Gemm::a`].
    pub a: View,
    /// Right operand; its columns (Nt: its rows) are those of [`Gemm::b`].
    pub b: View,
}

/// Operands of [`Op::Gemm`](super::Op::Gemm).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gemm {
    /// Which product; it decides the shapes.
    pub form: Form,
    /// Left operand.
    pub a: View,
    /// Right operand.
    pub b: View,
    /// Added to the product of a and b; absent in Tn.
    pub term: Option<Term>,
    /// Factor on the sum of the products.
    pub scale: f64,
    /// Added to the product, in the type of `out`; may be `out` itself.
    pub plus: Option<View>,
    /// The result.
    pub out: View,
    /// Present if the rows belong to experts.
    pub groups: Option<Groups>,
}

impl Gemm {
    /// `out = a · bᵀ`. Other products are this one with some fields changed.
    pub fn nt(a: View, b: View, out: View) -> Self {
        Self { form: Form::Nt, a, b, term: None, scale: 1.0, plus: None, out, groups: None }
    }

    /// Number of weight slabs: one without groups.
    pub fn slabs(&self) -> usize {
        self.groups.map_or(1, |g| g.count)
    }
}

/// Second level of double quantization: `absmax[i] = map[code[i]] · absmax2[i / 256] + offset`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Nested {
    /// F32 `[1, ⌈blocks / 256⌉]`.
    pub absmax: View,
    /// F32 `[1, 1]`.
    pub offset: View,
}

/// A weight `[rows, cols]` in 4 bits, quantized in flat blocks of `block` elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weight4 {
    /// The codebook.
    pub kind: QuantKind,
    /// Elements that share a scale.
    pub block: usize,
    /// U8 `[rows, cols/2]`, high nibble first.
    pub codes: View,
    /// The scales, `[1, blocks]`: F32, or U8 if they are quantized too.
    pub absmax: View,
    /// The second level, if the scales are quantized.
    pub nested: Option<Nested>,
}

/// Operands of [`Op::Attention`](super::Op::Attention).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Attention {
    /// Queries, `[T, heads·d]`.
    pub q: View,
    /// Keys, `[Tk, kv_heads·d]`.
    pub k: View,
    /// Values, `[Tk, kv_heads·d]`.
    pub v: View,
    /// I32 `[T,1]`: first key row that a token sees.
    pub lo: View,
    /// I32 `[T,1]`: one past the last.
    pub hi: View,
    /// The result, `[T, heads·d]`.
    pub out: View,
    /// F32 `[T, heads]`: log of the sum of exponentials.
    pub lse: View,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; query head h uses `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Factor on the scores.
    pub scale: f64,
}

/// Operands of [`Op::AttentionBwd`](super::Op::AttentionBwd).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionBwd {
    /// The forward op; all of its operands are read.
    pub forward: Attention,
    /// I32 `[Tk,1]`: first query row that sees a key.
    pub qlo: View,
    /// I32 `[Tk,1]`: one past the last.
    pub qhi: View,
    /// Gradient of the output, `[T, heads·d]`.
    pub dout: View,
    /// F32 `[T, heads]`: receives `Σ dout·out`.
    pub delta: View,
    /// Gradient of q.
    pub dq: View,
    /// Gradient of k.
    pub dk: View,
    /// Gradient of v.
    pub dv: View,
}

/// Operands of [`Op::Route`](super::Op::Route).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Route {
    /// `[T,E]`.
    pub logits: View,
    /// Whether the weights of a token are divided by their sum.
    pub renormalize: bool,
    /// `[T,K]`: the probabilities of the chosen experts.
    pub weights: View,
    /// I32 `[T,K]`: the experts, best first.
    pub experts: View,
    /// I32 `[T,K]`: the row of (token, choice) when rows are sorted by expert, stably.
    pub slots: View,
    /// I32 `[K·T,1]`: the token of each such row.
    pub source: View,
    /// I32 `[E+1,1]`: where the rows of each expert begin.
    pub offsets: View,
    /// I32 `[1,E]`: set to 1 for each expert that gets a token.
    pub touched: Option<View>,
}

/// Operands of [`Op::CrossEntropy`](super::Op::CrossEntropy) over n rows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrossEntropy {
    /// F32 `[n,V]`.
    pub logits: View,
    /// I32 `[n,1]`.
    pub targets: View,
    /// `[n,1]`: factor on the gradient of each row.
    pub weight: View,
    /// The control buffer; the loss scale is read.
    pub control: View,
    /// `[n,1]`: log-probability of the target.
    pub logp: View,
    /// I32 `[n,1]`: 1 where the target is the most probable token.
    pub hit: View,
    /// `[n,V]`: gradient of the logits, if it is wanted.
    pub dlogits: Option<View>,
}

/// The update rule and how its state is stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum AdamState {
    /// torch.optim.AdamW: decay first, then the update. `m`, `v`: `[1, N]` in the master's type.
    Torch {
        /// First moment.
        m: View,
        /// Second moment.
        v: View,
    },
    /// bitsandbytes' 32-bit AdamW: update first, then decay.
    Bitsandbytes {
        /// First moment.
        m: View,
        /// Second moment.
        v: View,
    },
    /// bitsandbytes' 8-bit AdamW: U8 codes of the dynamic maps, one absmax for each 256 elements of a tensor.
    Blockwise8 {
        /// Codes of the first moment (signed map), U8 `[1, N]`.
        m: View,
        /// Codes of the second moment (unsigned map), U8 `[1, N]`.
        v: View,
        /// F32 `[1, blocks]`.
        absmax_m: View,
        /// F32 `[1, blocks]`.
        absmax_v: View,
    },
}

impl AdamState {
    /// Visits the buffers of the moments.
    pub fn visit(&mut self, mut f: impl FnMut(&mut View)) {
        match self {
            AdamState::Torch { m, v } | AdamState::Bitsandbytes { m, v } => [m, v].into_iter().for_each(f),
            AdamState::Blockwise8 { m, v, absmax_m, absmax_v } => {
                [m, v, absmax_m, absmax_v].into_iter().for_each(&mut f);
            }
        }
    }
}

/// Constants of AdamW.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Betas {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Operands of [`Op::AdamW`](super::Op::AdamW) over n tensors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// Rule and moments.
    pub state: AdamState,
    /// β₁, β₂, ε.
    pub betas: Betas,
    /// Parameters, `[1,N]`.
    pub master: View,
    /// Gradients, `[1,N]`.
    pub grads: View,
    /// I64 `[n, SEGMENT_FIELDS]`: where each tensor lies, see [`Segment`](super::Segment).
    pub segments: View,
    /// F32 `[n,2]`: learning-rate factor and weight decay of each tensor.
    pub rates: View,
    /// I32 `[n,1]`: updates that each tensor has had.
    pub steps: View,
    /// I32 `[1,m]`: whether an expert saw a token in this step.
    pub touched: View,
    /// The control buffer, see [`Control`](super::Control).
    pub control: View,
}

/// An asynchronous copy between device and host memory, or within the device. Both ends live until the `Wait`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Transfer {
    /// The operand that is read.
    pub from: View,
    /// The operand that is written, of the same shape and type.
    pub to: View,
}
