//! The plan checks itself, by brute force and without the code that made it.

use super::{ALIGN, Plan};
use crate::op::{Access, Buf, Op, Phase, Place, Program, View};
use std::collections::BTreeMap;

/// Rows from, to; columns from, to.
type Rectangle = [usize; 4];

/// An arena buffer between its first write and its last use.
struct Alive {
    /// Its bytes in the allocation.
    range: (usize, usize),
    /// The rectangles written so far.
    written: Vec<Rectangle>,
}

impl Plan {
    /// Walks every phase op by op and demands: no two buffers that are alive at once share a byte, nothing is read that was
    /// not written before, and the arena is at least the largest sum of live bytes, which is returned.
    pub fn check(&self, program: &Program) -> Result<usize, String> {
        let mut most = 0;
        for (phase, ops) in &program.phases {
            most = most.max(self.check_phase(program, *phase, ops)?);
        }
        if most > self.arena_bytes {
            return Err(format!("{most} bytes are alive at once, but the arena has {}", self.arena_bytes));
        }
        Ok(most)
    }

    fn check_phase(&self, program: &Program, phase: Phase, ops: &[Op]) -> Result<usize, String> {
        let arena = |view: &View| program.info(view.buf).place == Place::Arena;
        let mut last = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            last.extend(op.accesses().iter().filter(|(v, _)| arena(v)).map(|(v, _)| (v.buf, i)));
        }
        let mut alive: BTreeMap<Buf, Alive> = BTreeMap::new();
        let mut most = 0;
        for (i, op) in ops.iter().enumerate() {
            let wrong = |what: String| Err(format!("{phase:?} op {i} ({}): {what}", op.name()));
            let mut handed_over = Vec::new();
            for (view, access) in op.accesses().into_iter().filter(|(v, _)| arena(v)) {
                let (buf, name) = (view.buf, &program.info(view.buf).name);
                let region = rectangle(program, &view);
                if access != Access::Write {
                    let written = alive.get(&buf).map_or(&[][..], |a| &a.written);
                    if !covered(region, written) {
                        return wrong(format!("reads of {name} what nothing has written"));
                    }
                }
                if let Some(there) = alive.get_mut(&buf) {
                    if access == Access::Write {
                        there.written.push(region);
                    }
                    continue;
                }
                let range = (self.address(buf), self.address(buf) + program.bytes(buf));
                if range.0 < self.arena_start || range.1 > self.bytes {
                    return wrong(format!("{name} lies outside of the arena"));
                }
                for (&other, there) in &alive {
                    if range.0 >= there.range.1 || there.range.0 >= range.1 {
                        continue;
                    }
                    let may = op.may_take().iter().any(|(out, from)| (out.buf, from.buf) == (buf, other));
                    if !may || last[&other] != i || range != there.range {
                        return wrong(format!("{name} overlaps {}, which is alive", program.info(other).name));
                    }
                    handed_over.push(other);
                }
                alive.insert(buf, Alive { range, written: vec![region] });
            }
            alive.retain(|b, _| !handed_over.contains(b));
            most = most.max(alive.keys().map(|b| program.bytes(*b).next_multiple_of(ALIGN)).sum());
            alive.retain(|b, _| last[b] > i);
        }
        Ok(most)
    }
}

/// Where `view` lies in its buffer, at capacity.
fn rectangle(program: &Program, view: &View) -> Rectangle {
    let (row, column) = (view.offset / view.ld.max(1), view.offset % view.ld.max(1));
    assert_eq!(view.ld, program.info(view.buf).cols, "arena buffers are used as the matrices that they are");
    [row, row + view.rows.count(program.tokens), column, column + view.cols]
}

/// Whether `region` lies within the union of `written`.
fn covered(region: Rectangle, written: &[Rectangle]) -> bool {
    let mut open = vec![region];
    for w in written {
        open = open.into_iter().flat_map(|r| without(r, w)).collect();
    }
    open.is_empty()
}

/// The rest of `r` outside of `cut`: above, below, left, right of it.
fn without(r: Rectangle, cut: &Rectangle) -> Vec<Rectangle> {
    let [top, bottom, left, right] = [r[0].max(cut[0]), r[1].min(cut[1]), r[2].max(cut[2]), r[3].min(cut[3])];
    if top >= bottom || left >= right {
        return vec![r];
    }
    let rest =
        [[r[0], top, r[2], r[3]], [bottom, r[1], r[2], r[3]], [top, bottom, r[2], left], [top, bottom, right, r[3]]];
    rest.into_iter().filter(|r| r[0] < r[1] && r[2] < r[3]).collect()
}
