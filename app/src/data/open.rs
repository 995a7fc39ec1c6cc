//! What the `[data]` section of a recipe means: which records, how they become text and tokens, how rows are made.

use crate::config::data::{DataConfig, Format as Named, PackingStrategy};
use crate::data::chat::{ChatTemplate, Layout};
use crate::data::document::{Encoder, Settings};
use crate::data::format::{Format, Shape};
use crate::data::loader::Dataset;
use crate::data::marks::RoleMarkers;
use crate::data::prepare::{Prepared, RowRules, prepare};
use crate::data::report::Report;
use crate::data::source::Source;
use crate::data::subset::{select, shuffle, train_test_split};
use crate::data::table::Table;
use crate::data::tokenizer_config::TokenizerConfig;
use crate::hub::Hub;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use std::path::Path;

/// TRL's default for `max_seq_length`, unless the tokenizer's limit is lower.
const DEFAULT_LENGTH: usize = 1024;

/// The data of a run.
pub struct RunData {
    /// For people: the splits there are, the rows taken, the columns.
    pub about: String,
    /// The training rows.
    pub train: Dataset,
    /// What was found in them.
    pub report: Report,
    /// The evaluation rows, if the recipe has any, and what was found in them.
    pub eval: Option<(Dataset, Report)>,
    /// The tokenizer as the recipe uses it.
    pub encoder: Encoder,
    /// Lines for the report.
    pub notes: Vec<String>,
}

/// Tokens of the largest micro-batch: the longest rows together. Evaluation splits its batches to fit.
pub fn largest_batch(data: &RunData, batch: usize) -> usize {
    let mut lengths = data.train.rows.lengths();
    lengths.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    let train: usize = lengths.iter().take(batch).sum();
    let eval = data.eval.as_ref().and_then(|(d, _)| d.rows.lengths().into_iter().max()).unwrap_or(0);
    train.max(eval)
}

/// The longest row: the recipe's, or TRL's default; an error if the model was not made for so many positions.
pub fn longest_row(
    data: &DataConfig,
    tokenizer: Option<&TokenizerConfig>,
    model: &ModelConfig,
) -> Result<(usize, Option<String>)> {
    let limit = data.model_max_length.or(tokenizer.and_then(|t| t.model_max_length));
    let (longest, note) = match data.max_seq_length {
        Some(longest) => (longest, None),
        None => {
            let longest = limit.unwrap_or(DEFAULT_LENGTH).min(DEFAULT_LENGTH).min(model.max_positions);
            (longest, Some(format!("max_seq_length is not given: {longest}, longer documents follow `over_length`")))
        }
    };
    if longest > model.max_positions {
        let max = model.max_positions;
        return Err(Error::usage(format!(
            "max_seq_length {longest} is longer than the model allows ({max} positions)"
        ))
        .hint(format!("set max_seq_length = {max}, or give config.json a rope_scaling")));
    }
    Ok((longest, note))
}

/// The records of a run, and how they become rows.
pub struct Records {
    /// Those trained on.
    pub train: Table,
    /// Those evaluated on.
    pub eval: Option<Table>,
    /// See [`RunData::about`].
    pub about: String,
    /// How a record becomes text.
    pub format: Format,
    /// How text becomes tokens.
    pub encoder: Encoder,
    /// How documents become rows.
    pub rules: RowRules,
    /// Lines for the report.
    pub notes: Vec<String>,
}

