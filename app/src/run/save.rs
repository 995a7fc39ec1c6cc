//! Writes adapters in PEFT's layout, with the tokenizer's files, and checkpoints.

use super::ModelPlace;
use super::folder::RunFolder;
use super::record::Adapted;
use crate::config::recipe::Recipe;
use crate::disk::write::write_bytes;
use crate::train::checkpoint::{SavedRun, demote, folder_of, remove, rotate, write_checkpoint, write_diverged};
use crate::train::state::TrainerState;
use crate::train::trainer::SaveCause;
use crate::weights::adapter::Adapter;
use crate::weights::export::TOKENIZER_FILES;
use crate::weights::load::read_adapter;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Session;
use std::path::{Path, PathBuf};

/// Writes the adapters and checkpoints of a run, and removes old checkpoints.
pub(super) struct Saver {
    /// The base model and its location.
    pub place: ModelPlace,
    /// The tokenizer's files, which are written beside every adapter.
    pub tokenizer: TokenizerFiles,
    /// The LoRA configuration and the adapted modules.
    pub adapted: Adapted,
    /// The weights of the base model; `None` if they are random.
    pub checkpoint: Option<TensorFiles>,
    /// Kind of the device, which a checkpoint records.
    pub device: String,
    /// The newest checkpoint, if there is one.
    pub last: Option<Last>,
}

/// The newest checkpoint of a run.
#[derive(Clone, Copy)]
pub(super) struct Last {
    /// Optimizer steps done at the checkpoint.
    pub step: usize,
    /// Whether only `save_minutes` required it. The next checkpoint then replaces it.
    pub by_clock: bool,
    /// Bytes of the W&B log at the checkpoint.
    pub wandb_bytes: Option<u64>,
}

impl Saver {
    /// Writes a checkpoint, unless this step already has one. Then removes the previous one if only `save_minutes`
    /// required it, and the oldest ones until `save_total_limit` remain. After a divergence, the state gets a name that
    /// `--resume` does not take, and no checkpoint is removed.
    pub fn save(
        &mut self,
        folder: &mut RunFolder,
        session: &mut Session,
        recipe: &Recipe,
        state: TrainerState,
        cause: SaveCause,
    ) -> Result<Option<PathBuf>> {
        let (step, best) = (state.step, best_step(&state, recipe));
        if self.last.is_some_and(|last| last.step == step) {
            // The very state that this checkpoint holds has failed, so an older one is the newest good one.
            return if cause == SaveCause::Diverged { demote(folder.path(), step) } else { Ok(None) };
        }
        let by_clock = cause == SaveCause::Clock;
        let log = folder.flush()?;
        let wandb_bytes = log.wandb_bytes;
        let base = folder.base().cloned();
        let run = SavedRun::new(state, by_clock, recipe.resolved_toml(), self.device.clone(), log, base);
        let fill = |session: &mut Session, folder: &Path| self.write_adapter(session, folder);
        if cause == SaveCause::Diverged {
            return write_diverged(folder.path(), session, &run, fill).map(Some);
        }
        let saved = write_checkpoint(folder.path(), session, &run, fill)?;
        let before = self.last.replace(Last { step, by_clock, wandb_bytes });
        if let Some(before) = before.filter(|last| last.by_clock && Some(last.step) != best) {
            remove(&folder_of(folder.path(), before.step))?;
        }
        self.rotate(folder, recipe, best)?;
        Ok(Some(saved))
    }

    /// Removes the oldest checkpoints until `save_total_limit` remain, except that of step `best`. A resumed run does so
    /// at once, because the earlier one may have ended before its last removal.
    pub fn rotate(&self, folder: &RunFolder, recipe: &Recipe, best: Option<usize>) -> Result<()> {
        match (recipe.training.save_total_limit, self.last) {
            (Some(limit), Some(last)) => rotate(folder.path(), limit, best, last.step),
            _ => Ok(()),
        }
    }

    /// Writes the adapter in PEFT's layout, and the tokenizer's files beside it.
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

/// The step whose checkpoint must stay because its adapter may become the result.
pub(super) fn best_step(state: &TrainerState, recipe: &Recipe) -> Option<usize> {
    state.best.filter(|_| recipe.training.best.load_at_end).map(|best| best.step)
}

/// The tokenizer's files, read at the start of the run, so that later changes to the folder do not reach the adapter.
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// Reads the tokenizer's files in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let found =
            TOKENIZER_FILES.map(|name| (name, folder.join(name))).into_iter().filter(|(_, file)| file.is_file());
        let read = |(name, file): (_, PathBuf)| {
            std::fs::read(&file).map(|bytes| (name, bytes)).map_err(|e| Error::io("read", &file, e))
        };
        found.map(read).collect::<Result<_>>().map(Self)
    }

    /// Writes the files beside the adapter in `folder`, so that the adapter can be used without the base's folder. A
    /// file with the same content stays untouched, because the folder may be the tokenizer's own.
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
