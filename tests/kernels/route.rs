//! Routing and its load-balancing loss.

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
    for (live, experts, choices, renormalize, wide) in [
        (1, 8, 2, true, false),
        (77, 8, 2, true, true),
        (1500, 8, 2, true, false),
        (300, 16, 1, false, true),
        (40, 60, 4, false, false),
        (2, 2, 2, true, true),
        (700, 128, 8, true, false),
        (90, 128, 8, false, true),
    ] {
        for skewed in [false, true] {
            if skewed && experts == 2 {
                continue;
            }
            let name = format!("route/T={live} E={experts} K={choices} renormalize={renormalize} skewed={skewed}");
            cases.push(
                Case::new(name, live, move |b| {
                    let logits = logits(b, experts, skewed, wide);
                    let weights = if wide { b.buf(T, choices, DType::F32) } else { b.elem(T, choices) };
                    let ints = |b: &mut Build, rows, cols| b.buf(rows, cols, DType::I32);
                    let touched = skewed.then(|| {
                        let before = (0..experts).map(|e| i32::from(e == experts - 1)).collect();
                        b.i32(Rows::Fixed(1), experts, before)
                    });
                    Op::Route(Route {
                        logits,
                        renormalize,
                        weights,
                        experts: ints(b, T, choices),
                        slots: ints(b, T, choices),
                        source: ints(b, Rows::Tokens(choices), 1),
                        offsets: ints(b, Rows::Fixed(experts + 1), 1),
                        touched,
                    })
                })
                .limits(2.5e-3, 1e-6),
            );
        }
    }
    for (live, experts, choices, renormalize, wide, added) in [
        (1, 8, 2, true, false, true),
        (77, 8, 2, true, true, true),
        (300, 16, 2, true, false, false),
        (300, 128, 8, true, false, true),
        (70, 128, 8, false, true, true),
        (33, 60, 3, false, false, false),
    ] {
        let name = format!("route_bwd/T={live} E={experts} K={choices} renormalize={renormalize} plus={added}");
        cases.push(
            Case::new(name, live, move |b| {
                let logits = logits(b, experts, false, wide);
                let dweights = if wide { b.buf(T, choices, DType::F32) } else { b.elem(T, choices) };
                let dweights = b.fill(dweights, 1.0);
                let of_token = |t| (0..choices).map(move |k| ((t + 3 * k) % experts) as i32);
                let chosen = (0..b.tokens()).flat_map(of_token).collect();
                let chosen = b.i32(T, choices, chosen);
                let make = |b: &mut Build| if wide { b.buf(T, experts, DType::F32) } else { b.elem(T, experts) };
                let plus = added.then(|| {
                    let plus = make(b);
                    b.fill(plus, 0.1)
                });
                let dlogits = make(b);
                Op::RouteBwd { dweights, logits, renormalize, experts: chosen, plus, dlogits }
            })
            .limits(5e-3, 1e-5),
        );
    }
    for (live, experts, choices, layers, wide) in
        [(1, 8, 2, 1, false), (77, 8, 2, 2, true), (700, 8, 2, 3, false), (300, 128, 8, 2, false)]
    {
        cases.push(
            Case::new(format!("aux_loss/T={live} E={experts} K={choices} layers={layers}"), live, move |b| {
                let all: Vec<View> = (0..layers).map(|_| logits(b, experts, true, wide)).collect();
                let make = |b: &mut Build| if wide { b.buf(T, experts, DType::F32) } else { b.elem(T, experts) };
                let dlogits = (0..layers).map(|_| make(b)).collect();
                let (control, aux) = (loss_scale(b), b.buf(Rows::Fixed(1), 1, DType::F32));
                Op::AuxLoss { logits: all, choices, coef: 0.02, control, aux, dlogits }
            })
            // The result is a difference of nearly equal shares, and the reference sums in f32 less accurately than the
            // GPU.
            .limits(5e-3, 1e-4),
        );
    }
    cases
}
