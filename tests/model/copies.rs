//! Asynchronous copies: a buffer goes to host memory and comes back while other ops run. Whatever moment the device picks
//! for the copy, the result is the same, because both ends live until the `Wait`.

use halfbyte::device::Device;
use halfbyte::device::cpu::{Cpu, CpuOptions};
use halfbyte::dtype::DType;
use halfbyte::op::{Buf, Info, Kind, Op, Phase, Place, Program, Rows, Transfer, View};
use halfbyte::plan::{Plan, plan};
use std::sync::Arc;

const TOKENS: usize = 50;
const COLS: usize = 7;

/// Buffers, by their names in the comments of [`program`].
struct Names {
    saved: View,
    during: View,
    back: View,
    input: View,
    result: View,
}

fn program() -> (Program, Names) {
    let mut bufs = Vec::new();
    let mut buf = |name: &str, place| {
        let info = Info { name: name.into(), rows: Rows::Tokens(1), cols: COLS, dtype: DType::F32, place };
        bufs.push(info);
        bufs[bufs.len() - 1].view(Buf(bufs.len() as u32 - 1))
    };
    let exchange = Place::Resident(Kind::Exchange);
    let (input, result) = (buf("input", exchange), buf("result", exchange));
    let [saved, early, during, after, late, back] =
        ["saved", "early", "during", "after", "late", "back"].map(|name| buf(name, Place::Arena));
    let host = buf("host", Place::Host);
    let (out, home) = (Transfer { from: saved, to: host }, Transfer { from: host, to: back });
    let ops = vec![
        Op::Add { a: input, b: input, out: saved },
        Op::Start { copy: out },
        // Must not lie where `saved` lies: the copy may not have read it yet.
        Op::Add { a: input, b: input, out: during },
        Op::Add { a: during, b: input, out: early },
        Op::Wait { copy: out },
        // May: it is on the host now.
        Op::Add { a: early, b: during, out: after },
        Op::Start { copy: home },
        // Must not lie where `back` will be.
        Op::Add { a: after, b: early, out: late },
        Op::Wait { copy: home },
        Op::Add { a: late, b: back, out: result },
    ];
    let names = Names { saved, during, back, input, result };
    (Program { tokens: TOKENS, bufs, phases: vec![(Phase::Micro, ops)], constants: Vec::new() }, names)
}

fn run(program: &Program, names: &Names, plan: &Plan, late_copies: bool) -> Vec<f32> {
    let mut device = Cpu::new(CpuOptions { poison: true, late_copies });
    device.allocate(Arc::new(program.clone()), Arc::new(plan.clone())).expect("allocated");
    let input: Vec<u8> = (0..TOKENS * COLS).flat_map(|i| (i as f32 + 0.5).to_le_bytes()).collect();
    device.write(names.input.buf, 0, &input).expect("written");
    let live = TOKENS - 1;
    device.run(Phase::Micro, live).expect("runs");
    let mut bytes = vec![0; live * COLS * 4];
    device.read(names.result.buf, 0, &mut bytes).expect("read");
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn both_ends_of_a_copy_live_until_it_has_arrived() {
    let (program, names) = program();
    let plan = plan(&program);
    plan.check(&program).expect("a sound plan");
    let life = |v: View| plan.life[v.buf.0 as usize].map(|l| (l.first, l.last));
    assert_eq!((life(names.saved), life(names.back)), (Some((0, 4)), Some((6, 9))));
    // Three at once while the first copy is on its way, and while the second is.
    assert_eq!(plan.lower_bound, 3 * plan.slots[0].bytes);
}

#[test]
fn a_copy_may_happen_early_or_late() {
    let (program, names) = program();
    let plan = plan(&program);
    // result = late + back = (after + early) + 2x = ((3x + 2x) + 3x) + 2x
    let want: Vec<f32> = (0..(TOKENS - 1) * COLS).map(|i| 10.0 * (i as f32 + 0.5)).collect();
    for late in [false, true] {
        assert_eq!(run(&program, &names, &plan, late), want, "late {late}");
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
    assert_ne!(run(&program, &names, &wrong, false), run(&program, &names, &wrong, true));
}
