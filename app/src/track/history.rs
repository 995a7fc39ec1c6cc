//! Reads metrics.jsonl: training records, evaluations, samples and results.

use halfbyte_core::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The content of a metrics.jsonl, sorted by kind of line. If a resumed run logged a step twice, the last record wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Training records (`loss`, `grad_norm`, `learning_rate`, …), in ascending order of steps.
    pub logs: Vec<LoggedLine>,
    /// Evaluations (`eval_loss`, …), in ascending order of steps.
    pub evals: Vec<LoggedLine>,
    /// Answers that the model gave during training, with their steps in ascending order.
    pub samples: Vec<(usize, Vec<LoggedSample>)>,
    /// The last line of a finished run.
    pub results: Option<Map<String, Value>>,
    /// The number of the last line, counted from 1, if it is incomplete because the run was killed while writing it.
    pub cut_off: Option<usize>,
}

/// A training record or an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedLine {
    /// Optimizer steps done.
    pub step: usize,
    /// All fields of the line.
    pub fields: Map<String, Value>,
}

/// One sampled answer.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct LoggedSample {
    /// The text that the model continued.
    pub prompt: String,
    /// The model's continuation.
    pub answer: String,
    /// The correct answer, if it is known.
    pub expected: Option<String>,
}

impl LoggedLine {
    /// The field `name`, if it is a number. A loss that is not finite is logged as null, so it gives `None`.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.fields.get(name).and_then(Value::as_f64)
    }
}

/// Fields that must be numbers or null in any line.
const NUMBERS: [&str; 8] =
    ["epoch", "loss", "grad_norm", "learning_rate", "tokens_per_second", "eval_loss", "train_loss", "train_runtime"];

impl History {
    /// Reads `file`. An incomplete last line is reported as [`History::cut_off`]; any other damaged line is an error
    /// that names it.
    pub fn open(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file).map_err(|e| Error::io("read", file, e))?;
        Self::parse(&bytes).map_err(|e| e.at(file.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut history = Self::default();
        let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        for (number, line) in lines.iter().enumerate().map(|(i, line)| (i + 1, line)) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Map<String, Value>>(line) {
                Ok(fields) => history.add(fields).map_err(|e| e.at(format!("line {number}")))?,
                Err(_) if number == lines.len() => history.cut_off = Some(number),
                Err(e) => {
                    // serde_json parsed a single line, so its own line number is always 1.
                    let why = e.to_string().replace(" at line 1 column", " at column");
                    return Err(Error::input(format!("line {number}: not a JSON object: {why}"))
                        .hint("remove the line, or restore the file"));
                }
            }
        }
        Ok(history)
    }

    fn add(&mut self, fields: Map<String, Value>) -> Result<()> {
        for name in NUMBERS {
            if let Some(value) = fields.get(name).filter(|v| !v.is_number() && !v.is_null()) {
                return Err(wrong(name, value, "expected a number"));
            }
        }
        if fields.contains_key("train_runtime") {
            self.results = Some(fields);
            return Ok(());
        }
        let step = fields.get("step").unwrap_or(&Value::Null);
        let step = step.as_u64().ok_or_else(|| wrong("step", step, "expected a whole number"))? as usize;
        // A resumed run may log steps twice. The last record wins.
        if let Some(samples) = fields.get("samples") {
            let parsed = serde_json::from_value(samples.clone());
            let parsed = parsed.map_err(|e| wrong("samples", samples, &format!("expected answers: {e}")))?;
            drop_from(&mut self.samples, step, |(earlier, _)| *earlier);
            self.samples.push((step, parsed));
        } else {
            let evaluation = fields.keys().any(|name| name.starts_with("eval_"));
            let list = if evaluation { &mut self.evals } else { &mut self.logs };
            drop_from(list, step, |entry| entry.step);
            list.push(LoggedLine { step, fields });
        }
        // Results followed by more steps belong to an earlier part of a resumed run.
        self.results = None;
        Ok(())
    }
}

