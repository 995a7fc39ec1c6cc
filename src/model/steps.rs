//! The phases of a program.

use super::head;
use super::linear::AdapterUse;
use super::llama::{StackPass, stack};
use super::params::{self, Params};
use super::spec::Spec;
use crate::error::Result;
use crate::op::{AdamState, AdamW, NORM_PARTIAL, Op, Phase, Place, Program, Rows, Transfer, View};
use crate::tape::Tape;

/// A recorded model: the program, and where its inputs, outputs and weights are.
#[derive(Clone, Debug)]
pub struct Model {
    /// The description that was recorded.
    pub spec: Spec,
    /// The op lists.
    pub program: Program,
    /// The resident buffers.
    pub params: Params,
}

/// Records all phases that the spec asks for.
pub fn record(spec: Spec) -> Result<Model> {
    record_on(Tape::new(spec.tokens, spec.compute), spec)
}

/// The same on an empty tape of the caller's.
pub fn record_on(mut t: Tape, spec: Spec) -> Result<Model> {
    let params = params::declare(&mut t, &spec)?;
    if params.master.is_some() {
        begin(&mut t, &params);
        if spec.optimizer.is_some() {
            micro(&mut t, &spec, &params);
            update(&mut t, &spec, &params);
        }
    }
    for adapter in [true, false] {
        let with = AdapterUse { enabled: adapter, dropout: None };
        eval(&mut t, &spec, &params, with);
        if spec.logits_rows > 0 {
            let (x, _) = stack(&mut t, &spec.config, &params, StackPass { with, training: None });
            head::selected_logits(&mut t, &spec, &params, x, with);
            t.finish(Phase::Logits { adapter });
        }
    }
    if let Some(selected) = params.exchange.selected {
        t.sample_into(selected.logits, selected.rule, params.exchange.seed, selected.token);
        t.finish(Phase::Sample);
    }
    Ok(Model { program: t.program(), params, spec })
}

/// Casts the masters, clears gradients and marks.
fn begin(t: &mut Tape, params: &Params) {
    for c in &params.copies {
        t.push(Op::Cast { x: c.master, out: c.copy, parts: c.parts, at: c.at, scale: c.scale });
    }
    if let Some((_, gradient)) = params.master {
        t.push(Op::Zero { out: gradient });
    }
    t.push(Op::Zero { out: params.touched });
    t.finish(Phase::Begin);
}

/// Forward, loss, backward.
fn micro(t: &mut Tape, spec: &Spec, params: &Params) {
    let with = AdapterUse { enabled: true, dropout: Some((spec.dropout, params.exchange.seed)) };
    assert_eq!(spec.policies.len(), spec.config.layers, "one policy for each block");
    let pass = StackPass { with, training: Some(&spec.policies) };
    let (x, router_logits) = stack(t, &spec.config, params, pass);
    let h = head::final_norm(t, spec, params, x);
    let end = t.position();
    aux_loss(t, spec, params, &router_logits, true);
    head::loss(t, &spec.loss, params, h, with, true);
    t.backward(0..end);
    t.finish(Phase::Micro);
}

/// The router's loss, if it is part of the loss.
fn aux_loss(t: &mut Tape, spec: &Spec, params: &Params, logits: &[View], gradient: bool) {
    let choices = spec.config.experts.as_ref().map_or(0, |e| e.per_token);
    if let (Some(coef), Some(aux), false) = (spec.loss.aux, params.exchange.aux, logits.is_empty()) {
        t.aux_loss(logits, choices, coef, params.exchange.control, aux, gradient);
    }
}

/// Norm, decisions, AdamW.
fn update(t: &mut Tape, spec: &Spec, params: &Params) {
    let (Some(o), Some(state)) = (&spec.optimizer, &params.optimizer) else { return };
    let Some((master, grads)) = params.master else { return };
    let control = params.exchange.control;
    let mut next = state.groups.first().map(|group| on_device(t, group.state));
    let partials = t.arena("gradient_norm.partials", Rows::Fixed(1), grads.cols.div_ceil(NORM_PARTIAL), t.wide());
    t.push(Op::GradNorm { grads, partials, norm: state.norm });
    t.push(Op::Control { rule: o.rule, norm: state.norm, rates: state.schedule, control });
    let mut returning: Vec<Transfer> = Vec::new();
    for (i, g) in state.groups.iter().enumerate() {
        let Some((moments, copies)) = next else { break };
        // While a page is updated, the next one comes and the one before leaves.
        next = state.groups.get(i + 1).map(|group| on_device(t, group.state));
        copies.iter().for_each(|copy| t.push(Op::Wait { copy: *copy }));
        t.push(Op::AdamW(AdamW {
            state: moments,
            betas: o.betas,
            master,
            grads,
            segments: g.segments,
            rates: g.rates,
            steps: g.steps,
            touched: params.touched,
            control,
        }));
        returning.drain(..).for_each(|copy| t.push(Op::Wait { copy }));
        for copy in copies {
            let back = Transfer { from: copy.to, to: copy.from };
            t.push(Op::Start { copy: back });
            returning.push(back);
        }
    }
    returning.into_iter().for_each(|copy| t.push(Op::Wait { copy }));
    t.finish(Phase::Update);
}

/// The state where AdamW can use it: a page on the host begins to come to the device.
fn on_device(t: &mut Tape, mut state: AdamState) -> (AdamState, Vec<Transfer>) {
    let mut copies = Vec::new();
    state.visit(|view| {
        if t.info(view.buf).place == Place::Host {
            let copy = t.fetch(*view);
            *view = copy.to;
            copies.push(copy);
        }
    });
    (state, copies)
}

/// Forward and loss.
fn eval(t: &mut Tape, spec: &Spec, params: &Params, with: AdapterUse) {
    let pass = StackPass { with, training: None };
    let (x, router_logits) = stack(t, &spec.config, params, pass);
    let h = head::final_norm(t, spec, params, x);
    aux_loss(t, spec, params, &router_logits, false);
    head::loss(t, &spec.loss, params, h, with, false);
    t.finish(Phase::Eval { adapter: with.enabled });
}
