//! Going on from a checkpoint: which one, and whether the recipe is still the same.

use super::folder::ADAPTER;
use super::place::ModelPlace;
use crate::config::keys::Section;
use crate::config::recipe::Recipe;
use crate::train::checkpoint::Checkpoint;
use crate::weights::adapter::read_config;
use halfbyte_core::error::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// How a run begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// In a folder without results of another run.
    Fresh,
    /// Results that are there are removed.
    Overwrite,
    /// From the newest complete checkpoint of the folder.
    Resume,
}

/// Keys that may change and leave the numbers as they are.
const FREE: [&str; 25] = [
    "output_dir",
    "adapter_dir",
    "run_name",
    "report_to",
    "logging_dir",
    "logging_strategy",
    "logging_steps",
    "logging_first_step",
    "eval_strategy",
    "eval_steps",
    "eval_on_start",
    "per_device_eval_batch_size",
    "max_eval_samples",
    "early_stopping_patience",
    "early_stopping_threshold",
    "sample_prompts",
    "sample_strategy",
    "sample_steps",
    "sample_max_new_tokens",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "gradient_checkpointing",
    "adapter_name_or_path",
    "device_map",
];

/// Keys that may change, but then the run is another one from here on. A folder or a data set may also have moved: what
/// is read from it is checked for itself.
const NOTED: [&str; 20] = [
    "model_name_or_path",
    "tokenizer_name_or_path",
    "revision",
    "dataset",
    "eval_dataset",
    "eval_split",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_ratio",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "loraplus_lr_ratio",
    "neftune_noise_alpha",
];

/// The checkpoint to go on from, if there is one, and lines for the report.
pub fn find(
    output: &Path,
    recipe: &Recipe,
    model: &ModelPlace,
    device: &str,
) -> Result<(Option<Checkpoint>, Vec<String>)> {
    let (found, mut notes) = Checkpoint::newest(output)?;
    let Some(checkpoint) = found else {
        let finished = output.join(ADAPTER);
        let lost = if notes.is_empty() {
            finished.exists().then(|| format!("{} is of a run without checkpoints", finished.display()))
        } else {
            Some(notes.join("; "))
        };
        if let Some(lost) = lost {
            return Err(Error::usage(format!("there is nothing to go on from: {lost}"))
                .hint("--overwrite begins anew and removes it"));
        }
        notes.push(format!("{} has no complete checkpoint: the run begins at step 1", output.display()));
        return Ok((None, notes));
    };
    let place = checkpoint.folder.display();
    notes.push(format!("resumed from {place} (step {})", checkpoint.run.state.step));
    let base = read_config(&checkpoint.folder)?.1.unwrap_or_default();
    if ModelPlace::is_dummy(&base) != model.dummy {
        return Err(Error::usage(format!("{place}: the run began with the weights of {base}, not of {}", model.name))
            .hint("give --dummy-weights if and only if it was given then"));
    }
    notes.extend(changes(&checkpoint.run.recipe, recipe).map_err(|e| e.at(place))?);
    if checkpoint.run.device != device {
        let before = &checkpoint.run.device;
        notes.push(format!("the run began on {before}, which rounds otherwise than {device}: the bits will differ"));
    }
    Ok((Some(checkpoint), notes))
}

/// What the recipe says otherwise than when the checkpoint was written.
fn changes(before: &str, now: &Recipe) -> Result<Vec<String>> {
    let parse = |text: &str| {
        text.parse::<Table>().map_err(|e| Error::input(format!("the recipe of the checkpoint cannot be read: {e}")))
    };
    let (before, now) = (parse(before)?, parse(&now.resolved_toml())?);
    let (mut refused, mut notes) = (Vec::new(), Vec::new());
    for section in Section::ALL {
        let keys = |table: &Table| table.get(section.name()).and_then(Value::as_table).cloned().unwrap_or_default();
        let (before, now) = (keys(&before), keys(&now));
        let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
        names.sort();
        names.dedup();
        for key in names {
            let (was, is) = (before.get(key), now.get(key));
            if was == is || FREE.contains(&key.as_str()) {
                continue;
            }
            let said = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            let (was, is) = (said(was), said(is));
            let change = format!("`{key}` was {was} and is now {is}");
            if NOTED.contains(&key.as_str()) {
                notes.push(change + ": this is no longer the run that began");
            } else {
                refused.push(change);
            }
        }
    }
    if !refused.is_empty() {
        return Err(Error::usage(refused.join(", "))
            .hint("a run cannot go on with that: set it back, or start a new run in another output_dir"));
    }
    Ok(notes)
}
