//! A hand-made program of the ops and operand combinations that no model records yet.

use crate::alone::State;
use crate::fixtures::Random;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{
    Buf, BufInfo, Form, Gemm, Groups, Nested, Op, Phase, Place, Program, Purpose, Route, Rows, Term, Transfer, View,
    Weight4,
};
use halfbyte_core::quant::QuantKind;
use halfbyte_core::session::encode;

const TOKENS: usize = 9;
const T: Rows = Rows::Tokens(1);
const T2: Rows = Rows::Tokens(2);

/// The program, in one phase, and the initial contents of its memory.
pub fn ops_no_model_records() -> (Program, State) {
    let mut m = Made { program: empty(), state: Vec::new(), random: Random(21), ops: Vec::new() };
    four_bits(&mut m);
    casts(&mut m);
    sums(&mut m);
    products(&mut m);
    experts(&mut m);
    copies(&mut m);
    m.program.phases.push((Phase::Micro, m.ops));
    (m.program, m.state)
}

fn empty() -> Program {
    Program { tokens: TOKENS, bufs: Vec::new(), phases: Vec::new(), constants: Vec::new() }
}

struct Made {
    program: Program,
    state: State,
    random: Random,
    ops: Vec<Op>,
}

impl Made {
    fn buf(
        &mut self,
        rows: Rows,
        cols: usize,
        dtype: DType,
        place: Place,
        fill: impl Fn(&mut Random) -> Vec<u8>,
    ) -> View {
        let buf = Buf(self.program.bufs.len() as u32);
        let info = BufInfo { name: format!("b{}", buf.0), rows, cols, dtype, place };
        let view = info.view(buf);
        let elements = rows.count(TOKENS) * cols;
        self.state.push((0..elements).flat_map(|_| fill(&mut self.random)).collect());
        self.program.bufs.push(info);
        view
    }
    /// Random numbers of type `dtype`.
    fn input(&mut self, rows: Rows, cols: usize, dtype: DType) -> View {
        let resident = Place::Resident(Purpose::Exchange);
        self.buf(rows, cols, dtype, resident, |r| encode(dtype, &[r.signed()]))
    }
    fn f32(&mut self, rows: Rows, cols: usize) -> View {
        self.input(rows, cols, DType::F32)
    }
    fn bytes(&mut self, rows: usize, cols: usize) -> View {
        self.buf(Rows::Fixed(rows), cols, DType::U8, Place::Resident(Purpose::Weight), |r| vec![r.bits() as u8])
    }
    fn ints(&mut self, rows: Rows, cols: usize, values: &[i32]) -> View {
        let view = self.buf(rows, cols, DType::I32, Place::Resident(Purpose::Exchange), |_| vec![0; 4]);
        self.state[view.buf.0 as usize] = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        view
    }
    /// A buffer for a result. It holds a finite sentinel until something is written.
    fn out(&mut self, rows: Rows, cols: usize, dtype: DType) -> View {
        self.buf(rows, cols, dtype, Place::Arena, |_| vec![0x3C; dtype.bytes()])
    }
    fn f32_out(&mut self, rows: Rows, cols: usize) -> View {
        self.out(rows, cols, DType::F32)
    }
    fn push(&mut self, op: Op) {
        self.ops.push(op);
    }
}

