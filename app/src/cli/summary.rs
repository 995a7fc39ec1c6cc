//! The summary at the end of a run: sparklines of its curves and a table of its results.

use super::human_bytes;
use crate::run::results::Results;
use crate::train::records::LogRecord;

/// The most characters of a sparkline.
const WIDTH: usize = 40;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Sparklines of loss, gradient norm and learning rate, one line each.
pub fn history(log: &[LogRecord]) -> String {
    if log.len() < 2 {
        return String::new();
    }
    type Column = fn(&LogRecord) -> f64;
    let columns: [(&str, Column); 3] =
        [("loss", |r| r.loss), ("grad_norm", |r| r.grad_norm), ("learning_rate", |r| r.learning_rate)];
    let mut text = String::from("run history:\n");
    for (name, column) in columns {
        let values: Vec<f64> = log.iter().map(column).collect();
        let (first, last) = (short(values[0]), short(values[values.len() - 1]));
        text += &format!("  {name:<14} {}  {first} → {last}\n", sparkline(&values));
    }
    text
}

/// The results, one line each.
pub fn results(results: &Results) -> String {
    let Results { summary, epoch, final_learning_rate, total_flos, train_runtime, .. } = results;
    let mut lines = vec![
        ("epoch", format!("{epoch:.2}")),
        ("train_loss", format!("{:.4}", summary.train_loss)),
        ("final loss", format!("{:.4}", summary.final_loss)),
        ("final learning_rate", short(*final_learning_rate)),
        ("train_runtime", format!("{train_runtime:.1} s")),
        ("train_samples_per_second", results.train_samples_per_second.to_string()),
        ("train_steps_per_second", results.train_steps_per_second.to_string()),
        ("total_flos", format!("{total_flos:.4e}")),
        ("memory planned", human_bytes(results.memory_planned)),
    ];
    if let Some(bytes) = results.memory_in_use {
        lines.push(("memory in use", format!("{} (all processes and the driver)", human_bytes(bytes as usize))));
    }
    let lines: String = lines.iter().map(|(name, value)| format!("  {name:<25} {value}\n")).collect();
    format!("run summary:\n{lines}")
}

/// A sparkline of `values`, scaled from the lowest to the highest. If there are too many values, each character is the
/// mean of consecutive ones. A value that is not finite is a blank.
fn sparkline(values: &[f64]) -> String {
    let points = values.len().min(WIDTH);
    let mean = |i: usize| {
        let stretch = &values[i * values.len() / points..(i + 1) * values.len() / points];
        stretch.iter().sum::<f64>() / stretch.len() as f64
    };
    let means: Vec<f64> = (0..points).map(mean).collect();
    let finite = || means.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (finite().fold(f64::MAX, f64::min), finite().fold(f64::MIN, f64::max));
    let bar = |value: &f64| match (value - low) / (high - low) {
        _ if !value.is_finite() => ' ',
        // All values are equal.
        share if !share.is_finite() => BARS[0],
        share => BARS[(share * BARS.len() as f64).min(BARS.len() as f64 - 1.0) as usize],
    };
    means.iter().map(bar).collect()
}

/// Formats a number with four digits.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-2 { format!("{value:.2e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_go_from_the_lowest_to_the_highest() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[3.0, 3.0]), "▁▁");
        assert_eq!(sparkline(&[2.0, f64::NAN, 1.0]), "█ ▁");
        let long: Vec<f64> = (0..1003).map(f64::from).collect();
        let line = sparkline(&long);
        assert_eq!(line.chars().count(), WIDTH);
        assert!(line.starts_with("▁▁▁▁▁▂") && line.ends_with("▇█████"), "{line}");
    }
}
