//! `halfbyte inspect-data RECIPE`: shows how records become text, tokens, masks and rows, before anything is trained.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{forecast, is_colored, out};
use crate::config::recipe::Recipe;
use crate::data::loader::{Batching, Dataset, Loader};
use crate::data::open::{RunData, open_records};
use crate::data::report::{first_records, show_rows, write_texts};
use crate::disk::write::refuse_existing;
use crate::run::record::Adapted;
use crate::run::{ModelPlace, Planned};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::plan::cost::Rates;
use halfbyte_core::session::batch::Document;

/// Arguments of `halfbyte inspect-data`.
#[derive(clap::Args, Debug)]
pub struct InspectDataArgs {
    /// The recipe (TOML)
    pub recipe: PathBuf,
    /// Override a key of the recipe: --set max_seq_length=512
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Number of records and rows to show; in JSON, also of steps
    #[arg(long, default_value_t = 2)]
    pub rows: usize,
    /// Show only these rows: --row 131,25
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', conflicts_with = "rows")]
    pub row: Vec<usize>,
    /// Write the formatted text of all training records to FILE, one JSON object per line
    #[arg(long, value_name = "FILE.jsonl")]
    pub write: Option<PathBuf>,
    /// Replace the file of --write if it exists
    #[arg(long, requires = "write")]
    pub overwrite: bool,
    /// Accept the name of an architecture as the model; the recipe must set tokenizer_name_or_path
    #[arg(long)]
    pub dummy_weights: bool,
    /// Print the report as JSON, with the tokens of the first rows and the rows of the first steps
    #[arg(long, conflicts_with = "row")]
    pub json: bool,
}

/// The first `most` training rows and evaluation rows, and the rows of the first `most` steps. A row is a list of
/// documents with the labels that the loss sees; a step is a list of micro-batches of row numbers, which begin at 1.
fn first_rows(recipe: &Recipe, config: &ModelConfig, data: RunData, most: usize) -> Result<(Value, Value, Value)> {
    let batching = Batching::new(recipe, config);
    let rows = |set: &Dataset| -> Value {
        let document = |document: Document| json!({"ids": document.ids, "labels": document.labels});
        let row = |row| set.documents(row, batching.packed).map(document).collect::<Vec<_>>();
        (0..most.min(set.rows.len())).map(row).collect::<Vec<_>>().into()
    };
    let (train, eval) = (rows(&data.train), data.eval.as_ref().map(|(set, _)| rows(set)).into());
    let steps = most.min(data.report.steps.unwrap_or(0));
    let mut loader = Loader::new(data.train, batching)?;
    let micro_batches = |rows: Vec<usize>| {
        let numbers: Vec<usize> = rows.into_iter().map(|row| row + 1).collect();
        numbers.chunks(batching.batch).map(Value::from).collect::<Vec<_>>()
    };
    let steps: Vec<_> = (0..steps).map(|_| micro_batches(loader.next_step().rows)).collect();
    Ok((train, eval, steps.into()))
}

/// Runs the command.
pub fn run(args: &InspectDataArgs) -> Result<()> {
    let recipe = Recipe::open(&args.recipe, &args.set)?;
    let place = ModelPlace::open(&recipe.model, args.dummy_weights)?;
    let config = recipe.apply(place.config.clone())?;
    if let Some(file) = args.write.as_deref().filter(|_| !args.overwrite) {
        refuse_existing(file, "name another file, or give --overwrite")?;
    }
    let records = open_records(&recipe.data, &place.tokenizer()?, &config)?;
    if let Some(file) = &args.write {
        if records.train.reads(file) || records.eval.as_ref().is_some_and(|eval| eval.reads(file)) {
            return Err(Error::usage(format!("--write {}: the recipe reads this file", file.display()))
                .hint("name another file"));
        }
        write_texts(&records.train, &records.format, file)?;
    }
    // Records are shown before rows are built: if building fails, they show why.
    if !args.json && args.row.is_empty() {
        out(&first_records(&records.train, &records.format, args.rows)?);
    }
    let data = records.prepare(&|_| ())?;
    let there = data.train.rows.len();
    if let Some(row) = args.row.iter().find(|row| !(1..=there).contains(row)) {
        return Err(Error::usage(format!("--row {row}: rows are numbered 1 to {there}")).hint("choose among them"));
    }
    if !args.row.is_empty() {
        let rows = args.row.iter().map(|row| row - 1);
        out(&show_rows(&data.train, &data.encoder, rows, is_colored()));
        return Ok(());
    }
    let adapted = Adapted::resolve(&recipe, &config)?;
    let planned = Planned::new(recipe, config, adapted, None, data)?;
    let (data, plan) = (&planned.data, &planned.recorded.plan);
    let times = Rates::names().map(|name| (name, Rates::measured(name).map(|rates| planned.time(rates))));
    let eval = data.eval.as_ref().map(|(_, report)| report);
    if args.json {
        let times: serde_json::Map<_, _> = times.map(|(name, time)| (name.to_string(), json!(time))).collect();
        let mut report = json!({
            "train": data.report, "eval": eval, "memory": plan.bytes, "time": times, "notes": planned.notes,
        });
        let Planned { recipe, config, data, .. } = planned;
        let (rows, eval_rows, step_rows) = first_rows(&recipe, &config, data, args.rows)?;
        (report["rows"], report["eval_rows"], report["step_rows"]) = (rows, eval_rows, step_rows);
        out(&format!("{report:#}\n"));
        return Ok(());
    }
    out(&show_rows(&data.train, &data.encoder, 0..args.rows.min(there), is_colored()));
    out(&data.about);
    out(&data.report.text());
    out(&eval.map(|report| report.text()).unwrap_or_default());
    planned.notes.iter().for_each(|note| say!("note: {note}"));
    say!("{}", forecast::memory(&planned.recorded));
    times.for_each(|(name, time)| say!("{}", forecast::time(name, time)));
    Ok(())
}
