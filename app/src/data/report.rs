//! The report on the data that is printed before the first step.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::config::data::OverLength;
use crate::data::document::Encoder;
use crate::data::format::RecordFormatter;
use crate::data::loader::Dataset;
use crate::data::prepare::{DataCounts, PreparedRows, RowRules};
use crate::data::table::Table;
use crate::disk::write::write_with;
use crate::suggest::printable;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::batch::IGNORED;

/// The report on one prepared split.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Name of the split.
    pub split: String,
    /// The counts of records, documents and tokens.
    #[serde(flatten)]
    pub counts: DataCounts,
    /// `max_seq_length`.
    pub longest_row: usize,
    /// The treatment of longer documents, as text.
    pub over_length: &'static str,
    /// Histogram of documents by length: the inclusive upper bound of each bin in tokens, and the number of documents.
    pub histogram: Vec<(usize, usize)>,
    /// The median number of tokens of a document.
    pub median: usize,
    /// The largest number of tokens of a document.
    pub longest: usize,
    /// The share of the rows' capacity that is filled with tokens; None without packing.
    pub packing_efficiency: Option<f64>,
    /// The special tokens that end the records, each with the number of records. Generation stops at them.
    pub ends: Vec<(String, usize)>,
    /// Optimizer steps; None for a split that is only evaluated.
    pub steps: Option<usize>,
}

impl Report {
    /// The report on `prepared`; `steps` is the number of optimizer steps.
    pub fn new(
        split: &str,
        prepared: &PreparedRows,
        rules: RowRules,
        steps: Option<usize>,
        encoder: &Encoder,
    ) -> Report {
        let mut lengths = prepared.lengths.clone();
        lengths.sort_unstable();
        let counts = prepared.counts;
        let capacity = counts.rows * rules.longest;
        Report {
            split: split.into(),
            counts,
            longest_row: rules.longest,
            over_length: match rules.over_length {
                OverLength::Truncate => "cut off there",
                OverLength::Split => "split there",
                OverLength::Drop => "left out",
                OverLength::Error => "an error",
            },
            histogram: histogram(&lengths),
            median: lengths.get(lengths.len() / 2).copied().unwrap_or(0),
            longest: lengths.last().copied().unwrap_or(0),
            packing_efficiency: rules.packing.map(|_| counts.tokens as f64 / capacity as f64),
            ends: prepared.ends.iter().map(|(id, n)| (encoder.piece(*id).to_string(), *n)).collect(),
            steps,
        }
    }

    /// The report as text, one fact per line. Anomalies are marked with `!`.
    pub fn text(&self) -> String {
        let mut out = self.summary() + "\n";
        if let Some(steps) = self.steps {
            let _ = writeln!(out, "  {steps} optimizer step{}", if steps == 1 { "" } else { "s" });
        }
        if let Some(efficiency) = self.packing_efficiency {
            let _ = writeln!(out, "  packing fills {:.1} % of rows of {}", 100.0 * efficiency, self.longest_row);
        }
        let _ = writeln!(out, "  tokens of a record: median {}, longest {}", self.median, self.longest);
        if !self.ends.is_empty() {
            let ends = self.ends.iter().map(|(token, n)| format!("{token} ({n})")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "  end tokens of records: {ends}");
        }
        let most = self.histogram.iter().map(|(_, n)| *n).max().unwrap_or(1);
        for (bound, n) in &self.histogram {
            let bar = "▇".repeat((n * 40).div_ceil(most));
            let _ = writeln!(out, "  {:>8} {bar} {n}", format!("≤ {bound}"));
        }
        for warning in self.warnings() {
            let _ = writeln!(out, "! {warning}");
        }
        out
    }

    /// Records, rows and tokens in one line.
    pub fn summary(&self) -> String {
        let c = &self.counts;
        let trained = 100.0 * c.trained as f64 / c.tokens.max(1) as f64;
        let Report { split, .. } = self;
        format!(
            "{split}: {} records, {} rows, {} tokens, {trained:.1} % of them trained on",
            c.records, c.rows, c.tokens
        )
    }

