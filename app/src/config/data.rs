//! The `[data]` section: the settings of the data layer.

use toml::{Table, Value};

use super::chat_templates::{Meaning, meaning};
use super::raw::{Raw, name};
use halfbyte_core::error::Result;

/// The layout of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextFormat {
    /// A text column (`text_column`).
    Text,
    /// A Jinja template over the record (`template`).
    Template,
    /// `instruction`, `input`, `output`, with the prompt of Stanford Alpaca.
    Alpaca,
    /// A list of `messages`, formatted by a chat template.
    Messages,
    /// A list of `conversations` with ShareGPT's names, formatted by a chat template.
    ShareGpt,
    /// TRL's `prompt` and `completion`: two texts, or two lists of messages for a chat template.
    PromptCompletion,
    /// Axolotl's `segments`: texts, each with a label for whether it is trained.
    InputOutput,
    /// A conversation with `[INST]` as text, as Mistral-7B-Instruct v0.1 and v0.2 were trained.
    MistralInstruct,
    /// A conversation with `[INST]` as a token: v0.3 and later.
    MistralInstructV3,
    /// A text column with `[|Human|]` and `[|AI|]` turns.
    Dialog,
}

/// The names of `format`. The first of several names of one format is the one that is printed.
const FORMATS: [(&str, TextFormat); 13] = [
    ("text", TextFormat::Text),
    ("template", TextFormat::Template),
    ("alpaca", TextFormat::Alpaca),
    ("messages", TextFormat::Messages),
    ("chat", TextFormat::Messages),
    ("chat_template", TextFormat::Messages),
    ("sharegpt", TextFormat::ShareGpt),
    ("prompt-completion", TextFormat::PromptCompletion),
    ("input-output", TextFormat::InputOutput),
    ("input_output", TextFormat::InputOutput),
    ("mistral-instruct", TextFormat::MistralInstruct),
    ("mistral-instruct-v3", TextFormat::MistralInstructV3),
    ("dialog", TextFormat::Dialog),
];

impl TextFormat {
    /// The names of all formats, for hints.
    pub fn names() -> String {
        FORMATS.map(|(name, _)| name).join(", ")
    }

    /// Whether the format has its own prompt and ignores a chat template.
    fn has_own_prompt(self) -> bool {
        use TextFormat::{Alpaca, Dialog, InputOutput, MistralInstruct, MistralInstructV3, Text};
        matches!(self, Alpaca | Dialog | InputOutput | MistralInstruct | MistralInstructV3 | Text)
    }
}

/// The tokens that are trained, that is, count in the loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrainOn {
    /// Every token.
    All,
    /// The last answer.
    Completion,
    /// Every answer.
    Assistant,
}

const TRAIN_ON: [(&str, TrainOn); 3] =
    [("all", TrainOn::All), ("completion", TrainOn::Completion), ("assistant", TrainOn::Assistant)];

/// The rule for a document of more than `max_seq_length` tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverLength {
    /// Truncate it.
    Truncate,
    /// Split it into several documents.
    Split,
    /// Drop it.
    Drop,
    /// Fail before the run starts.
    Error,
}

const OVER_LENGTH: [(&str, OverLength); 4] = [
    ("truncate", OverLength::Truncate),
    ("split", OverLength::Split),
    ("drop", OverLength::Drop),
    ("error", OverLength::Error),
];

/// How documents share a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackingStrategy {
    /// Best-fit decreasing: the longest first, each into the fullest row with room. No document is cut.
    Bfd,
    /// Documents are joined by end tokens and cut at the end of each row.
    Wrapped,
}

const PACKING: [(&str, PackingStrategy); 2] = [("bfd", PackingStrategy::Bfd), ("wrapped", PackingStrategy::Wrapped)];

/// `test_size`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum TestSize {
    /// A share of the rows, above 0 and below 1.
    Share(f64),
    /// A number of rows.
    Rows(usize),
}

