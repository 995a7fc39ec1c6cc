//! Formats a question as in the training data.

use crate::config::data::TrainOn;
use crate::data::format::{RecordFormatter, RecordLayout};
use crate::data::markup::{PartContent, parts};
use crate::data::table::Record;
use halfbyte_core::error::{Error, Result};
use serde_json::{Value, json};

/// Placeholder for the answer in a formatted record. No question contains it.
const ANSWER: &str = "halfbyte-answer-5f0d1c";

/// A question in the format of the training data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The marked text up to the start of the answer.
    pub prompt: String,
    /// The first special token after the answer, which ends it.
    pub end: Option<u32>,
}

/// The record of `question`, up to the start of its answer; `None` if the records of this format are plain texts without
/// question and answer.
pub fn ask(formatter: &RecordFormatter, question: &str) -> Result<Option<Asked>> {
    let fields = match &formatter.layout {
        RecordLayout::Column { .. } | RecordLayout::Dialog { .. } => return Ok(None),
        RecordLayout::Template(template) => {
            let columns = template.columns();
            let [first, between @ .., last] = &columns[..] else { return Ok(None) };
            let empty = between.iter().map(|name| (name.clone(), json!("")));
            let ends = [(first.clone(), json!(question)), (last.clone(), json!(ANSWER))];
            empty.chain(ends).collect()
        }
        RecordLayout::PromptCompletion => object(json!({"prompt": question, "completion": ANSWER})),
        RecordLayout::Segments => {
            let segment = |label: bool, text: &str| json!({"label": label, "text": text});
            object(json!({"segments": [segment(false, question), segment(true, ANSWER)]}))
        }
        RecordLayout::Alpaca => object(json!({"instruction": question, "input": "", "output": ANSWER})),
        RecordLayout::Chat { column, .. } => {
            let name = column.as_deref().unwrap_or("messages");
            let turn = |role: &str, content: &str| json!({"role": role, "content": content});
            object(json!({name: [turn("user", question), turn("assistant", ANSWER)]}))
        }
    };
    let text = formatter.text(&Record(fields))?;
    let Some((asked, after)) = text.split_once(ANSWER) else {
        return Err(Error::usage("the recipe's format does not show where the answer begins")
            .hint("give --raw and the whole prompt, formatted as in the training data"));
    };
    // In training, a space before the answer belonged to the answer's first token.
    let prompt = asked.trim_end_matches(' ').to_string();
    let end = parts(after, TrainOn::All, false).into_iter().find_map(|part| match part.content {
        PartContent::Token(id) => Some(id),
        PartContent::Text { .. } => None,
    });
    Ok(Some(Asked { prompt, end }))
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::markup::{Literals, TRAINED};

    fn asked(template: &str) -> Result<Option<String>> {
        let formatter = RecordFormatter::template(template, None, Literals::default(), false, TrainOn::All)?;
        Ok(ask(&formatter, "why?")?.map(|asked| asked.prompt))
    }

    #[test]
    fn the_token_after_the_answer_ends_it() {
        let literals = Literals::new(vec![("<end>".into(), 7), ("<other>".into(), 8)]);
        let end = |template: &str| {
            let formatter = RecordFormatter::template(template, None, literals.clone(), true, TrainOn::All);
            ask(&formatter.expect("valid"), "why?").expect("valid").expect("a question").end
        };
        assert_eq!(end("<other>{{ q }}<other>{{ a }}<end>\n<other>"), Some(7));
        assert_eq!(end("{{ q }}<other>{{ a }}"), None);
    }

    #[test]
    fn the_first_column_asks_the_last_answers_and_those_between_are_empty() {
        let template =
            "Question: {{ instruction }}{% if input %}\ninput: {{ input }}{% endif %}. output: {{ output }}!";
        assert_eq!(asked(template).expect("valid").as_deref(), Some("Question: why?. output:"));
        // Text that mentions column names does not count as a column.
        let template = "output, then instruction: {{ instruction }} {{output}}";
        assert_eq!(asked(template).expect("valid").as_deref(), Some("output, then instruction: why?"));
        let template = "Q: {{ q }} A:{% generation %} {{ a }}{% endgeneration %}";
        assert_eq!(asked(template).expect("valid"), Some(format!("Q: why? A:{TRAINED}")));
        assert_eq!(asked("{{ text }}").expect("valid"), None);
    }

    #[test]
    fn a_template_that_hides_its_answer_is_refused() {
        let error = asked("{{ question }} {{ answer | length }}").expect_err("no answer to be seen").to_string();
        assert!(error.contains("--raw"), "{error}");
    }
}
