//! Opens the data of a recipe: finds the records, chooses their format and tokenizer, and builds rows.

use crate::config::data::{DataConfig, PackingStrategy};
use crate::data::document::{DocumentSettings, Encoder};
use crate::data::format::RecordFormatter;
use crate::data::loader::Dataset;
use crate::data::prepare::{PreparedRows, RowRules, prepare};
use crate::data::recognize::{self, first_record};
use crate::data::report::Report;
use crate::data::source::DataFiles;
use crate::data::subset::{select, shuffle, train_test_split};
use crate::data::table::{Record, Table};
use crate::data::tokenizer_config::TokenizerConfig;
use crate::hub::Hub;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use std::path::Path;

/// TRL's default for `max_seq_length`, unless the tokenizer's limit is lower.
const DEFAULT_LENGTH: usize = 1024;

/// The prepared data of a run: rows for training and evaluation, with their reports.
pub struct RunData {
    /// Text for the user: the splits of the data set, the number of rows used, the columns.
    pub about: String,
    /// The training rows.
    pub train: Dataset,
    /// The report on the training rows.
    pub report: Report,
    /// The evaluation rows and their report, if the recipe has an evaluation set.
    pub eval: Option<(Dataset, Report)>,
    /// The tokenizer with the recipe's settings.
    pub encoder: Encoder,
    /// Lines for the report.
    pub notes: Vec<String>,
}

/// Tokens of the largest possible micro-batch of training: its longest rows together. Evaluation splits its batches to
/// fit.
pub fn largest_batch(data: &RunData, batch: usize) -> usize {
    let mut lengths = data.train.rows.lengths();
    lengths.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    let train: usize = lengths.iter().take(batch).sum();
    let eval = data.eval.as_ref().and_then(|(d, _)| d.rows.lengths().into_iter().max()).unwrap_or(0);
    train.max(eval)
}

/// The length limit of a row in tokens: the recipe's, or TRL's default. Errors if the model has fewer positions.
pub fn longest_row(
    data: &DataConfig,
    tokenizer: Option<&TokenizerConfig>,
    model: &ModelConfig,
) -> Result<(usize, Option<String>)> {
    let limit = data.model_max_length.or(tokenizer.and_then(|t| t.model_max_length));
    let (longest, note) = match data.max_seq_length {
        Some(longest) => (longest, None),
        None => {
            let longest = limit.unwrap_or(DEFAULT_LENGTH).min(DEFAULT_LENGTH).min(model.longest_context());
            (longest, Some(format!("max_seq_length is not given: {longest}, longer documents follow `over_length`")))
        }
    };
    let max = model.longest_context();
    if longest > max {
        return Err(Error::usage(format!(
            "max_seq_length {longest} is longer than the model allows ({max} positions)"
        ))
        .hint(format!("set max_seq_length = {max}, or stretch the positions with `rope_scaling` in config.json")));
    }
    Ok((longest, note))
}

/// The records of a run, with everything that turns them into rows.
pub struct RunRecords {
    /// The training records.
    pub train: Table,
    /// The evaluation records, if any.
    pub eval: Option<Table>,
    /// See [`RunData::about`].
    pub about: String,
    /// Turns a record into text.
    pub format: RecordFormatter,
    /// Turns text into tokens.
    pub encoder: Encoder,
    /// The length limit and packing of rows.
    pub rules: RowRules,
    /// Lines for the report.
    pub notes: Vec<String>,
}