/// Finds the records that the recipe names, and settles how they are read.
pub fn open_records(data: &DataConfig, folder: &Path, model: &ModelConfig) -> Result<Records> {
    let hub = Hub::from_env();
    let source = Source::named(&data.dataset, &hub)?;
    let table = source.load(&data.split)?;
    let mut rows: Vec<usize> = (0..table.len()).collect();
    if let Some(seed) = data.shuffle_seed {
        rows = shuffle(rows.len(), seed);
    }
    if let Some(n) = data.select {
        rows = select(rows, n)?;
    }
    let (mut train, mut eval) = (table.subset(&rows), None);
    if let Some(size) = data.test_size {
        let (first, second) = train_test_split(rows.len(), size, data.shuffle_seed.unwrap_or(42))?;
        let pick = |part: &[usize]| table.subset(&part.iter().map(|&i| rows[i]).collect::<Vec<_>>());
        (train, eval) = (pick(&first), Some(pick(&second)));
    } else if data.has_eval() {
        let named = if data.eval_dataset.is_empty() { &data.dataset } else { &data.eval_dataset };
        let split = data.eval_split.as_deref().unwrap_or(if data.eval_dataset.is_empty() { "test" } else { "train" });
        eval = Some(Source::named(named, &hub)?.load(split)?);
    }
    if let (Some(table), Some(most)) = (&mut eval, data.max_eval_samples) {
        let kept: Vec<usize> = (0..table.len().min(most)).collect();
        *table = table.subset(&kept);
    }

    let about = about(&source, &data.split, &table, &train, eval.as_ref())?;

    let tokenizer_config = TokenizerConfig::open(folder)?;
    let settings = Settings {
        add_bos: data.add_bos_token.unwrap_or(tokenizer_config.add_bos),
        add_eos: data.add_eos_token.unwrap_or(tokenizer_config.add_eos),
        legacy: data.legacy.unwrap_or(tokenizer_config.legacy),
    };
    let mut encoder = Encoder::open(folder, &tokenizer_config, settings)?;
    let format = format(data, &train, &encoder, &tokenizer_config)?;
    // Wrapping joins documents with the end token.
    let wrapped = data.packing && data.packing_strategy == PackingStrategy::Wrapped;
    if data.add_eos_token.is_none() && (format.wants_eos() || wrapped) {
        encoder.always_end();
    }
    check_vocabulary(&encoder, model, folder)?;
    let (longest, note) = longest_row(data, Some(&tokenizer_config), model)?;
    let mut notes: Vec<String> = note.into_iter().chain(idle(data, &format)).collect();
    if wrapped {
        notes.push(
            "packing_strategy = \"wrapped\" cuts documents as TRL 0.7 does; unlike there, the documents of a row do not see each other"
                .into(),
        );
    }
    let rules =
        RowRules { longest, over_length: data.over_length, packing: data.packing.then_some(data.packing_strategy) };
    Ok(Records { train, eval, about, format, encoder, rules, notes })
}

/// What there is, and what is taken of it.
fn about(source: &Source, split: &str, table: &Table, train: &Table, eval: Option<&Table>) -> Result<String> {
    let files = |n: usize| if n == 1 { "1 file".to_string() } else { format!("{n} files") };
    let splits = source.splits().iter().map(|(name, paths)| format!("{name} ({})", files(paths.len())));
    let mut rows = format!("{} rows, {} trained on", table.len(), train.len());
    if let Some(eval) = eval {
        rows += &format!(", {} evaluated on", eval.len());
    }
    let record = table.record(0)?;
    let columns: Vec<&str> = record.columns().collect();
    let splits: Vec<String> = splits.collect();
    Ok(format!("splits: {}\n`{split}`: {rows}\ncolumns: {}\n", splits.join(", "), columns.join(", ")))
}

impl Records {
    /// Formats, encodes and packs. `progress` hears how many training records are done.
    pub fn prepare(self, progress: &dyn Fn(usize)) -> Result<RunData> {
        let Records { train, eval, about, format, encoder, rules, notes } = self;
        let train = prepare(&train, &format, &encoder, rules, progress)?;
        let report = Report::new("train", &train, rules, None);
        let eval = match eval {
            None => None,
            Some(table) => {
                let prepared: Prepared =
                    prepare(&table, &format, &encoder, rules, &|_| ()).map_err(|e| e.at("evaluation set"))?;
                let report = Report::new("eval", &prepared, rules, None);
                Some((prepared.dataset, report))
            }
        };
        Ok(RunData { about, train: train.dataset, report, eval, encoder, notes })
    }
}

/// Loads, formats, encodes and packs what the recipe names. `progress` hears how many records are done.
pub fn open_data(data: &DataConfig, folder: &Path, model: &ModelConfig, progress: &dyn Fn(usize)) -> Result<RunData> {
    open_records(data, folder, model)?.prepare(progress)
}

