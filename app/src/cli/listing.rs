//! A program as text: one line for each op, `results <- operands`.

use halfbyte_core::op::{Access, Op, Phase, Place, Program, Rows, View};
use std::fmt::Write;

/// The listing of one phase. `%12 layers.0.qkv[T×768]@1a00`: buffer 12, its name, shape and address; `+` marks what is
/// read and written.
pub fn listing(program: &Program, address: &[usize], phase: Phase) -> String {
    let mut text = String::new();
    for (i, op) in program.ops(phase).iter().enumerate() {
        line(&mut text, program, address, i, op);
    }
    text
}

fn line(text: &mut String, program: &Program, address: &[usize], i: usize, op: &Op) {
    let accesses = op.accesses();
    let side = |keep: &dyn Fn(Access) -> bool, mark: &dyn Fn(Access) -> &'static str| {
        let shown = accesses.iter().filter(|(_, a)| keep(*a));
        shown.map(|(v, a)| format!("{}{}", mark(*a), operand(program, address, v))).collect::<Vec<_>>().join(" ")
    };
    let writes = side(&|a| a != Access::Read, &|a| if a == Access::ReadWrite { "+" } else { "" });
    let reads = side(&|a| a == Access::Read, &|_| "");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{i:5} {:14} {writes} <- {reads}", op.name());
}

fn operand(program: &Program, address: &[usize], view: &View) -> String {
    let info = program.info(view.buf);
    let rows = match view.rows {
        Rows::Fixed(n) => n.to_string(),
        Rows::Tokens(1) => "T".into(),
        Rows::Tokens(k) => format!("{k}T"),
        Rows::Chunk { start, len } => format!("T[{start}..{}]", start + len),
    };
    let part = if *view == info.view(view.buf) { String::new() } else { format!("+{}", view.offset) };
    let home = if info.place == Place::Arena { format!("@{:x}", address[view.buf.0 as usize]) } else { String::new() };
    format!("%{} {}{part}[{rows}×{}]{home}", view.buf.0, info.name, view.cols)
}