/// Opens the records that the recipe names, and chooses their format and tokenizer settings.
pub fn open_records(data: &DataConfig, folder: &Path, model: &ModelConfig) -> Result<RunRecords> {
    let hub = Hub::from_env();
    let source = DataFiles::named(&data.dataset, &hub)?;
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
        eval = Some(DataFiles::named(named, &hub)?.load(split)?);
    }
    if let (Some(table), Some(most)) = (&mut eval, data.max_eval_samples) {
        let kept: Vec<usize> = (0..table.len().min(most)).collect();
        *table = table.subset(&kept);
    }

    let about = about(&source, &data.split, &table, &train, eval.as_ref())?;

    let (format, encoder, tokenizer_config) = open_format(data, folder, || first_record(&train))?;
    let wrapped = data.packing && data.packing_strategy == PackingStrategy::Wrapped;
    check_vocabulary(&encoder, model, folder)?;
    let (longest, note) = longest_row(data, Some(&tokenizer_config), model)?;
    let mut notes: Vec<String> = note.into_iter().chain(recognize::notes(data, &format)).collect();
    if wrapped {
        notes.push(
            "packing_strategy = \"wrapped\" cuts documents as TRL 0.7 does; unlike in TRL, attention stays within each document \
             of a row. Steps, warm-up and schedule follow the packed rows; TRL 0.7 counts one step for each batch of records, \
             and its run ends early, when the rows are used up"
                .into(),
        );
    }
    let rules =
        RowRules { longest, over_length: data.over_length, packing: data.packing.then_some(data.packing_strategy) };
    Ok(RunRecords { train, eval, about, format, encoder, rules, notes })
}

/// Chooses the format of records and opens the tokenizer in `folder`. `first` reads the first record; it is called only
/// if the recipe sets no format, so that the columns decide.
pub fn open_format(
    data: &DataConfig,
    folder: &Path,
    first: impl Fn() -> Result<Record>,
) -> Result<(RecordFormatter, Encoder, TokenizerConfig)> {
    let config = TokenizerConfig::open(folder)?;
    let settings = DocumentSettings {
        add_bos: data.add_bos_token.unwrap_or(config.add_bos),
        add_eos: data.add_eos_token.unwrap_or(config.add_eos),
        legacy: data.legacy.unwrap_or(config.legacy),
    };
    let mut encoder = Encoder::open(folder, &config, settings)?;
    if data.add_bos_token == Some(true) {
        encoder.always_begin()?;
    }
    if data.add_eos_token == Some(true) && encoder.eos().is_none() {
        return Err(Error::usage("`add_eos_token` is true, but the tokenizer has no end token")
            .hint("name it as eos_token in tokenizer_config.json"));
    }
    let format = recognize::formatter(data, first, &encoder, &config)?;
    // Wrapping joins documents with the end token.
    let wrapped = data.packing && data.packing_strategy == PackingStrategy::Wrapped;
    if data.add_eos_token.is_none() && (format.wants_eos() || wrapped) {
        encoder.always_end();
    }
    Ok((format, encoder, config))
}

/// Describes the data set: its splits, the rows used, the columns.
fn about(source: &DataFiles, split: &str, table: &Table, train: &Table, eval: Option<&Table>) -> Result<String> {
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

impl RunRecords {
    /// Formats, encodes and packs the records. `progress` is called with the number of training records done.
    pub fn prepare(self, progress: &dyn Fn(usize)) -> Result<RunData> {
        let RunRecords { train, eval, about, format, encoder, rules, notes } = self;
        let train = prepare(&train, &format, &encoder, rules, progress)?;
        let report = Report::new("train", &train, rules, None, &encoder);
        let eval = match eval {
            None => None,
            Some(table) => {
                let prepared: PreparedRows =
                    prepare(&table, &format, &encoder, rules, &|_| ()).map_err(|e| e.at("evaluation set"))?;
                let report = Report::new("eval", &prepared, rules, None, &encoder);
                Some((prepared.dataset, report))
            }
        };
        Ok(RunData { about, train: train.dataset, report, eval, encoder, notes })
    }
}

/// Opens and prepares the data of a recipe. `progress` is called with the number of training records done.
pub fn open_data(data: &DataConfig, folder: &Path, model: &ModelConfig, progress: &dyn Fn(usize)) -> Result<RunData> {
    open_records(data, folder, model)?.prepare(progress)
}

/// Checks that every id of the tokenizer has a row in the embedding.
fn check_vocabulary(encoder: &Encoder, model: &ModelConfig, folder: &Path) -> Result<()> {
    let pieces = encoder.tokenizer().vocab_size();
    if pieces <= model.vocab_size {
        return Ok(());
    }
    let rows = model.vocab_size;
    Err(Error::input(format!(
        "{}: the tokenizer has {pieces} pieces, but the embedding has {rows} rows",
        folder.display()
    ))
    .hint("the tokenizer does not belong to this model"))
}
