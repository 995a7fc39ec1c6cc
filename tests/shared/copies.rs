//! A program that copies a buffer to host memory and back while other ops run.

use halfbyte_core::device::Device;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use halfbyte_core::op::{Buf, BufInfo, Op, Phase, Place, Program, Purpose, Rows, Transfer, View};
use halfbyte_core::plan::Plan;
use halfbyte_core::session::{decode, encode};
use std::sync::Arc;

const TOKENS: usize = 50;
const COLS: usize = 8;
const LIVE: usize = TOKENS - 1;

/// Views of the buffers that tests look at.
pub struct Names {
    pub saved: View,
    pub during: View,
    pub back: View,
    pub input: View,
    pub result: View,
}

/// The program. All of its values are exact in bf16.
pub fn program() -> (Program, Names) {
    let mut bufs = Vec::new();
    let mut buf = |name: &str, place| {
        let info = BufInfo { name: name.into(), rows: Rows::Tokens(1), cols: COLS, dtype: DType::Bf16, place };
        bufs.push(info);
        bufs[bufs.len() - 1].view(Buf(bufs.len() as u32 - 1))
    };
    let exchange = Place::Resident(Purpose::Exchange);
    let (input, result) = (buf("input", exchange), buf("result", exchange));
    let [saved, early, during, after, late, back] =
        ["saved", "early", "during", "after", "late", "back"].map(|name| buf(name, Place::Arena));
    let host = buf("host", Place::Host);
    let (out, home) = (Transfer { from: saved, to: host }, Transfer { from: host, to: back });
    let ops = vec![
        Op::Add { a: input, b: input, out: saved },
        Op::Start { copy: out },
        // Must not reuse the memory of `saved`: the copy may still be reading it.
        Op::Add { a: input, b: input, out: during },
        Op::Add { a: during, b: input, out: early },
        Op::Wait { copy: out },
        // May reuse it: the copy has finished.
        Op::Add { a: early, b: during, out: after },
        Op::Start { copy: home },
        // Must not occupy the future memory of `back`.
        Op::Add { a: after, b: early, out: late },
        Op::Wait { copy: home },
        Op::Add { a: late, b: back, out: result },
    ];
    let names = Names { saved, during, back, input, result };
    (Program { tokens: TOKENS, bufs, phases: vec![(Phase::Micro, ops)], constants: Vec::new() }, names)
}

/// Values of the input.
fn input() -> Vec<f64> {
    (0..TOKENS * COLS).map(|i| (i % 15) as f64 + 0.5).collect()
}

/// result = late + back = (after + early) + 2x = ((3x + 2x) + 3x) + 2x
pub fn expected() -> Vec<f64> {
    input().iter().take(LIVE * COLS).map(|x| 10.0 * x).collect()
}

/// Allocates, runs the program `times` times, and returns the result of the last run.
pub fn run(device: &mut dyn Device, program: &Program, names: &Names, plan: &Plan, times: usize) -> Result<Vec<f64>> {
    device.allocate(Arc::new(program.clone()), Arc::new(plan.clone()))?;
    device.write(names.input.buf, 0, &encode(DType::Bf16, &input()))?;
    let mut bytes = vec![0; LIVE * COLS * DType::Bf16.bytes()];
    for _ in 0..times {
        device.write(names.result.buf, 0, &vec![0xFF; bytes.len()])?;
        device.run(Phase::Micro, LIVE)?;
    }
    device.read(names.result.buf, 0, &mut bytes)?;
    Ok(decode(DType::Bf16, &bytes))
}
