//! Starts a prepared run: loads the weights to the device and opens the run folder.

use super::files::RunStart;
use super::folder::LockedFolder;
use super::prepare::{Planned, Prepared};
use super::record::Recorded;
use super::resume;
use super::samples::Samples;
use super::save::{Last, Saver, TokenizerFiles};
use super::train::{Feed, Run};
use crate::config::recipe::Recipe;
use crate::data::loader::{Batching, Loader};
use crate::data::open::RunData;
use crate::train::checkpoint::Checkpoint as SavedRun;
use crate::train::evaluate::Evaluation;
use crate::train::length::Steps;
use crate::train::state::TrainerState;
use crate::train::trainer::learning_rates;
use crate::train::watchdog;
use crate::weights::adapter::Adapter;
use crate::weights::dummy::fill_base;
use crate::weights::identity::Identity;
use crate::weights::load::{load_adapter, load_base};
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::device::Device;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::Spec;
use halfbyte_core::session::Session;
use halfbyte_core::session::init::{init_adapter, init_optimizer};
use std::path::PathBuf;

impl Prepared {
    /// Allocates on `device`, for which [`Prepared::fit`] has planned the run, loads the base weights, and initializes the adapter or restores a checkpoint. Creates the
    /// run folder.
    pub fn start(self, device: Box<dyn Device>, start: RunStart) -> Result<Run> {
        let kind = device.about().kind.to_string();
        let Self { planned, place, checkpoint, adapter } = self;
        if planned.recipe.training.watchdog {
            watchdog::check_data(&planned.data.report)?;
        }
        let output = PathBuf::from(&planned.recipe.training.output_dir);
        let (saved, notes) = match start {
            RunStart::Resume => resume::find(&output, &planned.recipe, &place, &kind)?,
            RunStart::Fresh | RunStart::Overwrite => (None, Vec::new()),
        };
        let flos_per_token = planned.recorded.flos_per_token();
        let Planned { recipe, data, steps, recorded, .. } = planned;
        let Recorded { model, plan, adapted } = recorded;
        let feed = open_data(&recipe, data, &model.spec)?;
        let state = first_state(saved.as_ref(), &feed.loader, &steps)?;
        let tokenizer = TokenizerFiles::read(&place.tokenizer()?)?;
        learning_rates(&recipe.training, &steps)?;
        let locked = LockedFolder::new(&recipe.training, start)?;
        let mut session = Session::new(model, plan, device)?;
        let base = load_weights(&mut session, &recipe, checkpoint.as_ref(), saved.as_ref(), adapter)?;
        // Last, so that a run that fails to start removes no results.
        let folder = locked.begin(start, saved.as_ref().map(|s| &s.run.log), base)?;
        let last =
            saved.map(|s| Last { step: state.step, by_clock: s.run.by_clock, wandb_bytes: s.run.log.wandb_bytes });
        let saver = Saver { place, tokenizer, adapted, checkpoint, device: kind, last };
        Ok(Run { recipe, steps, session, notes, feed, folder, state, flos_per_token, saver })
    }
}

/// Builds the inputs of the run: the loader of training rows, the evaluation set, and the sample prompts.
fn open_data(recipe: &Recipe, data: RunData, spec: &Spec) -> Result<Feed> {
    let training = &recipe.training;
    let evaluation = data.eval.map(|(dataset, _)| Evaluation {
        dataset,
        batch: training.eval_batch_size,
        packed: recipe.data.packing,
    });
    let loader = Loader::new(data.train, Batching::new(recipe, &spec.config))?;
    let (special, new_tokens) = (recipe.data.special_in_template, training.sample_max_new_tokens);
    let samples = Samples::new(&training.sample_prompts, new_tokens, special, &data.encoder, spec.tokens)?;
    Ok(Feed { loader, evaluation, samples, encoder: data.encoder })
}

/// The initial state: that of a checkpoint, or the state before the first step.
fn first_state(saved: Option<&SavedRun>, loader: &Loader, steps: &Steps) -> Result<TrainerState> {
    let state = saved.map_or_else(|| TrainerState::start(loader.position()), |s| s.run.state.clone());
    if state.step > steps.total {
        let (done, total) = (state.step, steps.total);
        return Err(Error::usage(format!("the checkpoint is at step {done}, but the run has only {total} steps"))
            .hint("raise max_steps or num_train_epochs"));
    }
    Ok(state)
}

/// Fills the session: base weights, initial optimizer state, and the adapter of the checkpoint or the recipe or a
/// random one. A checkpoint also restores the optimizer state. Returns the identity of the base weights; `None` if they
/// are random.
fn load_weights(
    session: &mut Session,
    recipe: &Recipe,
    checkpoint: Option<&TensorFiles>,
    saved: Option<&SavedRun>,
    adapter: Option<Adapter>,
) -> Result<Option<Identity>> {
    let seed = recipe.training.seed;
    let base = match checkpoint {
        Some(checkpoint) => Some(load_base(session, checkpoint, recipe.model.dtype)?),
        None => {
            fill_base(session, seed)?;
            None
        }
    };
    if let Some(saved) = saved.filter(|saved| saved.run.base != base) {
        let what = format!("{}: the run started with other base weights of this name", saved.folder.display());
        return Err(
            Error::input(what).hint("restore the weights of the model, or start a new run in another output_dir")
        );
    }
    init_optimizer(session)?;
    match (saved, adapter) {
        (Some(saved), _) => saved.restore(session)?,
        (None, None) => init_adapter(session, seed)?,
        (None, Some(adapter)) => load_adapter(session, adapter)?,
    }
    Ok(base)
}