/// 4-bit weights of both codebooks, with plain and with nested scales: dequantized into a whole buffer and into a part of one,
/// quantized, and multiplied with a few rows.
fn four_bits(m: &mut Made) {
    for kind in [QuantKind::Nf4, QuantKind::Fp4] {
        let (codes, absmax) = (m.bytes(6, 16), m.f32(Rows::Fixed(1), 6));
        let out = m.out(Rows::Fixed(10), 32, DType::Bf16).slab(2, 6);
        m.push(Op::Dequantize { out, weight: Weight4 { kind, block: 32, codes, absmax, nested: None } });
        let (codes, absmax) = (m.bytes(5, 32), m.bytes(1, 5));
        let nested = Some(Nested { absmax: m.f32(Rows::Fixed(1), 1), offset: m.f32(Rows::Fixed(1), 1) });
        let out = m.f32_out(Rows::Fixed(5), 64);
        m.push(Op::Dequantize { out, weight: Weight4 { kind, block: 64, codes, absmax, nested } });
        let x = m.f32(T, 64);
        let out = m.f32_out(T, 9).columns(2, 5);
        m.push(Op::Gemv { x, out, weight: Weight4 { kind, block: 64, codes, absmax, nested } });
        let (codes, absmax) = (m.bytes(6, 16), m.f32(Rows::Fixed(1), 6));
        let (x, out) = (m.f32(T, 32), m.f32_out(T, 6));
        m.push(Op::Gemv { x, out, weight: Weight4 { kind, block: 32, codes, absmax, nested: None } });
        // 15 elements in blocks of 4, the last one and the last byte short.
        let (codes, absmax) = (m.out(Rows::Fixed(1), 8, DType::U8), m.f32_out(Rows::Fixed(1), 4));
        let x = m.f32(Rows::Fixed(3), 5);
        m.push(Op::Quantize { x, weight: Weight4 { kind, block: 4, codes, absmax, nested: None } });
        let (codes, absmax) = (m.out(Rows::Fixed(1), 8, DType::U8), m.out(Rows::Fixed(1), 4, DType::U8));
        let nested = Nested { absmax: m.f32_out(Rows::Fixed(1), 1), offset: m.f32_out(Rows::Fixed(1), 1) };
        m.push(Op::Quantize { x, weight: Weight4 { kind, block: 4, codes, absmax, nested: Some(nested) } });
    }
}

/// Casts that pad each slab, narrow and widen; zeroed buffers of floats and of integers.
fn casts(m: &mut Made) {
    let (x, out) = (m.f32(Rows::Fixed(6), 3), m.out(Rows::Fixed(8), 5, DType::Bf16));
    m.push(Op::Cast { x, out, parts: 2, at: [0, 0], scale: 1.0 });
    let (x, out) = (m.f32(Rows::Fixed(6), 3), m.out(Rows::Fixed(10), 5, DType::Bf16));
    m.push(Op::Cast { x, out, parts: 2, at: [1, 2], scale: 0.7 });
    let (x, out) = (m.input(T, 4, DType::F16), m.f32_out(T, 4));
    m.push(Op::Cast { x, out, parts: 1, at: [0, 0], scale: 1.0 });
    for (rows, cols, dtype) in [(Rows::Fixed(1), 7, DType::I32), (T, 5, DType::F32), (T, 3, DType::Bf16)] {
        let out = m.out(rows, cols, dtype);
        m.push(Op::Zero { out });
    }
}

/// Ops with a `plus` operand: absent, another buffer, or the output itself.
fn sums(m: &mut Made) {
    for plus in 0..3 {
        let plus = |m: &mut Made, out: View| match plus {
            0 => None,
            1 => Some(m.f32(out.rows, out.cols)),
            _ => Some(out),
        };
        let (x, seed, out) = (m.f32(T, 6), m.ints(Rows::Fixed(1), 2, &[3, 4]), m.f32(T, 6));
        let p = plus(m, out);
        m.push(Op::Dropout { x, seed, site: 1, p: 0.3, plus: p, out });

        let (dout, x, weight, rstd) = (m.f32(T, 6), m.f32(T, 6), m.f32(Rows::Fixed(1), 6), m.f32(T, 1));
        let dx = m.f32(T, 6);
        let p = plus(m, dx);
        m.push(Op::RmsNormBwd { dout, x, weight, rstd, plus: p, dx });
    }
    let (a, b, out) = (m.f32(T, 6).columns(1, 4), m.f32(T, 6).columns(2, 4), m.f32(T, 8).columns(4, 4));
    m.push(Op::Add { a, b, out });
    let (a, b) = (m.f32(T, 6), m.f32(T, 6));
    m.push(Op::Add { a, b, out: a });
    let (gate, up, out) = (m.f32(T, 6), m.f32(T, 6), m.f32_out(T, 6));
    m.push(Op::SwiGlu { gate, up, out });
}

