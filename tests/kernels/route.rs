//! Top-2 routing and its load-balancing loss.

use crate::harness::{Build, Case};
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{CONTROL_FIELDS, Op, Route, Rows, View};

const T: Rows = Rows::Tokens(1);

/// Logits that favor some experts; if `skewed`, the last expert receives no token.
fn logits(b: &mut Build, experts: usize, skewed: bool, wide: bool) -> View {
    let view = if wide { b.buf(T, experts, DType::F32) } else { b.elem(T, experts) };
    let n = b.tokens() * experts;
    let bias = |i: usize| if skewed && i % experts == experts - 1 { -50.0 } else { 0.2 * (i % experts) as f32 };
    let values = (0..n).map(|i| b.gauss() + bias(i)).collect();
    b.float(view, values)
}

fn loss_scale(b: &mut Build) -> View {
    let view = b.buf(Rows::Fixed(1), CONTROL_FIELDS, DType::F32);
    let mut fields = vec![0.0; CONTROL_FIELDS];
    fields[0] = 8.0;
    b.float(view, fields)
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, experts, wide) in
        [(1, 8, false), (77, 8, true), (1500, 8, false), (300, 16, true), (40, 60, false), (2, 2, true)]
    {
        for skewed in [false, true] {
            if skewed && experts == 2 {
                continue;
            }
            let name = format!("route/T={live} E={experts} skewed={skewed}");
            cases.push(
                Case::new(name, live, move |b| {
                    let logits = logits(b, experts, skewed, wide);
                    let weights = if wide { b.buf(T, 2, DType::F32) } else { b.elem(T, 2) };
                    let ints = |b: &mut Build, rows, cols| b.buf(rows, cols, DType::I32);
                    let touched = skewed.then(|| {
                        let before = (0..experts).map(|e| i32::from(e == experts - 1)).collect();
                        b.i32(Rows::Fixed(1), experts, before)
                    });
                    Op::Route(Route {
                        logits,
                        weights,
                        experts: ints(b, T, 2),
                        slots: ints(b, T, 2),
                        source: ints(b, Rows::Tokens(2), 1),
                        offsets: ints(b, Rows::Fixed(experts + 1), 1),
                        touched,
                    })
                })
                .limits(2.5e-3, 1e-6),
            );
        }
    }
    for (live, experts, wide, added) in [(1, 8, false, true), (77, 8, true, true), (300, 16, false, false)] {
        cases.push(
            Case::new(format!("route_bwd/T={live} E={experts} plus={added}"), live, move |b| {
                let logits = logits(b, experts, false, wide);
                let dweights = if wide { b.buf(T, 2, DType::F32) } else { b.elem(T, 2) };
                let dweights = b.fill(dweights, 1.0);
                let chosen = (0..b.tokens()).flat_map(|t| [t % experts, (t + 3) % experts]).map(|e| e as i32).collect();
                let chosen = b.i32(T, 2, chosen);
                let make = |b: &mut Build| if wide { b.buf(T, experts, DType::F32) } else { b.elem(T, experts) };
                let plus = added.then(|| {
                    let plus = make(b);
                    b.fill(plus, 0.1)
                });
                let dlogits = make(b);
                Op::RouteBwd { dweights, logits, experts: chosen, plus, dlogits }
            })
            .limits(5e-3, 1e-5),
        );
    }
    for (live, experts, layers, wide) in [(1, 8, 1, false), (77, 8, 2, true), (700, 8, 3, false)] {
        cases.push(
            Case::new(format!("aux_loss/T={live} E={experts} layers={layers}"), live, move |b| {
                let all: Vec<View> = (0..layers).map(|_| logits(b, experts, true, wide)).collect();
                let make = |b: &mut Build| if wide { b.buf(T, experts, DType::F32) } else { b.elem(T, experts) };
                let dlogits = (0..layers).map(|_| make(b)).collect();
                let (control, aux) = (loss_scale(b), b.buf(Rows::Fixed(1), 1, DType::F32));
                Op::AuxLoss { logits: all, coef: 0.02, control, aux, dlogits }
            })
            // The result is a difference of nearly equal shares, and the reference sums in f32 less accurately than the
            // GPU.
            .limits(5e-3, 1e-4),
        );
    }
    cases
}
