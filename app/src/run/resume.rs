//! Finds the checkpoint from which a run resumes, and checks that the recipe allows it.

use super::files::ADAPTER;
use super::folder::check_metrics;
use super::locate::ModelPlace;
use super::marker::Marker;
use crate::config::keys::{Resume, Section, Use, lookup};
use crate::config::recipe::Recipe;
use crate::train::checkpoint::Checkpoint;
use crate::weights::adapter::read_config;
use halfbyte_core::error::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// The newest complete checkpoint in `output`, if there is one, and lines for the report.
pub fn find(
    output: &Path,
    recipe: &Recipe,
    model: &ModelPlace,
    device: &str,
) -> Result<(Option<Checkpoint>, Vec<String>)> {
    if Marker::open(output)?.is_some_and(|marker| marker.clearing) {
        let what = format!("--overwrite was removing the results in {}: the run begins at step 1", output.display());
        return Ok((None, vec![what]));
    }
    let (found, mut notes) = Checkpoint::newest(output)?;
    let Some(checkpoint) = found else {
        let finished = output.join(ADAPTER);
        let lost = if notes.is_empty() {
            finished.exists().then(|| format!("{} comes from a run without checkpoints", finished.display()))
        } else {
            Some(notes.join("; "))
        };
        if let Some(lost) = lost {
            return Err(Error::usage(format!("there is no checkpoint to resume from: {lost}"))
                .hint("--overwrite starts over and removes it"));
        }
        notes.push(format!("{} has no complete checkpoint: the run begins at step 1", output.display()));
        return Ok((None, notes));
    };
    let place = checkpoint.folder.display();
    notes.push(format!("resumed from {place} (step {})", checkpoint.run.state.step));
    let base = read_config(&checkpoint.folder)?.1.unwrap_or_default();
    if ModelPlace::is_dummy(&base) != model.dummy {
        return Err(Error::usage(format!(
            "{place}: the run started with the weights of {base}, not of {}",
            model.name
        ))
        .hint("give --dummy-weights if and only if the original run had it"));
    }
    notes.extend(changes(&checkpoint.run.recipe, recipe).map_err(|e| e.at(place))?);
    notes.extend(check_metrics(output, &checkpoint.run.log)?);
    if checkpoint.run.device != device {
        let before = &checkpoint.run.device;
        notes
            .push(format!("the run started on {before}, which rounds differently from {device}: the bits will differ"));
    }
    Ok((Some(checkpoint), notes))
}

/// Notes on the keys that changed since the checkpoint was written. An error if a changed key rules out resuming.
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
            // A key that this version does not know must not change.
            let rule = match lookup(key).map(|key| key.used) {
                Some(Use::Used(doc)) => doc.resume,
                _ => Resume::Fixed,
            };
            if was == is || rule == Resume::Free {
                continue;
            }
            let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            let (was, is) = (shown(was), shown(is));
            let change = format!("`{key}` was {was} and is now {is}");
            if rule == Resume::Noted {
                notes.push(change + ": the run no longer matches its start");
            } else {
                refused.push(change);
            }
        }
    }
    if !refused.is_empty() {
        return Err(Error::usage(refused.join(", "))
            .hint("a run cannot resume with this change: undo it, or start a new run in another output_dir"));
    }
    Ok(notes)
}
