//! A started run: trains, evaluates, and writes logs, checkpoints and the adapter.

use super::ModelPlace;
use super::folder::RunFolder;
use super::results::{Clock, Results};
use super::samples::Samples;
use super::save::{Saver, best_step};
use crate::config::recipe::Recipe;
use crate::data::document::Encoder;
use crate::data::loader::Loader;
use crate::track::{Resumed, RunDescription, Trackers};
use crate::train::checkpoint::folder_of;
use crate::train::evaluate::{Evaluation, evaluate};
use crate::train::length::Steps;
use crate::train::records::EvalRecord;
use crate::train::state::TrainerState;
use crate::train::trainer::{Reply, TrainEvent, train};
use crate::weights::adapter::Adapter;
use crate::weights::load::load_adapter;
use halfbyte_core::error::Result;
use halfbyte_core::session::Session;
use std::path::Path;

/// The inputs of a run during training.
pub(super) struct Feed {
    /// Forms micro-batches from the training rows.
    pub loader: Loader,
    /// The evaluation set, if the recipe has one.
    pub evaluation: Option<Evaluation>,
    /// The sample prompts, which the model continues from time to time.
    pub samples: Samples,
    /// The tokenizer with the recipe's settings.
    pub encoder: Encoder,
}

/// A started run.
pub struct Run {
    /// The recipe that the run follows.
    pub recipe: Recipe,
    /// Step counts of the run.
    pub steps: Steps,
    /// The model on its device.
    pub session: Session,
    /// Lines for the report about the checkpoint from which the run resumed.
    pub notes: Vec<String>,
    pub(super) feed: Feed,
    pub(super) folder: RunFolder,
    pub(super) state: TrainerState,
    pub(super) flos_per_token: u64,
    pub(super) saver: Saver,
}

impl Run {
    /// Trains to the end, or until `observe` replies [`Reply::Stop`], and logs to metrics.jsonl. At the end it writes
    /// the adapter; a stopped run writes a checkpoint instead.
    pub fn train(&mut self, mut observe: impl FnMut(&TrainEvent) -> Reply) -> Result<Results> {
        let resolved = self.recipe.resolved_toml();
        self.folder.write_recipe(&resolved)?;
        let resumed = self.saver.last.map(|last| Resumed {
            step: self.state.step,
            files: self.folder.tracker_files(),
            wandb_bytes: last.wandb_bytes,
        });
        let start = RunDescription { folder: self.folder.path(), recipe: &resolved, resumed: resumed.as_ref() };
        let trackers = Trackers::open(&self.recipe.training, start)?;
        self.folder.track(trackers)?;
        self.saver.rotate(&self.folder, &self.recipe, best_step(&self.state, &self.recipe))?;
        let clock = Clock::start(&self.state);
        if self.recipe.training.eval_on_start && self.state.step == 0 {
            self.evaluate_and_log(0, &mut observe)?;
        }
        let Run { recipe, steps, session, feed, folder, state, saver, .. } = self;
        let Feed { loader, evaluation, samples, encoder } = feed;
        let training = &recipe.training;
        let mut summary = train(session, loader, evaluation.as_ref(), training, steps, state, |session, event| {
            let reply = observe(&event);
            match event {
                TrainEvent::Logged(record) => folder.log(&record)?,
                TrainEvent::Evaluated(record) => folder.log(&record)?,
                TrainEvent::SampleDue { step } if !training.sample_prompts.is_empty() => {
                    let record = samples.take(session, encoder, step)?;
                    folder.log(&record)?;
                    observe(&TrainEvent::Sampled(record));
                }
                TrainEvent::SaveDue { state, cause } => {
                    let step = state.step;
                    if let Some(saved) = saver.save(folder, session, recipe, state, cause)? {
                        observe(&TrainEvent::Saved { step, folder: saved });
                    }
                }
                TrainEvent::SampleDue { .. }
                | TrainEvent::Stepped(_)
                | TrainEvent::Sampled(_)
                | TrainEvent::Saved { .. } => {}
            }
            Ok(reply)
        })?;
        if !summary.interrupted {
            if let Some(best) = summary.best.filter(|_| training.best.load_at_end && self.state.step > 0) {
                let folder = folder_of(self.folder.path(), best.step);
                let adapter = Adapter::open(&folder, &self.session.model.spec.config)?;
                load_adapter(&mut self.session, adapter)?;
            } else if self.state.evaluated != Some(summary.steps)
                && let Some(record) = self.evaluate_and_log(summary.steps, &mut observe)?
            {
                self.state.note_evaluation(&self.recipe.training.best, &record);
                summary.best = self.state.best;
            }
        }
        let results = clock.results(summary, &self.state, self.flos_per_token, &mut self.session);
        if !results.summary.interrupted {
            let folder = self.adapter_folder().to_path_buf();
            self.saver.write_adapter(&mut self.session, &folder)?;
        }
        results.write(&mut self.folder, &self.recipe.training, self.steps.total)?;
        Ok(results)
    }

    fn evaluate_and_log(
        &mut self,
        step: usize,
        observe: &mut impl FnMut(&TrainEvent) -> Reply,
    ) -> Result<Option<EvalRecord>> {
        let Some(record) = self.evaluate(true)? else { return Ok(None) };
        let record = EvalRecord { step, ..record };
        observe(&TrainEvent::Evaluated(record));
        self.folder.log(&record)?;
        Ok(Some(record))
    }

    /// Evaluates the model with the adapter, or the base model alone. `None` if the recipe has no evaluation set.
    pub fn evaluate(&mut self, adapter: bool) -> Result<Option<EvalRecord>> {
        match &self.feed.evaluation {
            Some(evaluation) => evaluate(&mut self.session, evaluation, adapter, 0).map(Some),
            None => Ok(None),
        }
    }

    /// The folder for the finished adapter.
    pub fn adapter_folder(&self) -> &Path {
        self.recipe.training.adapter_dir.as_deref().map_or(self.folder.path(), Path::new)
    }

    /// Commands that show or upload the trackers' files.
    pub fn tracker_commands(&self) -> Vec<String> {
        self.folder.trackers().map_or_else(Vec::new, Trackers::commands)
    }

    /// The run folder (`output_dir`).
    pub fn output_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The base model and its location.
    pub fn model(&self) -> &ModelPlace {
        &self.saver.place
    }
}