    /// The anomalies, one per line.
    pub fn warnings(&self) -> Vec<String> {
        let c = &self.counts;
        let facts = [
            (c.too_long, format!("longer than {}: {} (over_length)", self.longest_row, self.over_length)),
            (c.untrained, "without a token that is trained on (all labels masked): left out".into()),
            (c.empty, "empty".into()),
            (c.missing_eos, "without the end token: generation would not learn to stop (add_eos_token)".into()),
            (c.double_bos, "with two begin tokens: the text has one already (add_bos_token)".into()),
            (c.literal_special, "with <s> or </s> as plain text: set special_in_template if they are tokens".into()),
            (c.duplicates, "duplicates".into()),
        ];
        let found =
            facts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} of {} records {what}", c.records));
        let lost = (c.tokens_lost > 0).then(|| format!("{} tokens are in no row", c.tokens_lost));
        found.chain(lost).collect()
    }
}

/// The first `n` records of a table: the place of each, its columns, and its formatted text.
pub fn first_records(table: &Table, format: &RecordFormatter, n: usize) -> Result<String> {
    let mut out = String::new();
    for row in 0..n.min(table.len()) {
        let record = table.record(row)?;
        let _ = writeln!(out, "{}:", table.place(row));
        for (column, value) in &record.0 {
            let _ = writeln!(out, "  {} = {value}", printable(column));
        }
        let text = format.text(&record).map_err(|e| e.at(table.place(row)))?;
        let _ = writeln!(out, "  becomes");
        for line in format.literals.unmark(&text).lines() {
            let _ = writeln!(out, "  │{}", printable(line));
        }
    }
    Ok(out)
}

/// Writes the formatted text of all records to `file`, one JSON object with `text` per line. On an error, an existing
/// file stays unchanged.
pub fn write_texts(table: &Table, format: &RecordFormatter, file: &Path) -> Result<()> {
    write_with(file, |out| {
        for row in 0..table.len() {
            let text = format.text(&table.record(row)?).map_err(|e| e.at(table.place(row)))?;
            let line = serde_json::json!({ "text": format.literals.unmark(&text) });
            writeln!(out, "{line}").map_err(|e| Error::io("write", file, e))?;
        }
        Ok(())
    })
}

/// A histogram of the sorted `lengths` with bounds 16, 32, 64, …, from the first bin that is not empty.
fn histogram(lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut bins = Vec::new();
    let (mut bound, mut counted) = (16, 0);
    while counted < lengths.len() {
        let upto = lengths.partition_point(|&n| n <= bound);
        if !bins.is_empty() || upto > 0 {
            bins.push((bound, upto - counted));
        }
        (counted, bound) = (upto, bound * 2);
    }
    bins
}

/// Shows rows (numbers from 0, printed from 1) token by token, separated by thin bars. Trained tokens are green with
/// `color` and in braces without.
pub fn show_rows(dataset: &Dataset, encoder: &Encoder, rows: impl IntoIterator<Item = usize>, color: bool) -> String {
    let [trained_on, trained_off, bar] =
        if color { ["\x1b[32m", "\x1b[0m", "\x1b[90m│\x1b[0m"] } else { ["{", "}", "│"] };
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(out, "row {}:", row + 1);
        for piece in dataset.rows.row(row) {
            let document = dataset.tokens.piece(piece.document, piece.start..piece.end);
            let mut shown = String::from("  ");
            let mut trained = false;
            for (t, (&id, &label)) in document.ids.iter().zip(&document.labels).enumerate() {
                if t > 0 {
                    // The bar has its own color, so the color of the token is set again after it.
                    shown += bar;
                    shown += if color && trained { trained_on } else { "" };
                }
                if (label != IGNORED) != trained {
                    trained = !trained;
                    shown += if trained { trained_on } else { trained_off };
                }
                shown += &printable(encoder.piece(id));
            }
            let _ = writeln!(out, "{shown}{}", if trained { trained_off } else { "" });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_double_and_hold_everything_once() {
        assert_eq!(histogram(&[]), []);
        assert_eq!(histogram(&[3, 16, 17, 70]), [(16, 2), (32, 1), (64, 0), (128, 1)]);
        assert_eq!(histogram(&[40, 41]), [(64, 2)]);
    }
}
