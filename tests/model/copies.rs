//! Asynchronous copies: whatever moment the device picks for a copy, the result is the same, because both ends live until
//! the `Wait`.

#[path = "../shared/copies.rs"]
mod shared;

use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::op::{Program, View};
use halfbyte_core::plan::{Plan, plan};
use shared::{Names, expected, program, run};

fn on_cpu(program: &Program, names: &Names, plan: &Plan, late_copies: bool) -> Vec<f64> {
    let mut device = Cpu::new(CpuOptions { poison: true, late_copies });
    run(&mut device, program, names, plan, 1).expect("runs")
}

#[test]
fn both_ends_of_a_copy_live_until_it_has_arrived() {
    let (program, names) = program();
    let plan = plan(&program);
    plan.check(&program).expect("a sound plan");
    let life = |v: View| plan.life[v.buf.0 as usize].map(|l| (l.first, l.last));
    assert_eq!((life(names.saved), life(names.back)), (Some((0, 4)), Some((6, 9))));
    // Three at once while the first copy is on its way, and while the second is.
    assert_eq!(plan.lower_bound, 3 * plan.blocks[0].bytes);
}

#[test]
fn a_copy_may_happen_early_or_late() {
    let (program, names) = program();
    let plan = plan(&program);
    for late in [false, true] {
        assert_eq!(on_cpu(&program, &names, &plan, late), expected(), "late {late}");
    }
}

#[test]
fn a_plan_that_reuses_memory_too_early_is_noticed() {
    let (program, names) = program();
    let mut wrong = plan(&program);
    wrong.address[names.during.buf.0 as usize] = wrong.address(names.saved.buf);
    let error = wrong.check(&program).expect_err("during overlaps saved");
    assert!(error.contains("during overlaps saved"), "{error}");
    // And the two moments really differ then.
    assert_ne!(on_cpu(&program, &names, &wrong, false), on_cpu(&program, &names, &wrong, true));
}
