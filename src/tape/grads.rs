//! The table of gradients: the first contribution to the gradient of a region sets it, later ones add to it.

use super::Tape;
use crate::op::{Buf, Op, View};
use std::collections::HashMap;

/// The gradient of one region of a buffer.
#[derive(Clone, Copy)]
struct Entry {
    region: View,
    grad: View,
    /// Whether the gradient may be added to in place. The two inputs of a residual sum share the gradient of its output.
    owned: bool,
}

/// Gradients of the phase being recorded.
#[derive(Default)]
pub struct Grads {
    entries: HashMap<Buf, Vec<Entry>>,
    /// The gradient buffer made for a buffer, of the same shape.
    own: HashMap<Buf, Buf>,
}

impl Tape {
    /// States that the gradient of `value` is (so far) in `grad`, which may be added to.
    pub fn set_gradient(&mut self, value: View, grad: View) {
        self.grads.entries.entry(value.buf).or_default().push(Entry { region: value, grad, owned: true });
    }

    /// The gradient of `value`, if any has arrived.
    pub(super) fn gradient(&self, value: View) -> Option<View> {
        let entries = self.grads.entries.get(&value.buf)?;
        if let Some(e) = entries.iter().find(|e| e.region == value) {
            return Some(e.grad);
        }
        // Columns of a value whose gradient arrived as a whole.
        let whole = self.info(value.buf).view(value.buf);
        if let Some(e) = entries.iter().find(|e| e.region == whole && (value.rows, value.ld) == (whole.rows, e.grad.ld))
        {
            return Some(e.grad.columns(value.offset, value.cols));
        }
        // Pieces (q, k, v of one product; chunks of rows) that fill the value lie in one buffer of its shape.
        let own = View { buf: *self.grads.own.get(&value.buf)?, ..value };
        let area = |v: &View| v.rows.count(self.tokens) * v.cols;
        let pieces = entries.iter().filter(|e| e.region.overlaps(&value, self.tokens));
        let filled: usize = pieces.map(|e| if e.grad.buf == own.buf { area(&e.region) } else { 0 }).sum();
        assert_eq!(filled, area(&value), "a part of {} has no gradient", self.info(value.buf).name);
        Some(own)
    }

    /// Where to put a contribution to the gradient of `value`, and what to add it to.
    pub(super) fn contribute(&mut self, value: View) -> (View, Option<View>) {
        let tokens = self.tokens;
        let entries = self.grads.entries.get(&value.buf);
        let known = entries.and_then(|list| list.iter().position(|e| e.region == value).map(|i| (i, list[i])));
        match known {
            Some((_, Entry { grad, owned: true, .. })) => (grad, Some(grad)),
            Some((i, Entry { grad: shared, owned: false, .. })) => {
                let grad = self.own_gradient(value);
                if let Some(list) = self.grads.entries.get_mut(&value.buf) {
                    list[i] = Entry { region: value, grad, owned: true };
                }
                (grad, Some(shared))
            }
            None => {
                let apart = entries.is_none_or(|l| l.iter().all(|e| !e.region.overlaps(&value, tokens)));
                assert!(apart, "contributions to {} overlap in part", self.info(value.buf).name);
                let grad = self.own_gradient(value);
                self.grads.entries.entry(value.buf).or_default().push(Entry { region: value, grad, owned: true });
                (grad, None)
            }
        }
    }

    /// Contributes `grad` as it is: no copy as long as nothing else is added.
    pub(super) fn share(&mut self, value: View, grad: View) {
        let known = self.grads.entries.get(&value.buf).is_some_and(|l| l.iter().any(|e| e.region == value));
        if known {
            let (out, plus) = self.contribute(value);
            if let Some(a) = plus {
                self.push(Op::Add { a, b: grad, out });
            }
        } else {
            let entry = Entry { region: value, grad, owned: false };
            self.grads.entries.entry(value.buf).or_default().push(entry);
        }
    }

    /// The part of `value`'s own gradient buffer that belongs to it.
    fn own_gradient(&mut self, value: View) -> View {
        let buf = match self.grads.own.get(&value.buf) {
            Some(&buf) => buf,
            None => {
                let buf = self.like(value.buf, "d.").buf;
                self.grads.own.insert(value.buf, buf);
                buf
            }
        };
        View { buf, ..value }
    }
}
