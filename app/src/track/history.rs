//! metrics.jsonl, read back: what was logged, evaluated and sampled, and the results.

use halfbyte_core::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The lines of a metrics.jsonl, by what they are about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Records of training: `loss`, `grad_norm`, `learning_rate` and so on, with rising steps.
    pub logs: Vec<Entry>,
    /// Evaluations: `eval_loss` and so on, with rising steps.
    pub evals: Vec<Entry>,
    /// Answers that the model gave during training, with rising steps.
    pub samples: Vec<(usize, Vec<Sample>)>,
    /// The last line of a run that has ended.
    pub results: Option<Map<String, Value>>,
    /// The number of the last line, if the run was killed while writing it.
    pub cut_off: Option<usize>,
}

/// A line with a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Optimizer steps done.
    pub step: usize,
    /// The line.
    pub fields: Map<String, Value>,
}

/// One sampled answer.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Sample {
    /// What the model was given.
    pub prompt: String,
    /// What it said.
    pub answer: String,
    /// What it should have said, where that is known.
    pub expected: Option<String>,
}

impl Entry {
    /// A field that is a number; a loss that is not finite is logged as null.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.fields.get(name).and_then(Value::as_f64)
    }
}

/// Fields that are numbers, wherever they stand.
const NUMBERS: [&str; 8] =
    ["epoch", "loss", "grad_norm", "learning_rate", "tokens_per_second", "eval_loss", "train_loss", "train_runtime"];

impl History {
    /// Reads `file`. A damaged line is an error that names it; a last line without its end is [`History::cut_off`].
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
                    // serde_json counts lines itself, but it was given one.
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
        // A run that went on from a checkpoint says steps anew; what it says last is what it is.
        if let Some(samples) = fields.get("samples") {
            let parsed = serde_json::from_value(samples.clone());
            let parsed = parsed.map_err(|e| wrong("samples", samples, &format!("expected answers: {e}")))?;
            self.samples.retain(|(earlier, _)| *earlier < step);
            self.samples.push((step, parsed));
        } else {
            let evaluation = fields.keys().any(|name| name.starts_with("eval_"));
            let list = if evaluation { &mut self.evals } else { &mut self.logs };
            list.retain(|entry| entry.step < step);
            list.push(Entry { step, fields });
        }
        // Results that stand before further steps are those of an earlier part.
        self.results = None;
        Ok(())
    }
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
    fn lines_are_sorted_by_what_they_are_about() {
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
    fn what_is_said_last_of_a_step_holds() {
        let text = "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":3,\"loss\":1.0}\n\
            {\"train_runtime\":1.0}\n{\"step\":2,\"loss\":2.5}\n{\"step\":4,\"loss\":0.5}\n";
        let history = parse(text).expect("valid");
        let losses: Vec<_> = history.logs.iter().map(|e| (e.step, e.number("loss").unwrap_or(f64::NAN))).collect();
        assert_eq!(losses, [(1, 3.0), (2, 2.5), (4, 0.5)]);
        assert_eq!(history.results, None);
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