/// The section `[data]`. An optional field that is None is not in the recipe; the data layer then chooses a default and
/// reports it.
#[derive(Clone, PartialEq, Debug)]
pub struct DataConfig {
    /// Files, a data set folder, or one hub id; empty only where a command needs no data.
    pub dataset: Vec<String>,
    /// A split with an optional slice: `train[:10%]`.
    pub split: String,
    /// A separate data set for evaluation.
    pub eval_dataset: Vec<String>,
    /// The split that is evaluated on.
    pub eval_split: Option<String>,
    /// The part of the training split that is held out for evaluation.
    pub test_size: Option<TestSize>,
    /// `shuffle(seed)` before `select`.
    pub shuffle_seed: Option<u64>,
    /// Use only this many rows, from the first.
    pub select: Option<usize>,
    /// Evaluate on at most this many rows.
    pub max_eval_samples: Option<usize>,
    /// The layout of records; None: recognized by the columns.
    pub format: Option<TextFormat>,
    /// The column with the text (or the conversation).
    pub text_column: Option<String>,
    /// A Jinja template over the record.
    pub template: Option<String>,
    /// The texts that mark a user's and an assistant's part.
    pub role_markers: Option<[String; 2]>,
    /// The tokens that are trained; None: the format decides, usually all.
    pub train_on: Option<TrainOn>,
    /// A Jinja template over the messages that replaces the model's, or the name of one
    /// ([`chat_templates`](super::chat_templates)).
    pub chat_template: Option<String>,
    /// Variables of the chat template, such as Llama 3.2's `date_string`.
    pub chat_template_kwargs: Table,
    /// Whether literal special tokens such as `</s>` in `template` or the text column are tokens.
    pub special_in_template: bool,
    /// Whether a document begins with the begin token.
    pub add_bos_token: Option<bool>,
    /// Whether a document ends with the end token.
    pub add_eos_token: Option<bool>,
    /// The tokenizer's `legacy` behavior after special tokens.
    pub legacy: Option<bool>,
    /// The tokenizer's `model_max_length`.
    pub model_max_length: Option<usize>,
    /// The most tokens of a row.
    pub max_seq_length: Option<usize>,
    /// The rule for longer documents.
    pub over_length: OverLength,
    /// Put several documents into one row; attention does not cross them.
    pub packing: bool,
    /// How documents are packed.
    pub packing_strategy: PackingStrategy,
    /// Put rows of similar length into one batch.
    pub group_by_length: bool,
}

impl DataConfig {
    /// Reads the section. Errors if two keys contradict each other; errors about values are kept in `raw`.
    pub(super) fn read(raw: &Raw) -> Result<Self> {
        let (template, chat_template) = templates(raw);
        let data = Self {
            dataset: raw.texts("dataset").unwrap_or_default(),
            split: raw.text("split").unwrap_or("train".into()),
            eval_dataset: raw.texts("eval_dataset").unwrap_or_default(),
            eval_split: raw.text("eval_split"),
            test_size: test_size(raw),
            shuffle_seed: raw.count("shuffle_seed", 0).map(|n| n as u64),
            select: raw.count("select", 1),
            max_eval_samples: raw.count("max_eval_samples", 1),
            format: raw.choice("format", &FORMATS),
            text_column: raw.text("text_column"),
            template,
            role_markers: role_markers(raw),
            train_on: raw.choice("train_on", &TRAIN_ON),
            chat_template,
            chat_template_kwargs: raw.table("chat_template_kwargs").unwrap_or_default(),
            special_in_template: raw.flag("special_in_template").unwrap_or(false),
            add_bos_token: raw.flag("add_bos_token"),
            add_eos_token: raw.flag("add_eos_token"),
            legacy: raw.flag("legacy"),
            model_max_length: raw.count("model_max_length", 1),
            max_seq_length: raw.size("max_seq_length", 2),
            over_length: raw.choice("over_length", &OVER_LENGTH).unwrap_or(OverLength::Truncate),
            packing: raw.flag("packing").unwrap_or(false),
            packing_strategy: raw.choice("packing_strategy", &PACKING).unwrap_or(PackingStrategy::Bfd),
            group_by_length: raw.flag("group_by_length").unwrap_or(false),
        };
        data.check(raw)?;
        Ok(data)
    }

    fn check(&self, raw: &Raw) -> Result<()> {
        match (&self.template, self.format) {
            (None, Some(TextFormat::Template)) => {
                return Err(raw
                    .wrong("template", "format = \"template\" needs a Jinja template over the columns")
                    .hint("for instance template = \"{{ question }} {{ answer }}\""));
            }
            (Some(_), Some(format)) if format != TextFormat::Template => {
                return Err(raw.wrong("format", "there is a `template` too").hint("keep one of the two"));
            }
            _ => {}
        }
        if let (Some(_), Some(format)) = (&self.chat_template, self.format)
            && format.has_own_prompt()
        {
            return Err(raw.wrong("format", "it has a prompt of its own, so a chat template would have no effect").hint(
                "keep the chat template and remove `format`: instruction, input and output, messages and conversations \
                 are recognized",
            ));
        }
        if self.test_size.is_some() && (self.eval_split.is_some() || !self.eval_dataset.is_empty()) {
            return Err(raw
                .wrong("test_size", "there is an evaluation set already")
                .hint("keep `test_size`, or `eval_dataset` and `eval_split`"));
        }
        if self.packing && self.packing_strategy == PackingStrategy::Wrapped && self.over_length != OverLength::Truncate
        {
            return Err(raw
                .wrong("over_length", "packing_strategy = \"wrapped\" cuts documents wherever a row ends")
                .hint("remove over_length, or set packing_strategy = \"bfd\""));
        }
        if self.packing && self.group_by_length {
            return Err(raw
                .wrong("group_by_length", "packed rows are of one length")
                .hint("set packing = false or group_by_length = false"));
        }
        Ok(())
    }

