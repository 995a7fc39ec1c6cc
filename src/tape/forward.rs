//! The forward ops: one method each. A method checks shapes, declares the results, and records.

use super::Tape;
use crate::dtype::DType;
use crate::op::{Attention, CrossEntropy, Form, GEMV_ROWS, GEMV_STEP, Gemm, Groups, MAX_CHOICES, Op, Route, Rows};
use crate::op::{SAMPLE_FIELDS, View, Weight4};

/// Which keys a token sees, and which queries a key is seen by: inputs of the program, I32 `[T,1]` each.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    /// First key of a token.
    pub lo: View,
    /// One past its last key.
    pub hi: View,
    /// First query that sees a key.
    pub qlo: View,
    /// One past the last.
    pub qhi: View,
}

/// Results of routing; see [`Op::Route`].
#[derive(Clone, Copy, Debug)]
pub struct Routed {
    /// `[T,K]`.
    pub weights: View,
    /// I32 `[T,K]`.
    pub slots: View,
    /// I32 `[K·T,1]`.
    pub source: View,
    /// I32 `[E+1,1]`.
    pub groups: Groups,
}

impl Tape {
    /// Rows of `table`. ids I32 `[n,1]`, table `[V,D]`; returns `[n,D]`.
    pub fn embed(&mut self, name: &str, ids: View, table: View) -> View {
        let out = self.arena(name, ids.rows, table.cols, self.compute);
        self.push(Op::Embed { ids, table, out });
        out
    }

    /// x `[T,n·D]`, weight `[1,D]`; returns `[T,n·D]`.
    pub fn rms_norm(&mut self, name: &str, x: View, weight: View, eps: f64) -> View {
        assert_eq!(x.cols % weight.cols, 0);
        let out = self.arena(name, x.rows, x.cols, self.compute);
        let rstd = self.arena(&format!("{name}.rstd"), x.rows, x.cols / weight.cols, self.wide());
        self.push(Op::RmsNorm { x, weight, out, rstd, eps });
        out
    }

    /// `scale · x·wᵀ` in a fresh buffer of type `dtype`. x `[n,K]`, w `[N,K]` (or `[E·N,K]` with groups); returns `[n,N]`.
    pub fn product(&mut self, name: &str, x: View, w: View, scale: f64, groups: Option<Groups>, dtype: DType) -> View {
        let n = w.rows.count(self.tokens) / groups.map_or(1, |g| g.count);
        let out = self.arena(name, x.rows, n, dtype);
        self.product_into(Gemm { scale, groups, ..Gemm::nt(x, w, out) });
        out
    }

    /// A forward product; `plus` is `None`, `out` itself, or a frozen bias.
    pub fn product_into(&mut self, product: Gemm) {
        let Gemm { form, a, b, term, out, .. } = product;
        assert_eq!(form, Form::Nt);
        for (a, b) in [(a, b)].into_iter().chain(term.map(|t| (t.a, t.b))) {
            assert_eq!(a.cols, b.cols, "the inner sizes of a product");
            assert_eq!(out.cols * product.slabs(), b.rows.count(self.tokens), "the width of a product");
        }
        self.push(Op::Gemm(product));
    }

    /// Copies x to the top left of `out` in out's type; the rest of `out` becomes zero.
    pub fn cast_into(&mut self, x: View, out: View) {
        self.push(Op::Cast { x, out, parts: 1, at: [0, 0], scale: 1.0 });
    }

    /// A buffer for dequantized weights, `[rows, cols]`, to be filled by [`Tape::dequantize_into`].
    pub fn scratch(&mut self, name: &str, rows: usize, cols: usize) -> View {
        self.arena(name, Rows::Fixed(rows), cols, self.compute)
    }

    /// Writes the values of `weight` into `out`, `[out, in]`.
    pub fn dequantize_into(&mut self, weight: Weight4, out: View) {
        let codes = weight.codes;
        assert_eq!((codes.rows, 2 * codes.cols), (out.rows, out.cols), "the size of a 4-bit weight");
        let weight = Weight4 { codes: self.at_hand(codes), ..weight };
        self.push(Op::Dequantize { weight, out });
    }

    /// Quantizes x, `[out, in]` and contiguous, to the codes and scales of `weight`.
    pub fn quantize_into(&mut self, x: View, weight: Weight4) {
        let Weight4 { block, codes, absmax, .. } = weight;
        let (elements, bytes) = (x.rows.count(self.tokens) * x.cols, codes.rows.count(self.tokens) * codes.cols);
        let expected = (elements.div_ceil(2), elements.div_ceil(block));
        assert_eq!(expected, (bytes, absmax.cols), "the size of a 4-bit weight");
        self.push(Op::Quantize { x, weight });
    }

    /// `out = x·wᵀ` for at most [`GEMV_ROWS`] rows of x, decoding w while it is read. Only for inference: it has no derivative.
    pub fn gemv_into(&mut self, x: View, weight: Weight4, out: View) {
        let codes = weight.codes;
        assert!(x.rows.count(self.tokens) <= GEMV_ROWS && x.cols.is_multiple_of(GEMV_STEP));
        assert_eq!((codes.rows, 2 * codes.cols), (Rows::Fixed(out.cols), x.cols), "the size of a 4-bit weight");
        let weight = Weight4 { codes: self.at_hand(codes), ..weight };
        self.push(Op::Gemv { x, weight, out });
    }

    /// Turns the heads of x in place. x `[T, heads·d]`, pos I32 `[T,1]`, inv_freq `[1, d/2]`.
    pub fn rope(&mut self, x: View, pos: View, inv_freq: View) {
        assert_eq!(x.cols % (2 * inv_freq.cols), 0);
        self.push(Op::Rope { x, pos, inv_freq, inverse: false });
    }

