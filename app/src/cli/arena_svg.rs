//! A drawing of the arena over a micro-step: time goes from left to right, addresses from bottom to top, and each
//! rectangle is a buffer that holds its bytes from its first write to its last use.

use halfbyte_core::op::{Phase, Program};
use halfbyte_core::plan::Plan;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 640.0;
/// Left, right, top and bottom margins.
const MARGIN: [f64; 4] = [90.0, 40.0, 50.0, 80.0];

/// Buffers that would be thinner are left out.
const VISIBLE: f64 = 0.1;

/// The kinds of contents, told by a buffer's name, with the colors in which they are drawn.
const KINDS: [(&str, &str); 6] = [
    ("forward pass", "#4878b8"),
    ("made again or copied back", "#e8a33d"),
    ("gradients", "#c8504b"),
    ("weights in 16 bits", "#8a8a8a"),
    ("logits and their gradient", "#5aa469"),
    ("statistics", "#b7b7d7"),
];

fn kind(name: &str) -> usize {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    match name {
        _ if leaf == "weight" => 3,
        _ if leaf == "logits" => 4,
        _ if matches!(leaf, "rstd" | "lse" | "delta" | "low") || name.contains(".route.") => 5,
        _ if name.starts_with("d.") => 2,
        _ if name.starts_with("again.") => 1,
        _ => 0,
    }
}

/// The beginning of every drawing.
const HEAD: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" data-halfbyte=\"arena\"";

/// Whether `bytes` are a drawing that [`draw`] made.
pub fn is_ours(bytes: &[u8]) -> bool {
    bytes.starts_with(HEAD.as_bytes())
}

/// The drawing as an SVG document.
pub fn draw(program: &Program, plan: &Plan, title: &str) -> String {
    let index = program.phases.iter().position(|(phase, _)| *phase == Phase::Micro).unwrap_or(0);
    let ops = program.ops(Phase::Micro).len().max(1) as f64;
    let [left, right, top, bottom] = MARGIN;
    let (inner, high) = (WIDTH - left - right, HEIGHT - top - bottom);
    let total = plan.arena_bytes.max(1) as f64;
    let x = |op: f64| left + inner * op / ops;
    let y = |byte: f64| top + high * (1.0 - byte / total);
    let mut svg = format!(
        "{HEAD} viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\">{}</text>\n",
        escaped(title)
    );
    for block in plan.blocks.iter().filter(|block| block.life.phase == index) {
        for (i, buf) in block.bufs.iter().enumerate() {
            let Some(life) = plan.life[buf.0 as usize] else { continue };
            // The next buffer of a chain takes over at its first op.
            let next = block.bufs.get(i + 1).and_then(|next| plan.life[next.0 as usize]);
            let (from, to) = (life.first as f64, next.map_or(life.last + 1, |next| next.first) as f64);
            let at = (plan.address(*buf) - plan.arena_start) as f64;
            let name = &program.info(*buf).name;
            let (above, below) = (y(at + block.bytes as f64), y(at));
            if below - above < VISIBLE {
                continue;
            }
            let _ = writeln!(
                svg,
                "<rect x=\"{:.2}\" y=\"{above:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{}\" stroke=\"white\" \
                 stroke-width=\"0.2\"><title>{}: {:.1} MiB, ops {} to {}</title></rect>",
                x(from),
                x(to) - x(from),
                below - above,
                KINDS[kind(name)].1,
                escaped(name),
                block.bytes as f64 / f64::from(1 << 20),
                life.first,
                life.last,
            );
        }
    }
    let gib = total / f64::from(1 << 30);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (row, column) = (y(share * total), x(share * ops));
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.2} GiB</text>\n\
             <text x=\"{column:.1}\" y=\"{:.1}\" text-anchor=\"middle\">op {:.0}</text>",
            left - 8.0,
            row + 4.0,
            share * gib,
            HEIGHT - bottom + 20.0,
            share * ops
        );
    }
    let mut at = left;
    for (words, color) in KINDS {
        let base = HEIGHT - 24.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{at:.0}\" y=\"{:.0}\" width=\"12\" height=\"12\" fill=\"{color}\"/>\n\
             <text x=\"{:.0}\" y=\"{base:.0}\">{words}</text>",
            base - 11.0,
            at + 18.0
        );
        at += 36.0 + 7.0 * words.len() as f64;
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
