//! The `[data]` section: what the data layer is told.

use toml::Value;

use super::raw::Raw;
use halfbyte_core::error::Result;

/// How a record becomes text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A column holds the text (`text_column`).
    Text,
    /// A Jinja template over the record (`template`).
    Template,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// A list of messages, through the model's chat template.
    Messages,
    /// A list of `conversations` in ShareGPT's names, through the model's chat template.
    ShareGpt,
    /// A conversation with `[INST]` as text, as Mistral-7B-Instruct v0.1 and v0.2 were trained.
    MistralInstruct,
    /// A conversation with `[INST]` as a token: v0.3 and later.
    MistralInstructV3,
    /// A text column with `[|Human|]` and `[|AI|]` turns.
    Dialog,
}

const FORMATS: [(&str, Format); 8] = [
    ("text", Format::Text),
    ("template", Format::Template),
    ("alpaca", Format::Alpaca),
    ("messages", Format::Messages),
    ("sharegpt", Format::ShareGpt),
    ("mistral-instruct", Format::MistralInstruct),
    ("mistral-instruct-v3", Format::MistralInstructV3),
    ("dialog", Format::Dialog),
];

/// Which tokens the loss sees.
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

/// What happens to a document of more than `max_seq_length` tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverLength {
    /// Its beginning is kept.
    Truncate,
    /// It becomes several documents.
    Split,
    /// It is left out.
    Drop,
    /// The run does not start.
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
    /// Best fit, longest first; no document is cut.
    Bfd,
    /// Joined by end tokens and cut at the length.
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

/// What is trained on, and how it becomes tokens. None: the recipe does not say, the data layer decides (and reports).
#[derive(Clone, PartialEq, Debug)]
pub struct DataConfig {
    /// Files, a data set folder, or one hub id; empty only where a command needs no data.
    pub dataset: Vec<String>,
    /// A split with an optional slice: `train[:10%]`.
    pub split: String,
    /// A data set of its own for evaluation.
    pub eval_dataset: Vec<String>,
    /// The split that is evaluated on.
    pub eval_split: Option<String>,
    /// Part of the training split that is held out.
    pub test_size: Option<TestSize>,
    /// `shuffle(seed)` before `select`.
    pub shuffle_seed: Option<u64>,
    /// Only the first so many rows.
    pub select: Option<usize>,
    /// Evaluation uses at most so many rows.
    pub max_eval_samples: Option<usize>,
    /// How a record becomes text.
    pub format: Option<Format>,
    /// The column with the text (or the conversation).
    pub text_column: Option<String>,
    /// A Jinja template over the record.
    pub template: Option<String>,
    /// What begins a user's and an assistant's part of a text.
    pub role_markers: Option<[String; 2]>,
    /// Which tokens the loss sees.
    pub train_on: TrainOn,
    /// A Jinja template over the messages, instead of the tokenizer's.
    pub chat_template: Option<String>,
    /// Whether literal special tokens such as `</s>` in `template` or the text column are tokens.
    pub special_in_template: bool,
    /// Whether a document begins with the begin token.
    pub add_bos_token: Option<bool>,
    /// Whether it ends with the end token.
    pub add_eos_token: Option<bool>,
    /// The tokenizer's `legacy` behaviour after special tokens.
    pub legacy: Option<bool>,
    /// The tokenizer's `model_max_length`.
    pub model_max_length: Option<usize>,
    /// The longest row.
    pub max_seq_length: Option<usize>,
    /// What happens to longer documents.
    pub over_length: OverLength,
    /// Several documents in one row, without seeing each other.
    pub packing: bool,
    /// How they are put together.
    pub packing_strategy: PackingStrategy,
    /// Rows of similar length in one batch.
    pub group_by_length: bool,
}

impl DataConfig {
    pub(super) fn read(raw: &Raw) -> Result<Self> {
        let data = Self {
            dataset: raw.texts("dataset")?.unwrap_or_default(),
            split: raw.text("split")?.unwrap_or("train".into()),
            eval_dataset: raw.texts("eval_dataset")?.unwrap_or_default(),
            eval_split: raw.text("eval_split")?,
            test_size: test_size(raw)?,
            shuffle_seed: raw.count("shuffle_seed", 0)?.map(|n| n as u64),
            select: raw.count("select", 1)?,
            max_eval_samples: raw.count("max_eval_samples", 1)?,
            format: raw.choice("format", &FORMATS)?,
            text_column: raw.text("text_column")?,
            template: raw.text("template")?,
            role_markers: role_markers(raw)?,
            train_on: raw.choice("train_on", &TRAIN_ON)?.unwrap_or(TrainOn::All),
            chat_template: raw.text("chat_template")?,
            special_in_template: raw.flag("special_in_template")?.unwrap_or(false),
            add_bos_token: raw.flag("add_bos_token")?,
            add_eos_token: raw.flag("add_eos_token")?,
            legacy: raw.flag("legacy")?,
            model_max_length: raw.count("model_max_length", 1)?,
            max_seq_length: raw.size("max_seq_length", 2)?,
            over_length: raw.choice("over_length", &OVER_LENGTH)?.unwrap_or(OverLength::Truncate),
            packing: raw.flag("packing")?.unwrap_or(false),
            packing_strategy: raw.choice("packing_strategy", &PACKING)?.unwrap_or(PackingStrategy::Bfd),
            group_by_length: raw.flag("group_by_length")?.unwrap_or(false),
        };
        data.check(raw)?;
        Ok(data)
    }

    fn check(&self, raw: &Raw) -> Result<()> {
        match (&self.template, self.format) {
            (None, Some(Format::Template)) => return Err(raw.wrong("template", "format = \"template\" needs it")),
            (Some(_), Some(format)) if format != Format::Template => {
                return Err(raw.wrong("format", "there is a `template` too").hint("keep one of the two"));
            }
            _ => {}
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

    /// Keys and values for the resolved recipe.
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
            ("train_on", Some(name(&TRAIN_ON, self.train_on))),
            ("chat_template", text(&self.chat_template)),
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

/// The name of `value` in a table of names.
pub(super) fn name<T: PartialEq>(names: &[(&'static str, T)], value: T) -> Value {
    let found = names.iter().find(|(_, v)| *v == value);
    Value::from(found.map_or("", |(name, _)| name))
}

fn test_size(raw: &Raw) -> Result<Option<TestSize>> {
    let wrong = || raw.wrong("test_size", "expected a share above 0 and below 1, or a number of rows");
    Ok(match raw.value("test_size") {
        None => None,
        Some(Value::Float(share)) if *share > 0.0 && *share < 1.0 => Some(TestSize::Share(*share)),
        Some(Value::Integer(rows)) if *rows > 0 => Some(TestSize::Rows(*rows as usize)),
        Some(_) => return Err(wrong()),
    })
}

fn role_markers(raw: &Raw) -> Result<Option<[String; 2]>> {
    let Some(markers) = raw.texts("role_markers")? else { return Ok(None) };
    match <[String; 2]>::try_from(markers) {
        Ok(pair) if pair.iter().all(|m| !m.is_empty()) && pair[0] != pair[1] => Ok(Some(pair)),
        _ => Err(raw
            .wrong("role_markers", "expected two different texts: the user's and the assistant's")
            .hint("for instance role_markers = [\"[INST]\", \"[/INST]\"]")),
    }
}
