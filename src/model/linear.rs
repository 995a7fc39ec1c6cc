//! Linear layers that share their input, as one product: q, k, v; gate and up; a single one; or the stacked experts of
//! these. `y = x·Wᵀ + b + scale · B(A(drop(x)))` with frozen W and b, and trained A, B (Hu et al. 2021).

use crate::dtype::DType;
use crate::op::{GEMV_ROWS, GEMV_STEP, Gemm, Groups, Term, View, Weight4};
use crate::tape::Tape;

/// The frozen weight of one module.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Base {
    /// In the compute type, `[out, in]`: a slab of [`Projection::dense`] or a buffer of its own.
    Dense(View),
    /// In 4 bits.
    Quantized(Weight4),
}

/// The compute-type copies of a projection's adapters. Their ranks lie side by side.
#[derive(Clone, PartialEq, Debug)]
pub struct LoraCopy {
    /// The stacked A's: one for all parts, or one for each if their inputs have masks of their own.
    pub down: Vec<LoraDown>,
    /// `[experts · Σ out, ranks]`: each part's B, times the adapter's scale, in its rows and ranks; zero elsewhere.
    pub b: View,
}

/// A's that are multiplied by the same input.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LoraDown {
    /// `[experts · ranks, in]`.
    pub a: View,
    /// First of their ranks.
    pub column: usize,
    /// Tells the dropout masks of a step apart.
    pub site: u32,
}

/// One of LoRA's two matrices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum LoraFactor {
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
    pub factor: LoraFactor,
    /// First element in master and gradient.
    pub offset: usize,
    /// Rows: r of A, output features of B.
    pub rows: usize,
    /// Columns: input features of A, r of B.
    pub cols: usize,
    /// Index into `touched` (layer · experts + expert), if the module belongs to an expert.
    pub touched: Option<usize>,
}

/// One of the modules that share an input.
#[derive(Clone, Debug)]
pub struct Part {
    /// The last component of its name: `q_proj`.
    pub leaf: String,
    /// Output features.
    pub out: usize,
    /// One weight for each expert (one where there are none).
    pub base: Vec<Base>,
}

/// Modules that share an input.
#[derive(Clone, Debug)]
pub struct Projection {
    /// Names its results: `qkv`.
    pub name: &'static str,
    /// Input features.
    pub input: usize,
    /// The modules; their outputs lie side by side.
    pub parts: Vec<Part>,
    /// The merged weight, `[experts · Σ out, in]`, if every part is dense.
    pub dense: Option<View>,
    /// The adapters, if any part is a target.
    pub adapter: Option<LoraCopy>,
    /// `[1, Σ out]`: the biases of the parts.
    pub bias: Option<View>,
}

/// How adapters take part in a phase.
#[derive(Clone, Copy, Debug)]
pub struct AdapterUse {
    /// Without: the base model alone.
    pub enabled: bool,
    /// Dropout probability and the seed input; `None` outside of training.
    pub dropout: Option<(f64, View)>,
}

impl Projection {
    /// Columns of the result: the sum of all `out`.
    pub fn width(&self) -> usize {
        self.parts.iter().map(|p| p.out).sum()
    }

    /// x `[n, in]`; returns `[n, Σ out]` of type `dtype`.
    pub fn forward(&self, t: &mut Tape, x: View, groups: Option<Groups>, with: AdapterUse, dtype: DType) -> View {
        assert_eq!(x.cols, self.input, "{}", self.name);
        let adapter = self.adapter.as_ref().filter(|_| with.enabled);
        let term = adapter.map(|adapter| Term { a: self.small_product(t, adapter, x, groups, with), b: adapter.b });
        let mut y = t.arena(self.name, x.rows, self.width(), dtype);
        if t.tokens <= GEMV_ROWS && with.dropout.is_none() && groups.is_none() && self.has_runs_of_codes() {
            self.few_rows(t, x, y);
            if let Some(bias) = self.bias {
                y = t.add(self.name, y, bias.repeated(y.rows));
            }
            if let Some(Term { a, b }) = term {
                t.product_into(Gemm { plus: Some(y), ..Gemm::nt(a, b, y) });
            }
        } else {
            let weight = self.weight(t, groups.map_or(1, |g| g.count));
            let bias = self.bias.map(|b| b.repeated(x.rows));
            t.product_into(Gemm { plus: bias, term, groups, ..Gemm::nt(x, weight, y) });
        }
        y
    }

    /// Begins to copy the 4-bit codes that are in host memory.
    pub fn fetch_ahead(&self, t: &mut Tape) {
        for base in self.parts.iter().flat_map(|part| &part.base) {
            if let Base::Quantized(weight) = base {
                t.fetch_ahead(weight.codes);
            }
        }
    }

    /// Whether some part is in 4 bits, in rows that [`Tape::gemv_into`] takes.
    fn has_runs_of_codes(&self) -> bool {
        let quantized = |part: &Part| part.base.iter().any(|base| matches!(base, Base::Quantized(_)));
        self.dense.is_none() && self.input.is_multiple_of(GEMV_STEP) && self.parts.iter().any(quantized)
    }

    /// The base product of a few rows, part by part: reading a 4-bit weight once takes less time than writing it in 16 bits.
    fn few_rows(&self, t: &mut Tape, x: View, y: View) {
        let mut column = 0;
        for part in &self.parts {
            let out = y.columns(column, part.out);
            match &part.base[0] {
                Base::Quantized(q) => t.gemv_into(x, *q, out),
                Base::Dense(w) => t.product_into(Gemm::nt(x, *w, out)),
            }
            column += part.out;
        }
    }

    /// The merged weight in the compute type.
    fn weight(&self, t: &mut Tape, experts: usize) -> View {
        if let Some(dense) = self.dense {
            return dense;
        }
        let width = self.width();
        let scratch = t.scratch(&format!("{}.weight", self.name), experts * width, self.input);
        for e in 0..experts {
            let mut row = e * width;
            for part in &self.parts {
                let slab = scratch.slab(row, part.out);
                match &part.base[e] {
                    Base::Quantized(q) => t.dequantize_into(*q, slab),
                    Base::Dense(w) => t.cast_into(*w, slab),
                }
                row += part.out;
            }
        }
        scratch
    }

    /// `drop(x)·Aᵀ`, `[n, ranks]`.
    fn small_product(
        &self,
        t: &mut Tape,
        adapter: &LoraCopy,
        x: View,
        groups: Option<Groups>,
        with: AdapterUse,
    ) -> View {
        let small = t.arena(&format!("{}.low", self.name), x.rows, adapter.b.cols, t.compute);
        for down in &adapter.down {
            let x = match with.dropout {
                Some((p, seed)) if p > 0.0 => t.dropout(&format!("{}.dropped", self.name), x, seed, down.site, p),
                _ => x,
            };
            let ranks = down.a.rows.count(0) / groups.map_or(1, |g| g.count);
            t.product_into(Gemm { groups, ..Gemm::nt(x, down.a, small.columns(down.column, ranks)) });
        }
        small
    }
}
