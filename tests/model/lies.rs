//! Does the audit notice? Each declaration of each kind of op is falsified once.

use crate::alone::{Alone, State};
use halfbyte_core::op::{Access, Op, View};
use std::collections::BTreeMap;

/// One falsehood about an op.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lie {
    /// The operand is not mentioned.
    Omitted,
    /// Read and written, but declared as read only.
    OnlyRead,
    /// Read and written, but declared as written only.
    OnlyWritten,
    /// Its last column is not mentioned.
    Short,
}

/// Purpose of op, number of its declarations (optional operands make kinds of their own), operand, lie.
pub type Key = (&'static str, usize, usize, Lie);

/// All lies told so far, and whether one of the attempts was caught.
#[derive(Default)]
pub struct Lies {
    pub told: BTreeMap<Key, Outcome>,
}

#[derive(Default, Clone, Debug)]
pub struct Outcome {
    pub caught: bool,
    attempts: usize,
    /// The operand, for messages.
    pub operand: String,
}

impl Lies {
    /// Attempts at one lie, on different ops of a kind, before it counts as not noticed.
    const ATTEMPTS: usize = 6;

    /// Tells every lie about `op` that has not been caught yet.
    pub fn tell(&mut self, alone: &Alone, op: &Op, live: usize, before: &State, after: &State) {
        let truth = op.accesses();
        for i in 0..truth.len() {
            for (lie, declared) in falsify(&truth, i) {
                let outcome = self.told.entry((op.name(), truth.len(), i, lie)).or_default();
                if !outcome.caught && outcome.attempts < Self::ATTEMPTS {
                    outcome.attempts += 1;
                    outcome.operand = format!("{:?} {:?}", truth[i].1, truth[i].0);
                    outcome.caught = alone.audit(op, &declared, live, before, after).is_err();
                }
            }
        }
    }
}

/// The lies that can be told about declaration `i`.
fn falsify(truth: &[(View, Access)], i: usize) -> Vec<(Lie, Vec<(View, Access)>)> {
    let (view, access) = truth[i];
    let with = |replacement: Option<(View, Access)>| {
        let mut list = truth.to_vec();
        list.splice(i..=i, replacement);
        list
    };
    let mut lies = vec![(Lie::Omitted, with(None))];
    if access == Access::ReadWrite {
        lies.push((Lie::OnlyRead, with(Some((view, Access::Read)))));
        lies.push((Lie::OnlyWritten, with(Some((view, Access::Write)))));
    }
    if view.cols > 1 {
        lies.push((Lie::Short, with(Some((View { cols: view.cols - 1, ..view }, access)))));
    }
    lies
}
