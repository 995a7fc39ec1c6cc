//! Finds where a plan needs most memory.

use halfbyte_core::op::{Buf, Phase, Program};
use halfbyte_core::plan::Plan;

/// The op at which most arena bytes are alive.
#[derive(Clone, Debug)]
pub struct Peak {
    /// The phase with the peak.
    pub phase: Phase,
    /// Index of the op in its phase.
    pub op: usize,
    /// The buffers alive there, largest first.
    pub alive: Vec<(Buf, usize)>,
}

/// The buffers alive when the arena is fullest; `None` for a program without arena buffers.
pub fn peak(plan: &Plan, program: &Program) -> Option<Peak> {
    let alive_at = |phase: usize, op: usize| {
        plan.blocks.iter().filter(move |s| s.life.phase == phase && s.life.first <= op && op <= s.life.last)
    };
    let mut change: Vec<(usize, usize, i64)> = Vec::new();
    for s in &plan.blocks {
        change.push((s.life.phase, s.life.first, s.bytes as i64));
        change.push((s.life.phase, s.life.last + 1, -(s.bytes as i64)));
    }
    // Deaths before births at the same op: a block is alive up to and including `last`.
    change.sort_unstable();
    let (mut alive, mut most, mut at) = (0, 0, None);
    for (phase, op, delta) in change {
        alive += delta;
        if alive > most {
            (most, at) = (alive, Some((phase, op)));
        }
    }
    let (phase, op) = at?;
    let occupant = |bufs: &[Buf]| {
        let born = |b: &&Buf| plan.life[b.0 as usize].is_some_and(|l| l.first <= op);
        bufs.iter().rev().find(born).copied().unwrap_or(bufs[0])
    };
    let mut alive: Vec<_> = alive_at(phase, op).map(|s| (occupant(&s.bufs), s.bytes)).collect();
    alive.sort_by_key(|(buf, bytes)| (std::cmp::Reverse(*bytes), *buf));
    Some(Peak { phase: program.phases[phase].0, op, alive })
}