/// Rows of experts; expert 1 has none.
fn groups(m: &mut Made) -> Groups {
    let live = 2 * (TOKENS as i32 - 3);
    Groups { offsets: m.ints(Rows::Fixed(4), 1, &[0, 5, 5, live]), count: 3 }
}

/// All forms, plain and grouped, with and without a term.
fn products(m: &mut Made) {
    for grouped in [false, true] {
        for form in [Form::Nt, Form::Nn, Form::Tn] {
            for plus in 0..3 {
                let groups = grouped.then(|| groups(m));
                let (rows, e) = if grouped { (T2, 3) } else { (T, 1) };
                let (n, k) = (4, 5);
                let (a, b, out) = match form {
                    Form::Nt => (m.f32(rows, k), m.f32(Rows::Fixed(e * n), k), m.f32(rows, n)),
                    Form::Nn => (m.f32(rows, n), m.f32(Rows::Fixed(e * n), k), m.f32(rows, k)),
                    Form::Tn => (m.f32(rows, n), m.f32(rows, k), m.f32(Rows::Fixed(e * n), k)),
                };
                let plus = match plus {
                    0 => None,
                    1 => Some(m.f32(out.rows, out.cols)),
                    _ => Some(out),
                };
                m.push(Op::Gemm(Gemm { form, a, b, term: None, scale: 0.7, plus, out, groups }));
                if form != Form::Tn {
                    let depth = 3;
                    let right = if form == Form::Nt { (e * n, depth) } else { (e * depth, k) };
                    let term = Term { a: m.f32(rows, depth), b: m.f32(Rows::Fixed(right.0), right.1) };
                    m.push(Op::Gemm(Gemm { form, a, b, term: Some(term), scale: 0.7, plus, out, groups }));
                }
            }
        }
    }
}

/// The backward of experts and of routing, without the operands that a model always passes.
fn experts(m: &mut Made) {
    let n = TOKENS as i32;
    // Token t in the rows t and n − 3 + t; those of tokens that are not live are poison for whoever reads them.
    let slots: Vec<i32> = (0..n).flat_map(|t| [t, n - 3 + t]).collect();
    for plus in 0..3 {
        for weighted in [false, true] {
            let (y, out, slots) = (m.f32(T2, 4), m.f32(T, 4), m.ints(T, 2, &slots));
            let weights = weighted.then(|| m.f32(T, 2));
            let plus = match plus {
                0 => None,
                1 => Some(m.f32(T, 4)),
                _ => Some(out),
            };
            m.push(Op::Combine { y, weights, slots, plus, out });
        }
        let chosen: Vec<i32> = (0..n).flat_map(|t| [t % 3, 3]).collect();
        let (dweights, logits, dlogits) = (m.f32(T, 2), m.f32(T, 4), m.f32(T, 4));
        let plus = match plus {
            0 => None,
            1 => Some(m.f32(T, 4)),
            _ => Some(dlogits),
        };
        let experts = m.ints(T, 2, &chosen);
        m.push(Op::RouteBwd { dweights, logits, renormalize: true, experts, plus, dlogits });
    }
    let logits = m.f32(T, 4);
    let (weights, experts, slots) = (m.f32_out(T, 2), m.out(T, 2, DType::I32), m.out(T, 2, DType::I32));
    let (source, offsets) = (m.out(T2, 1, DType::I32), m.out(Rows::Fixed(5), 1, DType::I32));
    let renormalize = false;
    m.push(Op::Route(Route { logits, renormalize, weights, experts, slots, source, offsets, touched: None }));
}

/// Copies to the host and back while another op runs.
fn copies(m: &mut Made) {
    let x = m.f32(T, 5);
    let host = m.buf(T, 5, DType::F32, Place::Host, |_| vec![0x3C; 4]);
    let back = m.f32_out(T, 5);
    let (a, b, out) = (m.f32(T, 5), m.f32(T, 5), m.f32_out(T, 5));
    for copy in [Transfer { from: x, to: host }, Transfer { from: host, to: back }] {
        m.push(Op::Start { copy });
        m.push(Op::Add { a, b, out });
        m.push(Op::Wait { copy });
    }
    let sum = m.f32_out(T, 5);
    m.push(Op::Add { a: back, b, out: sum });
}