/// Every id that the tokenizer can give must have a row in the embedding.
fn check_vocabulary(encoder: &Encoder, model: &ModelConfig, folder: &Path) -> Result<()> {
    let pieces = encoder.tokenizer().vocab_size();
    if pieces <= model.vocab_size {
        return Ok(());
    }
    let rows = model.vocab_size;
    Err(Error::input(format!("{}: the tokenizer has {pieces} pieces, the embedding {rows} rows", folder.display()))
        .hint("the tokenizer does not belong to this model"))
}

/// How a record becomes text: as the recipe says, or as the columns suggest.
fn format(data: &DataConfig, table: &Table, encoder: &Encoder, config: &TokenizerConfig) -> Result<Format> {
    let literals = encoder.literals().clone();
    let roles = data.role_markers.clone().map(|[user, assistant]| RoleMarkers { user, assistant });
    let (special, train_on) = (data.special_in_template, data.train_on);
    if let Some(template) = &data.template {
        return Format::template(template, roles.as_ref(), literals, special, train_on);
    }
    let column = || data.text_column.clone().unwrap_or("text".into());
    let named = match (data.format, &data.text_column) {
        (Some(named), _) => named,
        (None, Some(_)) => Named::Text,
        (None, None) => guess(table)?,
    };
    let chat = |layout| Shape::Chat { column: data.text_column.clone(), layout };
    let shape = match named {
        Named::Text => return Format::column(&column(), roles, literals, special, train_on),
        Named::Template => return Err(Error::usage("format = \"template\" needs `template`")),
        Named::Alpaca => Shape::Alpaca,
        Named::Dialog => Shape::Dialog { name: column() },
        Named::MistralInstruct => chat(Layout::MistralV1),
        Named::MistralInstructV3 => chat(Layout::MistralV3),
        Named::Messages | Named::ShareGpt => {
            let source = data.chat_template.as_ref().or(config.chat_template.as_ref()).ok_or_else(|| {
                Error::usage("the model folder has no chat_template")
                    .hint("give chat_template = \"…\", or format = \"mistral-instruct\"")
            })?;
            chat(Layout::Template(Box::new(ChatTemplate::new(source, &literals, encoder.bos(), encoder.eos())?)))
        }
    };
    Ok(Format { shape, literals, special, train_on })
}

/// Keys that this way to the text has no use for.
fn idle(data: &DataConfig, format: &Format) -> Option<String> {
    let (column, roles, chat) = match &format.shape {
        Shape::Template(_) => (false, true, false),
        Shape::Column { .. } => (true, true, false),
        Shape::Alpaca => (false, false, false),
        Shape::Dialog { .. } => (true, false, false),
        Shape::Chat { layout, .. } => (true, false, matches!(layout, Layout::Template(_))),
    };
    let given = [
        ("text_column", data.text_column.is_some() && !column),
        ("role_markers", data.role_markers.is_some() && !roles),
        ("chat_template", data.chat_template.is_some() && !chat),
    ];
    let idle: Vec<&str> = given.into_iter().filter(|(_, idle)| *idle).map(|(key, _)| key).collect();
    (!idle.is_empty()).then(|| format!("`{}` has no effect: the text is made in another way", idle.join("`, `")))
}

/// The format that the first record's columns suggest.
fn guess(table: &Table) -> Result<Named> {
    if table.is_empty() {
        return Err(Error::input("the data set is empty"));
    }
    let record = table.record(0)?;
    let columns: Vec<&str> = record.columns().collect();
    let has = |name: &str| columns.contains(&name);
    match () {
        () if has("messages") => Ok(Named::Messages),
        () if has("conversations") => Ok(Named::ShareGpt),
        () if has("instruction") && has("output") => Ok(Named::Alpaca),
        () if has("text") => Ok(Named::Text),
        () => Err(Error::input(format!(
            "cannot tell what the text of a record is: its columns are {}",
            columns.join(", ")
        ))
        .hint("give text_column = \"…\", template = \"…\" or format = \"…\"")),
    }
}
