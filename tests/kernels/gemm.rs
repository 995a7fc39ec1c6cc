//! The three products, plain and grouped by expert.

use crate::harness::{Build, Case};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Form, Gemm, Groups, Op, Rows, Term, View};

const T: Rows = Rows::Tokens(1);

/// Row offsets of `count` experts: skewed, with an empty expert.
fn groups(b: &mut Build, rows: usize, count: usize) -> Groups {
    let mut cuts: Vec<i32> = (0..count - 1).map(|_| b.below(rows + 1) as i32).collect();
    cuts.sort_unstable();
    if count > 2 {
        cuts[1] = cuts[0];
    }
    let offsets = std::iter::once(0).chain(cuts).chain([rows as i32]).collect();
    Groups { offsets: b.i32(Rows::Fixed(count + 1), 1, offsets), count }
}

/// A product whose operands are columns of wider buffers: 8 more columns on the left, and 16 on the right.
fn slices(form: Form, live: usize, n: usize, k: usize) -> Case {
    Case::new(format!("gemm_{form:?}/T={live} {n}x{k} slices"), live, move |b| {
        let part = |b: &mut Build, rows, cols| b.elem(rows, cols + 24).columns(8, cols);
        let input = |b: &mut Build, rows, cols, scale| {
            let view = part(b, rows, cols);
            b.fill(view, scale)
        };
        let (from, to) = if form == Form::Nt { (k, n) } else { (n, k) };
        let (a, w) = (input(b, T, from, 1.0), input(b, Rows::Fixed(n), k, (k as f32).powf(-0.5)));
        let out = part(b, T, to);
        Op::Gemm(Gemm { form, ..Gemm::nt(a, w, out) })
    })
}

/// A product with a bias, the same for every row, and the term of an adapter of `ranks`; 0: no term.
fn biased(live: usize, n: usize, k: usize, ranks: usize) -> Case {
    Case::new(format!("gemm_Nt/T={live} {n}x{k} term={ranks} bias"), live, move |b| {
        let (a, w) = (b.normal(T, k, 1.0), b.normal(Rows::Fixed(n), k, (k as f32).powf(-0.5)));
        let bias = b.normal(Rows::Fixed(1), n + 8, 3.0).columns(8, n).repeated(T);
        let term = (ranks > 0).then(|| Term {
            a: b.normal(T, ranks, 1.0),
            b: b.normal(Rows::Fixed(n), ranks, (ranks as f32).powf(-0.5)),
        });
        let out = b.elem(T, n);
        Op::Gemm(Gemm { plus: Some(bias), term, ..Gemm::nt(a, w, out) })
    })
    .limits(2.5e-3, 2e-5)
}

/// A product of a linear layer from k to n features, for `live` tokens.
fn case(form: Form, live: usize, n: usize, k: usize, count: usize, wide: bool, added: bool) -> Case {
    with_term(form, live, [n, k, 0], count, wide, added)
}

