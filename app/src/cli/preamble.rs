//! The lines that `train` prints before its first step, at most a dozen. `inspect-data` prints the full report.

use super::forecast;
use crate::config::cadence::Cadence;
use crate::config::training::TrainingConfig;
use crate::run::Prepared;

/// The largest number of lines.
const LINES: usize = 12;

/// The lines; `time` is the line with the predicted time.
pub fn lines(run: &Prepared, device: &str, time: String) -> Vec<String> {
    let planned = &run.planned;
    let data = &planned.data;
    let mut lines = vec![format!("model {}", run.place.name)];
    // The further lines count the same parameters in other ways; `plan` prints them.
    lines.extend(planned.parameters().lines().next().map(String::from));
    lines.push(format!("{}, {} steps", data.report.summary(), planned.steps.total));
    lines.extend(data.eval.iter().map(|(_, report)| report.summary()));
    let end = [
        format!("device: {device}"),
        forecast::memory(&planned.recorded),
        time,
        checkpoints(&planned.recipe.training),
        "the data in full: halfbyte inspect-data RECIPE".into(),
    ];
    let warnings = data.report.warnings().into_iter().map(|warning| format!("! {warning}"));
    let notes: Vec<String> = warnings.chain(planned.notes.iter().map(|note| format!("note: {note}"))).collect();
    lines.extend(shortened(notes, LINES - lines.len() - end.len()));
    lines.extend(end);
    lines
}

/// Keeps at most `most` lines. If some do not fit, the last line gives their number.
fn shortened(mut notes: Vec<String>, most: usize) -> Vec<String> {
    if notes.len() > most {
        let left = notes.len() - (most - 1);
        notes.truncate(most - 1);
        notes.push(format!("note: {left} more notes, which inspect-data lists"));
    }
    notes
}

/// The line about when checkpoints are written.
fn checkpoints(training: &TrainingConfig) -> String {
    let every = match training.save {
        Cadence::Never => return "checkpoints: none (save_strategy = \"no\")".into(),
        Cadence::Epoch => "after every epoch".to_string(),
        Cadence::Steps(1) => "after every step".into(),
        Cadence::Steps(n) => format!("every {n} steps"),
        Cadence::Share(share) => format!("every {} % of the steps", 100.0 * share),
    };
    match training.save_minutes {
        0.0 => format!("checkpoints: {every}, and at the end"),
        minutes => format!("checkpoints: {every}, at the end, and after {minutes} minutes without one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_do_not_fit_are_counted() {
        let notes = |n: usize| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(shortened(notes(3), 3), ["1", "2", "3"]);
        assert_eq!(shortened(notes(4), 3), ["1", "2", "note: 2 more notes, which inspect-data lists"]);
    }
}