    /// Whether the recipe names rows to evaluate on.
    pub fn has_eval(&self) -> bool {
        self.test_size.is_some() || self.eval_split.is_some() || !self.eval_dataset.is_empty()
    }

    /// Keys and values of the resolved recipe; None for a key without a value.
    pub(super) fn entries(&self) -> Vec<(&'static str, Option<Value>)> {
        let texts = |list: &[String]| (!list.is_empty()).then(|| Value::from(list.to_vec()));
        let text = |t: &Option<String>| t.clone().map(Value::from);
        let count = |n: Option<usize>| n.map(|n| Value::from(n as i64));
        vec![
            ("dataset", texts(&self.dataset)),
            ("split", Some(self.split.clone().into())),
            ("eval_dataset", texts(&self.eval_dataset)),
            ("eval_split", text(&self.eval_split)),
            (
                "test_size",
                self.test_size.map(|size| match size {
                    TestSize::Share(share) => share.into(),
                    TestSize::Rows(rows) => Value::from(rows as i64),
                }),
            ),
            ("shuffle_seed", self.shuffle_seed.map(|n| Value::from(n as i64))),
            ("select", count(self.select)),
            ("max_eval_samples", count(self.max_eval_samples)),
            ("format", self.format.map(|f| name(&FORMATS, f))),
            ("text_column", text(&self.text_column)),
            ("template", text(&self.template)),
            ("role_markers", self.role_markers.clone().map(|m| Value::from(m.to_vec()))),
            ("train_on", self.train_on.map(|t| name(&TRAIN_ON, t))),
            ("chat_template", text(&self.chat_template)),
            (
                "chat_template_kwargs",
                Some(&self.chat_template_kwargs).filter(|table| !table.is_empty()).map(|table| table.clone().into()),
            ),
            ("special_in_template", Some(self.special_in_template.into())),
            ("add_bos_token", self.add_bos_token.map(Value::from)),
            ("add_eos_token", self.add_eos_token.map(Value::from)),
            ("legacy", self.legacy.map(Value::from)),
            ("model_max_length", count(self.model_max_length)),
            ("max_seq_length", count(self.max_seq_length)),
            ("over_length", Some(name(&OVER_LENGTH, self.over_length))),
            ("packing", Some(self.packing.into())),
            ("packing_strategy", Some(name(&PACKING, self.packing_strategy))),
            ("group_by_length", Some(self.group_by_length.into())),
        ]
    }
}

/// Reads `template` and `chat_template`. A template name in `template`, as in LLaMA-Factory, is a chat template.
fn templates(raw: &Raw) -> (Option<String>, Option<String>) {
    let text = |key: &str| {
        let text = raw.text(key)?;
        let meaning = meaning(&text);
        if let Meaning::Constant { hint } = &meaning {
            let why = "it has no {{ expression }}, so every record would become the same text";
            raw.report(raw.wrong(key, why).hint(hint));
        }
        Some((text, meaning))
    };
    let (mut template, mut chat_template) = (None, None);
    match text("chat_template") {
        Some((_, Meaning::Named(named))) => chat_template = Some(named.name.to_string()),
        Some((text, Meaning::Text)) => chat_template = Some(text),
        _ => {}
    }
    match text("template") {
        Some((_, Meaning::Named(named))) => {
            if chat_template.as_deref().is_some_and(|other| other != named.name) {
                raw.report(raw.wrong("template", "`chat_template` says something else").hint("keep one of the two"));
            }
            chat_template = Some(named.name.to_string());
        }
        Some((text, Meaning::Text)) => template = Some(text),
        _ => {}
    }
    (template, chat_template)
}

fn test_size(raw: &Raw) -> Option<TestSize> {
    match raw.value("test_size")? {
        Value::Float(share) if *share > 0.0 && *share < 1.0 => Some(TestSize::Share(*share)),
        Value::Integer(rows) if *rows > 0 => Some(TestSize::Rows(*rows as usize)),
        _ => {
            raw.report(raw.wrong("test_size", "expected a share above 0 and below 1, or a number of rows"));
            None
        }
    }
}

fn role_markers(raw: &Raw) -> Option<[String; 2]> {
    match <[String; 2]>::try_from(raw.texts("role_markers")?) {
        Ok(pair) if pair.iter().all(|m| !m.is_empty()) && pair[0] != pair[1] => Some(pair),
        _ => {
            let error = raw.wrong("role_markers", "expected two different texts: the user's and the assistant's");
            raw.report(error.hint("for instance role_markers = [\"[INST]\", \"[/INST]\"]"));
            None
        }
    }
}