/// The same with the term of an adapter of `ranks`; 0: no term.
fn with_term(form: Form, live: usize, [n, k, ranks]: [usize; 3], count: usize, wide: bool, added: bool) -> Case {
    let term = if ranks > 0 { format!(" term={ranks}") } else { String::new() };
    let name = format!("gemm_{form:?}/T={live} {n}x{k}{term} groups={count} f32={wide} plus={added}");
    Case::new(name, live, move |b| {
        let rows = if count > 1 { Rows::Tokens(2) } else { T };
        let scale = (k as f32).powf(-0.5);
        let weight = |b: &mut Build| b.normal(Rows::Fixed(count * n), k, scale);
        let (a, other, out_rows, cols) = match form {
            Form::Nt => (b.normal(rows, k, 1.0), weight(b), rows, n),
            Form::Nn => (b.normal(rows, n, 1.0), weight(b), rows, k),
            Form::Tn => (b.normal(rows, n, 1.0), b.normal(rows, k, 0.1), Rows::Fixed(count * n), k),
        };
        let groups = (count > 1).then(|| groups(b, 2 * live, count));
        let make = |b: &mut Build| if wide { b.buf(out_rows, cols, DType::F32) } else { b.elem(out_rows, cols) };
        let plus: Option<View> = added.then(|| {
            let plus = make(b);
            b.fill(plus, 1.0)
        });
        let out = make(b);
        let term = (ranks > 0).then(|| {
            let right = if form == Form::Nt { (count * n, ranks) } else { (count * ranks, k) };
            Term {
                a: b.normal(rows, ranks, 1.0),
                b: b.normal(Rows::Fixed(right.0), right.1, (ranks as f32).powf(-0.5)),
            }
        });
        Op::Gemm(Gemm { form, a, b: other, term, scale: 0.5, plus, out, groups })
    })
    .limits(2.5e-3, 2e-5)
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for form in [Form::Nt, Form::Nn] {
        // One token; ragged tiles; LoRA's shapes (small n or small k); a router; the edge of a large tile.
        for (live, n, k) in [(1, 64, 64), (77, 72, 136), (130, 200, 64), (65, 16, 256), (129, 264, 16), (40, 8, 128)] {
            cases.push(case(form, live, n, k, 1, false, false));
            cases.push(case(form, live, n, k, 1, true, true));
        }
        for (live, n, k) in [(1, 64, 64), (150, 136, 72), (70, 16, 128)] {
            cases.push(case(form, live, n, k, 4, false, true));
        }
    }
    // Sums over one slice of 64 terms and over several, whole and ragged; partial tiles; widths that are not multiples of 8.
    for form in [Form::Nt, Form::Nn] {
        for (live, n, k) in [(1, 128, 128), (77, 136, 192), (130, 200, 200), (257, 520, 72), (300, 64, 264)] {
            cases.push(case(form, live, n, k, 1, false, false));
            cases.push(case(form, live, n, k, 1, false, true));
            cases.push(case(form, live, n, k, 1, true, false));
        }
        cases.push(slices(form, 140, 136, 200));
        cases.push(slices(form, 520, 328, 136));
        cases.push(case(form, 150, 136, 200, 4, false, false));
        cases.push(case(form, 260, 200, 136, 8, true, true));
    }
    // Terms: one k16 step, several, a ragged slice, more than one slice of 64; each tile shape of both paths.
    for form in [Form::Nt, Form::Nn] {
        for (live, shape) in [
            (1, [64, 64, 16]),
            (77, [72, 136, 8]),
            (65, [8, 256, 16]),
            (40, [256, 8, 16]),
            (130, [200, 64, 48]),
            (77, [136, 192, 16]),
            (257, [520, 72, 32]),
            (300, [200, 264, 72]),
            (140, [264, 136, 200]),
        ] {
            cases.push(with_term(form, live, shape, 1, false, false));
            cases.push(with_term(form, live, shape, 1, true, true));
        }
        cases.push(with_term(form, 150, [136, 200, 48], 4, false, true));
        cases.push(with_term(form, 260, [200, 136, 16], 8, false, false));
    }
    for (live, n, k, ranks) in
        [(1030, 5640, 136, 48), (700, 8456, 200, 16), (1030, 3848, 200, 80), (1030, 3592, 72, 32)]
    {
        cases.push(with_term(Form::Nt, live, [n, k, ranks], 1, false, false).repeated());
        cases.push(with_term(Form::Nn, live, [k, n, ranks], 1, false, false).repeated());
    }
    cases.push(with_term(Form::Nn, 1030, [136, 2056, 32], 8, false, false).repeated());
    // Many rows and few columns: the ranks of several adapters.
    for (n, k) in [(24, 136), (32, 72), (48, 200), (64, 264)] {
        cases.push(case(Form::Nt, 2050, n, k, 1, false, false));
        cases.push(case(Form::Nn, 2050, k, n, 1, false, false));
    }
    for (live, n, k) in [(1, 64, 64), (77, 72, 136), (300, 1152, 896), (1030, 3848, 200)] {
        cases.push(biased(live, n, k, 0));
        cases.push(biased(live, n, k, 32));
    }
    cases.push(case(Form::Nt, 130, 203, 136, 1, false, false));
    cases.push(case(Form::Nt, 130, 203, 136, 1, true, true));
    // More tiles than multiprocessors. An H200 takes tiles 256 columns wide (in clusters, and alone), 192 and 128.
    for (live, n, k) in [(1030, 5640, 136), (700, 8456, 200), (1030, 3848, 200), (1030, 3592, 72)] {
        cases.push(case(Form::Nt, live, n, k, 1, false, false).repeated());
        cases.push(case(Form::Nn, live, k, n, 1, false, false).repeated());
    }
    cases.push(case(Form::Nn, 1030, 136, 2056, 8, false, false).repeated());
    // Enough tiles for the host to choose the large tile shape.
    cases.push(case(Form::Nt, 1030, 3850, 136, 1, false, true));
    cases.push(case(Form::Nn, 1030, 72, 3848, 1, true, false));
    cases.push(case(Form::Nt, 600, 3848, 72, 3, false, false).repeated());
    for (live, n, k) in [(1, 16, 64), (77, 16, 200), (1100, 200, 16), (1500, 64, 72), (600, 16, 14336)] {
        cases.push(case(Form::Tn, live, n, k, 1, true, true));
        cases.push(case(Form::Tn, live, n, k, 1, false, false));
    }
    cases.push(case(Form::Tn, 300, 1600, 1344, 1, true, true));
    for (live, n, k) in [(77, 24, 2056), (1100, 48, 2056), (300, 64, 4104)] {
        cases.push(case(Form::Tn, live, n, k, 1, true, true));
    }
    cases.push(case(Form::Tn, 700, 32, 2056, 4, true, true));
    for (live, n, k) in [(1, 16, 64), (700, 16, 72), (130, 136, 16)] {
        cases.push(case(Form::Tn, live, n, k, 4, true, true));
    }
    // The f32 gradients dA and dB sum over all tokens, so their limit is wider.
    cases.into_iter().map(|c| if c.name.starts_with("gemm_Tn") { c.limits(2.5e-3, 1e-4) } else { c }).collect()
}