    /// q `[T, heads·d]`, k and v `[T, kv_heads·d]`; returns `[T, heads·d]`. `heads` are those of q, and those of k and v.
    /// Scores are multiplied by `scale`, usually 1/√d.
    pub fn attention(&mut self, [q, k, v]: [View; 3], ranges: Ranges, heads: [usize; 2], scale: f64) -> View {
        let [heads, kv_heads] = heads;
        let d = q.cols / heads;
        assert_eq!((q.cols, k.cols, v.cols), (heads * d, kv_heads * d, kv_heads * d));
        let out = self.arena("attention", q.rows, q.cols, self.compute);
        let lse = self.arena("attention.lse", q.rows, heads, self.wide());
        let (lo, hi) = (ranges.lo, ranges.hi);
        self.ranges.insert(lo.buf, ranges);
        self.push(Op::Attention(Attention { q, k, v, lo, hi, out, lse, heads, kv_heads, scale }));
        out
    }

    /// gate, up `[n,F]`; returns `[n,F]`.
    pub fn swiglu(&mut self, gate: View, up: View) -> View {
        let out = self.arena("swiglu", gate.rows, gate.cols, self.compute);
        self.push(Op::SwiGlu { gate, up, out });
        out
    }

    /// `a + b`.
    pub fn add(&mut self, name: &str, a: View, b: View) -> View {
        assert_eq!((a.rows, a.cols), (b.rows, b.cols));
        let out = self.arena(name, a.rows, a.cols, self.compute);
        self.push(Op::Add { a, b, out });
        out
    }

    /// Drops elements of x with probability p. `site` tells the masks of one step apart.
    pub fn dropout(&mut self, name: &str, x: View, seed: View, site: u32, p: f64) -> View {
        let out = self.arena(name, x.rows, x.cols, self.compute);
        self.push(Op::Dropout { x, seed, site, p, plus: None, out });
        out
    }

    /// Adds uniform noise within ± `magnitude` to x, which must need no gradient. `site` tells the numbers of one step apart.
    pub fn noise(&mut self, name: &str, x: View, seed: View, site: u32, magnitude: View) -> View {
        let out = self.arena(name, x.rows, x.cols, self.compute);
        self.push(Op::Noise { x, seed, site, magnitude, out });
        out
    }

    /// Routes each token to `choices` of the experts. logits `[T,E]`.
    pub fn route(&mut self, logits: View, choices: usize, renormalize: bool, touched: Option<View>) -> Routed {
        let (tokens, experts) = (logits.rows, logits.cols);
        assert!((1..=MAX_CHOICES.min(experts)).contains(&choices), "{choices} of {experts} experts");
        let weights = self.arena("route.weights", tokens, choices, self.compute);
        let chosen = self.arena("route.experts", tokens, choices, DType::I32);
        let slots = self.arena("route.slots", tokens, choices, DType::I32);
        let source = self.arena("route.source", Rows::Tokens(choices), 1, DType::I32);
        let offsets = self.arena("route.offsets", Rows::Fixed(experts + 1), 1, DType::I32);
        self.push(Op::Route(Route { logits, renormalize, weights, experts: chosen, slots, source, offsets, touched }));
        Routed { weights, slots, source, groups: Groups { offsets, count: experts } }
    }

    /// Rows of x in the order of their experts; `[K·T,D]`.
    pub fn gather(&mut self, x: View, routed: &Routed) -> View {
        let out = self.arena("gathered", routed.source.rows, x.cols, self.compute);
        self.push(Op::Embed { ids: routed.source, table: x, out });
        out
    }

    /// The loss of a chunk of rows. With `gradient`, the same pass computes the gradient of the logits into a fresh buffer, and
    /// [`Tape::backward`] may start from it at once; `loss.dlogits` is `None`.
    pub fn cross_entropy(&mut self, loss: CrossEntropy, gradient: bool) {
        let logits = loss.logits;
        let dlogits = gradient.then(|| self.arena("dlogits", logits.rows, logits.cols, self.compute));
        self.push(Op::CrossEntropy(CrossEntropy { dlogits, ..loss }));
        if let Some(dlogits) = dlogits {
            self.set_gradient(logits, dlogits);
        }
    }

    /// The router's auxiliary loss for `choices` experts of each token into `aux`; the gradients of the logits join those
    /// that the backward pass finds.
    pub fn aux_loss(&mut self, logits: &[View], choices: usize, coef: f64, control: View, aux: View, gradient: bool) {
        let wanted = if gradient { logits } else { &[] };
        let dlogits: Vec<View> = wanted.iter().map(|l| self.like(l.buf, "d.")).collect();
        self.push(Op::AuxLoss { logits: logits.to_vec(), choices, coef, control, aux, dlogits: dlogits.clone() });
        for (logits, dlogits) in logits.iter().zip(dlogits) {
            self.set_gradient(*logits, dlogits);
        }
    }

    /// A token for each row of logits into `token`; see [`Op::Sample`].
    pub fn sample_into(&mut self, logits: View, rule: View, seed: View, token: View) {
        assert_eq!((logits.rows, rule.cols), (token.rows, SAMPLE_FIELDS));
        self.push(Op::Sample { logits, rule, seed, token });
    }

    /// The weighted sum of each token's rows of y; `[T,D]`.
    pub fn combine(&mut self, y: View, routed: &Routed) -> View {
        let out = self.arena("combined", routed.slots.rows, y.cols, self.compute);
        self.push(Op::Combine { y, weights: Some(routed.weights), slots: routed.slots, plus: None, out });
        out
    }
}
