//! Writes what a run leaves behind: adapters in PEFT's layout, the tokenizer beside them, checkpoints.

use super::ModelPlace;
use super::folder::RunFolder;
use super::record::Adapted;
use crate::config::recipe::Recipe;
use crate::train::checkpoint::{SavedRun, folder_of, remove, rotate, write_checkpoint};
use crate::train::state::TrainerState;
use crate::train::trainer::SaveCause;
use crate::weights::adapter::Adapter;
use crate::weights::export::TOKENIZER_FILES;
use crate::weights::load::read_adapter;
use crate::weights::safetensors::{Checkpoint, write_bytes};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Session;
use std::path::{Path, PathBuf};

/// Writes adapters and checkpoints.
pub(super) struct Saver {
    /// The base model.
    pub place: ModelPlace,
    /// What is written beside an adapter.
    pub tokenizer: TokenizerFiles,
    /// What the adapter adapts.
    pub adapted: Adapted,
    /// The weights of the base; `None`: they are made up.
    pub checkpoint: Option<Checkpoint>,
    /// The kind of device.
    pub device: String,
    /// The newest checkpoint.
    pub last: Option<Last>,
}

/// The newest checkpoint of a run.
#[derive(Clone, Copy)]
pub(super) struct Last {
    /// Its step.
    pub step: usize,
    /// Only time asked for it: it goes when the next one is there.
    pub by_clock: bool,
}

impl Saver {
    /// Writes a checkpoint, unless that of this step is there. Then those go that are no longer wanted: the one before, if
    /// only time had asked for it, and the oldest until `save_total_limit` are left.
    pub fn save(
        &mut self,
        folder: &RunFolder,
        session: &mut Session,
        recipe: &Recipe,
        state: TrainerState,
        cause: SaveCause,
    ) -> Result<Option<PathBuf>> {
        let (step, best) = (state.step, state.best.filter(|_| recipe.training.best.load_at_end).map(|b| b.step));
        if self.last.is_some_and(|last| last.step == step) {
            return Ok(None);
        }
        let by_clock = cause == SaveCause::Clock;
        let bytes = folder.metrics_bytes()?;
        let run = SavedRun::new(state, by_clock, recipe.resolved_toml(), self.device.clone(), bytes);
        let fill = |session: &mut Session, folder: &Path| self.write_adapter(session, folder);
        let saved = write_checkpoint(folder.path(), session, &run, fill)?;
        let before = self.last.replace(Last { step, by_clock });
        if cause == SaveCause::Diverged {
            return Ok(Some(saved));
        }
        if let Some(before) = before.filter(|last| last.by_clock && Some(last.step) != best) {
            remove(&folder_of(folder.path(), before.step))?;
        }
        if let Some(limit) = recipe.training.save_total_limit {
            rotate(folder.path(), limit, best)?;
        }
        Ok(Some(saved))
    }

    /// Writes the adapter in PEFT's layout, and the tokenizer beside it.
    pub fn write_adapter(&self, session: &mut Session, folder: &Path) -> Result<()> {
        let mut found = read_adapter(session)?;
        let weights = self.adapted.modules.iter().filter_map(|m| found.remove(&m.module.name)).collect();
        let adapter = Adapter {
            config: self.adapted.lora.clone(),
            base_model: Some(self.place.name.clone()),
            modules: self.adapted.modules.clone(),
            weights,
            head: None,
        };
        let tied = session.model.spec.config.tied;
        let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let head = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.get(head));
        adapter.save(folder, head.as_ref())?;
        self.tokenizer.write(folder)
    }
}

/// The files of a tokenizer, kept from the start of the run: what is saved at its end is what it was trained with.
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// Reads those that `folder` has.
    pub fn read(folder: &Path) -> Result<Self> {
        let found =
            TOKENIZER_FILES.map(|name| (name, folder.join(name))).into_iter().filter(|(_, file)| file.is_file());
        let read = |(name, file): (_, PathBuf)| {
            std::fs::read(&file).map(|bytes| (name, bytes)).map_err(|e| Error::io("read", &file, e))
        };
        found.map(read).collect::<Result<_>>().map(Self)
    }

    /// Writes them beside the adapter in `folder`, so that it can be used alone. A file that is there already stays
    /// untouched: the folder may be the tokenizer's own.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (name, bytes) in &self.0 {
            let file = folder.join(name);
            if std::fs::read(&file).ok().as_ref() != Some(bytes) {
                write_bytes(&file, bytes)?;
            }
        }
        Ok(())
    }
}
