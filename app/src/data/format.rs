//! From a record to marked text: the `format`, `template` and `text_column` of a recipe.

use std::borrow::Cow;

use serde_json::Value;

use crate::config::data::TrainOn;
use crate::data::chat::{Layout, messages};
use crate::data::marks::{Literals, RoleMarkers, TRAINED, escape};
use crate::data::table::Record;
use crate::data::template::{Template, Undefined};
use halfbyte_core::error::{Error, Result};

/// How a record becomes text.
pub enum Shape {
    /// The text of a column.
    Column {
        /// Which.
        name: String,
        /// Where its roles begin, if it has roles.
        roles: Option<RoleMarkers>,
    },
    /// A Jinja template over the record.
    Template(Box<Template>),
    /// Alpaca's prompt over `instruction`, `input` and `output`.
    Alpaca,
    /// A conversation.
    Chat {
        /// The column with the list of messages, where it has an unusual name.
        column: Option<String>,
        /// How it is written.
        layout: Layout,
    },
    /// A text column with `[|Human|]` and `[|AI|]` turns, whose last, empty human turn is left out.
    Dialog {
        /// Which column.
        name: String,
    },
}

/// A shape with what it needs of the tokenizer and the recipe.
pub struct Format {
    /// The shape.
    pub shape: Shape,
    /// The special tokens and their text.
    pub literals: Literals,
    /// `special_in_template`: literals such as `</s>` in the recipe's template or in the text column are tokens.
    pub special: bool,
    /// What is trained on.
    pub train_on: TrainOn,
}

impl Format {
    /// A template over the record's columns. With `special`, literals such as `</s>` in it are tokens.
    pub fn template(
        source: &str,
        roles: Option<&RoleMarkers>,
        literals: Literals,
        special: bool,
        train_on: TrainOn,
    ) -> Result<Format> {
        let known = if special { literals.clone() } else { Literals::default() };
        let template = Template::new(source, Undefined::Refused, &known, roles)?;
        if train_on != TrainOn::All && roles.is_none() && !source.contains("endgeneration") {
            return Err(no_roles("template"));
        }
        Ok(Format { shape: Shape::Template(Box::new(template)), literals, special, train_on })
    }

    /// A text column.
    pub fn column(
        name: &str,
        roles: Option<RoleMarkers>,
        literals: Literals,
        special: bool,
        train_on: TrainOn,
    ) -> Result<Format> {
        if train_on != TrainOn::All && roles.is_none() {
            return Err(no_roles("text_column"));
        }
        Ok(Format { shape: Shape::Column { name: name.into(), roles }, literals, special, train_on })
    }

    /// The marked text of a record.
    pub fn text(&self, record: &Record) -> Result<String> {
        match &self.shape {
            Shape::Column { name, roles } => {
                let text = escape(record.text(name)?);
                let text = match roles {
                    Some(roles) => roles.mark(&text),
                    None => text.into_owned(),
                };
                Ok(if self.special { self.literals.mark(&text) } else { text })
            }
            Shape::Template(template) => {
                let mut record = Cow::Borrowed(&record.0);
                if record.values().any(has_marks) {
                    record.to_mut().values_mut().for_each(escape_value);
                }
                template.render_record(&record)
            }
            Shape::Alpaca => alpaca(record),
            Shape::Chat { column, layout } => {
                layout.text(&messages(record, column.as_deref())?, &self.literals, self.train_on != TrainOn::All)
            }
            Shape::Dialog { name } => Ok(dialog(record.text(name)?)),
        }
    }

    /// Whether an end token belongs after the text unless the recipe says otherwise: the built-in shapes end with an
    /// answer, of which the end is a part. Templates and columns write it themselves.
    pub fn wants_eos(&self) -> bool {
        matches!(self.shape, Shape::Alpaca | Shape::Dialog { .. })
    }
}

fn no_roles(key: &str) -> Error {
    Error::usage(format!("train_on: a {key} alone does not say what the answer is")).hint(
        "give role_markers = [\"[INST]\", \"[/INST]\"], or put {% generation %}…{% endgeneration %} around the answer in a template",
    )
}

fn has_marks(value: &Value) -> bool {
    match value {
        Value::String(text) => matches!(escape(text), Cow::Owned(_)),
        Value::Array(items) => items.iter().any(has_marks),
        Value::Object(fields) => fields.values().any(has_marks),
        _ => false,
    }
}

fn escape_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = escape(text).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(escape_value),
        Value::Object(fields) => fields.values_mut().for_each(escape_value),
        _ => {}
    }
}

/// The prompts of Stanford Alpaca, with the line end after `### Response:` that most models since were trained with.
fn alpaca(record: &Record) -> Result<String> {
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

/// Baize's self-chat texts end with an empty `[|Human|]` turn: nothing to learn, and the text would go on after it.
fn dialog(text: &str) -> String {
    const HUMAN: &str = "[|Human|]";
    let text = text.trim_end();
    let text = text.strip_suffix(HUMAN).map_or(text, str::trim_end);
    RoleMarkers { user: HUMAN.into(), assistant: "[|AI|]".into() }.mark(&escape(text))
}
