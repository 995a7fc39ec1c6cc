//! Mixtral's routing and load balancing. They move few bytes and are bound by latency.

use crate::harness::Bench;
use halfbyte_core::dtype::DType::{Bf16, F32, I32};
use halfbyte_core::op::{CONTROL_FIELDS, Op, Route};

pub fn benches(t: usize) -> Vec<Bench> {
    let route = Bench::memory(format!("route/mixtral T={t}"), t * (16 + 8 + 8 + 8 + 8), move |b| {
        let logits = b.normal(t, 8, Bf16, 1.0);
        Op::Route(Route {
            logits,
            renormalize: true,
            weights: b.out(t, 2, F32),
            experts: b.out(t, 2, I32),
            slots: b.out(t, 2, I32),
            source: b.out(2 * t, 1, I32),
            offsets: b.out(9, 1, I32),
            touched: None,
        })
    });
    let backward = Bench::memory(format!("route_bwd/mixtral T={t}"), t * (8 + 16 + 8 + 16), move |b| {
        let (dweights, logits) = (b.normal(t, 2, F32, 1.0), b.normal(t, 8, Bf16, 1.0));
        let experts = b.i32(t, 2, |i| (i * 3 % 8) as i32);
        Op::RouteBwd { dweights, logits, renormalize: true, experts, plus: None, dlogits: b.out(t, 8, Bf16) }
    });
    let layers = 32;
    let balance = Bench::memory(format!("aux_loss/mixtral T={t}, {layers} layers"), layers * t * 3 * 16, move |b| {
        let logits = (0..layers).map(|_| b.normal(t, 8, Bf16, 1.0)).collect();
        let dlogits = (0..layers).map(|_| b.out(t, 8, Bf16)).collect();
        let (control, aux) = (b.normal(1, CONTROL_FIELDS, F32, 1.0), b.out(1, 1, F32));
        Op::AuxLoss { logits, choices: 2, coef: 0.02, control, aux, dlogits }
    });
    vec![route, backward, balance]
}
