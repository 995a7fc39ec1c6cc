//! Going on from a checkpoint: which one, and whether the recipe is still the same.

use super::files::ADAPTER;
use super::locate::ModelPlace;
use crate::config::keys::{Resume, Section, Use, lookup};
use crate::config::recipe::Recipe;
use crate::train::checkpoint::Checkpoint;
use crate::weights::adapter::read_config;
use halfbyte_core::error::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

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
                .hint("--overwrite starts over and removes it"));
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
            // A key that this version does not know is treated like one that may not change.
            let rule = match lookup(key).map(|key| key.used) {
                Some(Use::Used(doc)) => doc.resume,
                _ => Resume::Fixed,
            };
            if was == is || rule == Resume::Free {
                continue;
            }
            let said = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            let (was, is) = (said(was), said(is));
            let change = format!("`{key}` was {was} and is now {is}");
            if rule == Resume::Noted {
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
