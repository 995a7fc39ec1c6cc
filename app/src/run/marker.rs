//! `run.json` marks a run folder as one of ours, and remembers what a later start must know: which recipe.toml the run
//! wrote itself, which tracker files are its own, and whether `--overwrite` was interrupted.

use super::files::{MARKER, RECIPE};
use crate::disk::write::{is_there, write_text};
use crate::weights::identity::Identity;
use halfbyte_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The content of `run.json`.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Marker {
    /// The version of the program that wrote the file.
    pub halfbyte: String,
    /// The identity of the base weights; absent before they are loaded, and if they are random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Identity>,
    /// Whether the results in the folder are being removed. Until that is done, nothing in it is a result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clearing: bool,
    /// CRC-32 of each recipe.toml that runs wrote here. Any other one belongs to the user.
    pub recipes: Vec<u32>,
    /// The event files and W&B folders of the run, relative to the folder if they are inside of it.
    #[serde(default)]
    pub trackers: Vec<PathBuf>,
}

impl Marker {
    /// Reads the marker of `folder`; `None` if no run has started there.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(MARKER);
        if !is_there(&file) {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, e))?;
        serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::input(format!("{}: {e}", file.display()))
                .hint("this file marks the folder of a run: restore it, or choose another output_dir")
        })
    }

    /// Writes the marker to `folder`.
    pub fn save(&mut self, folder: &Path) -> Result<()> {
        self.halfbyte = env!("CARGO_PKG_VERSION").into();
        let file = folder.join(MARKER);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::system(format!("{}: {e}", file.display())))?;
        write_text(&file, &(text + "\n"))
    }

    /// Writes the resolved recipe to `folder`. The marker knows it before it is there, so that no kill makes it look
    /// like the user's.
    pub fn write_recipe(&mut self, folder: &Path, text: &str) -> Result<()> {
        let sum = crc32fast::hash(text.as_bytes());
        if !self.recipes.contains(&sum) {
            self.recipes.push(sum);
            self.save(folder)?;
        }
        write_text(&folder.join(RECIPE), text)
    }
}

/// Errors if `folder` contains a recipe.toml that no run wrote: the resolved recipe would replace it.
pub fn refuse_own_recipe(folder: &Path) -> Result<()> {
    let file = folder.join(RECIPE);
    if !is_there(&file) {
        return Ok(());
    }
    let bytes = std::fs::read(&file).map_err(|e| Error::io("read", &file, e))?;
    if Marker::open(folder)?.is_some_and(|marker| marker.recipes.contains(&crc32fast::hash(&bytes))) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} was not written by a run, or was changed since: the run would replace it",
        file.display()
    ))
    .hint("move it elsewhere and train from there, or choose another output_dir"))
}
