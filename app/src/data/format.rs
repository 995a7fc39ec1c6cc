//! Turns a record into marked text, as `format`, `template` and `text_column` of the recipe specify.

use std::borrow::Cow;

use serde_json::Value;

use crate::config::data::TrainOn;
use crate::data::chat::{ChatFormat, conversation};
use crate::data::markup::{GIVEN, Literals, RoleMarkers, TRAINED, escape, escape_value, has_marks};
use crate::data::table::{Record, kind};
use crate::data::template::{Template, Undefined};
use halfbyte_core::error::{Error, Result};

/// The layout of records: which columns hold the text, and how it is formatted.
pub enum RecordLayout {
    /// The text of a column.
    Column {
        /// The name of the column.
        name: String,
        /// The texts that mark questions and answers, if the recipe names them.
        roles: Option<RoleMarkers>,
    },
    /// A Jinja template over the record.
    Template(Box<Template>),
    /// The prompt of Stanford Alpaca over `instruction`, `input` and `output`.
    Alpaca,
    /// A conversation.
    Chat {
        /// The column with the list of messages, if it has an unusual name.
        column: Option<String>,
        /// How the conversation is formatted.
        format: ChatFormat,
    },
    /// TRL's `prompt` and `completion`, concatenated.
    PromptCompletion,
    /// Axolotl's `segments`: a list of {text, label}; `label` says whether the text is trained on.
    Segments,
    /// A text column with `[|Human|]` and `[|AI|]` turns. A final empty human turn is removed.
    Dialog {
        /// The name of the column.
        name: String,
    },
}

/// Turns records of one layout into marked text.
pub struct RecordFormatter {
    /// The layout of the records.
    pub layout: RecordLayout,
    /// The special tokens and their text.
    pub literals: Literals,
    /// `special_in_template`: literals such as `</s>` in the recipe's template or in the text column are tokens.
    pub special: bool,
    /// The tokens that are trained.
    pub train_on: TrainOn,
}

impl RecordFormatter {
    /// A formatter for a template over the record's columns. With `special`, literals such as `</s>` in it are tokens.
    pub fn template(
        source: &str,
        roles: Option<&RoleMarkers>,
        literals: Literals,
        special: bool,
        train_on: TrainOn,
    ) -> Result<RecordFormatter> {
        let known = if special { literals.clone() } else { Literals::default() };
        let template = Template::new(source, Undefined::Refused, &known, roles)?;
        if train_on != TrainOn::All && roles.is_none() && !source.contains("endgeneration") {
            return Err(no_roles("template"));
        }
        Ok(RecordFormatter { layout: RecordLayout::Template(Box::new(template)), literals, special, train_on })
    }

    /// A formatter for a text column.
    pub fn column(
        name: &str,
        roles: Option<RoleMarkers>,
        literals: Literals,
        special: bool,
        train_on: TrainOn,
    ) -> Result<RecordFormatter> {
        if train_on != TrainOn::All && roles.is_none() {
            return Err(no_roles("text_column"));
        }
        Ok(RecordFormatter { layout: RecordLayout::Column { name: name.into(), roles }, literals, special, train_on })
    }

    /// The marked text of a record.
    pub fn text(&self, record: &Record) -> Result<String> {
        match &self.layout {
            RecordLayout::Column { name, roles } => {
                let text = escape(record.text(name)?);
                let text = match roles {
                    Some(roles) => roles.mark(&text),
                    None => text.into_owned(),
                };
                Ok(self.with_tokens(text))
            }
            RecordLayout::Template(template) => {
                let mut record = Cow::Borrowed(&record.0);
                if record.values().any(has_marks) {
                    record.to_mut().values_mut().for_each(escape_value);
                }
                template.render_record(&record)
            }
            RecordLayout::Alpaca => alpaca(record),
            RecordLayout::Chat { column, format } => {
                format.text(&conversation(record, column.as_deref())?, &self.literals, self.train_on)
            }
            RecordLayout::PromptCompletion => {
                let (prompt, completion) = (escape(record.text("prompt")?), escape(record.text("completion")?));
                Ok(self.with_tokens(format!("{prompt}{TRAINED}{completion}")))
            }
            RecordLayout::Segments => segments(record, &self.literals),
            RecordLayout::Dialog { name } => Ok(dialog(record.text(name)?)),
        }
    }

    /// Escapes `text`; with `special`, literals of special tokens in it become tokens.
    fn with_tokens(&self, text: String) -> String {
        if self.special { self.literals.mark(&text) } else { text }
    }

    /// Whether the end token is appended by default. True for layouts that end with an answer, which the end token
    /// completes; templates, text columns and segments contain it themselves.
    pub fn wants_eos(&self) -> bool {
        matches!(self.layout, RecordLayout::Alpaca | RecordLayout::PromptCompletion | RecordLayout::Dialog { .. })
    }
}

fn no_roles(key: &str) -> Error {
    Error::usage(format!("train_on: a {key} alone does not say what the answer is")).hint(
        "give role_markers = [\"[INST]\", \"[/INST]\"], or put {% generation %}…{% endgeneration %} around the answer in a template",
    )
}

/// Axolotl's `input_output`: the texts contain special tokens as literals.
fn segments(record: &Record, literals: &Literals) -> Result<String> {
    let list = record.get("segments")?;
    let list = list
        .as_array()
        .ok_or_else(|| Error::input(format!("column `segments` holds {}, not a list of segments", kind(list))))?;
    let mut out = String::new();
    for (i, segment) in list.iter().enumerate() {
        let (Some(text), Some(label)) = (segment["text"].as_str(), segment["label"].as_bool()) else {
            return Err(Error::input(format!("`segments[{i}]`: a segment has a `text` and a `label` (true or false)"))
                .hint("for instance {\"label\": false, \"text\": \"<s>Question\\n\"}"));
        };
        out.push(if label { TRAINED } else { GIVEN });
        out += &literals.mark(&escape(text));
    }
    Ok(out)
}

/// The prompts of Stanford Alpaca, with the newline after `### Response:` that most later models were trained with.
fn alpaca(record: &Record) -> Result<String> {
    for column in ["system", "history"] {
        if record.0.get(column).is_some_and(|value| !is_empty(value)) {
            return Err(Error::input(format!("column `{column}` has no place in the prompt of Alpaca"))
                .hint("give a chat_template: the record then becomes a conversation"));
        }
    }
    let (instruction, output) = (escape(record.text("instruction")?), escape(record.text("output")?));
    let input = if record.0.contains_key("input") { escape(record.text("input")?) } else { "".into() };
    let prompt = if input.is_empty() {
        format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:\n"
        )
    } else {
        format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. \
             Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        )
    };
    Ok(format!("{prompt}{TRAINED}{output}"))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Removes the empty `[|Human|]` turn at the end of Baize's self-chat texts. A model trained on it would continue after
/// its answer.
fn dialog(text: &str) -> String {
    const HUMAN: &str = "[|Human|]";
    let text = text.trim_end();
    let text = text.strip_suffix(HUMAN).map_or(text, str::trim_end);
    RoleMarkers { user: HUMAN.into(), assistant: "[|AI|]".into() }.mark(&escape(text))
}