/// Removes the entries of `step` and later ones. The entries are in ascending order, so they are at the end.
fn drop_from<T>(list: &mut Vec<T>, step: usize, step_of: impl Fn(&T) -> usize) {
    list.truncate(list.partition_point(|entry| step_of(entry) < step));
}

fn wrong(name: &str, value: &Value, why: &str) -> Error {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(60) {
        text.truncate(end);
        text.push('…');
    }
    Error::input(format!("`{name}` is {text}: {why}")).hint("remove the line, or restore the file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<History> {
        History::parse(text.as_bytes())
    }

    #[test]
    fn lines_are_sorted_by_kind() {
        let text = r#"{"step":2,"loss":1.5,"grad_norm":0.5}
            {"step":2,"eval_loss":1.25}

            {"step":2,"samples":[{"prompt":"p","answer":"a"},{"prompt":"q","answer":"b","expected":"c"}]}
            {"step":4,"loss":null}
            {"train_runtime":2.5,"train_loss":1.5}
        "#;
        let history = parse(text).expect("valid");
        assert_eq!((history.logs.len(), history.evals.len(), history.cut_off), (2, 1, None));
        assert_eq!(history.logs[0].number("loss"), Some(1.5));
        assert_eq!(history.logs[1].number("loss"), None, "a loss that is not finite");
        let samples = &history.samples[0].1;
        assert_eq!((samples[0].expected.as_deref(), samples[1].expected.as_deref()), (None, Some("c")));
        assert_eq!(history.results.expect("results")["train_loss"], 1.5);
    }

    #[test]
    fn the_last_record_of_a_step_wins() {
        let text = "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":3,\"loss\":1.0}\n\
            {\"train_runtime\":1.0}\n{\"step\":2,\"loss\":2.5}\n{\"step\":4,\"loss\":0.5}\n";
        let history = parse(text).expect("valid");
        let losses: Vec<_> = history.logs.iter().map(|e| (e.step, e.number("loss").unwrap_or(f64::NAN))).collect();
        assert_eq!(losses, [(1, 3.0), (2, 2.5), (4, 0.5)]);
        assert_eq!(history.results, None);
    }

    #[test]
    fn a_long_file_is_read_in_linear_time() {
        let mut text: String = (1..=200_000).map(|step| format!("{{\"step\":{step},\"loss\":1.0}}\n")).collect();
        text += "{\"step\":150000,\"loss\":2.0}\n";
        let began = std::time::Instant::now();
        assert_eq!(parse(&text).expect("valid").logs.len(), 150_000);
        // A pass over all earlier entries for each line takes minutes.
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }

    #[test]
    fn a_kill_may_cut_off_the_last_line_and_no_other() {
        let good = "{\"step\":1,\"loss\":3.0}\n";
        for end in 1..good.len() - 1 {
            let history = parse(&format!("{good}{}", &good[..end])).expect("valid");
            assert_eq!((history.logs.len(), history.cut_off), (1, Some(2)), "cut at {end}");
        }
        let error = parse(&format!("{}\n{good}", &good[..9])).expect_err("damaged").to_string();
        assert!(error.starts_with("line 1: not a JSON object: ") && error.contains("at column"), "{error}");
        let not_utf8 =
            History::parse(b"{\"step\":1,\"loss\":\"\xff\"}\n{\"step\":2}\n").expect_err("damaged").to_string();
        assert!(not_utf8.starts_with("line 1: "), "{not_utf8}");
    }

    #[test]
    fn edited_lines_are_refused_by_name() {
        for (text, words) in [
            ("{\"loss\":3.0}\n", "line 1: `step` is null: expected a whole number"),
            ("{\"step\":-1,\"loss\":3.0}\n", "line 1: `step` is -1: expected a whole number"),
            ("{\"step\":1,\"loss\":\"low\"}\n", "line 1: `loss` is \"low\": expected a number"),
            (
                "\n{\"step\":1,\"samples\":[{\"prompt\":\"p\"}]}\n",
                "line 2: `samples` is [{\"prompt\":\"p\"}]: expected",
            ),
            ("[1]\n{\"step\":1}\n", "line 1: not a JSON object"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
