//! A whole run, as the `train` command does it: from a recipe to an adapter folder.
//!
//! [`prepare`] reads everything and records the program; nothing has been written then, and any mistake of the user has
//! been found. [`Prepared::start`] loads the weights, [`Run::train`] trains and saves.

use crate::config::lora::LoraConfig;
use crate::config::recipe::Recipe;
use crate::data::document::Encoder;
use crate::data::loader::{Batching, Loader};
use crate::data::open::{RunData, open_data};
use crate::run::spec::{Capacity, base_schemes, training_spec};
use crate::track::{self, Trackers};
use crate::train::arithmetic::Steps;
use crate::train::checkpoint::{SavedRun, folder_of, rotate, write_checkpoint};
use crate::train::state::TrainerState;
use crate::train::trainer::{EvalRecord, Evaluation, Event, Reply, evaluate, train};
use crate::weights::adapter::{Adapter, read_config};
use crate::weights::load::{load_base, read_adapter, write_adapter};
use crate::weights::safetensors::Checkpoint;
use crate::weights::safetensors::write_text;
use crate::weights::targets::{AdapterModule, resolve};
use folder::{LockedFolder, RunFolder, TokenizerFiles};
use halfbyte_core::device::Device;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{Model, record};
use halfbyte_core::session::Session;
use halfbyte_core::session::dummy::fill_base;
use halfbyte_core::session::init::{init_adapter, init_optimizer};
use preflight::{Preflight, parameters};
use results::{Clock, Results};
use samples::Samples;
use std::path::{Path, PathBuf};

mod fit;
mod folder;
mod place;
pub mod preflight;
pub mod results;
mod resume;
mod samples;
pub mod spec;

pub use place::ModelPlace;
pub use resume::Start;

/// The LoRA configuration of a run: the recipe's, or that of the adapter it starts from.
pub fn lora_config(recipe: &Recipe) -> Result<LoraConfig> {
    match &recipe.model.adapter {
        Some(folder) => Ok(read_config(Path::new(folder))?.0),
        None => Ok(recipe.lora.clone()),
    }
}

/// The adapted modules, with a note for each target name that matches nothing.
pub fn targets(lora: &LoraConfig, config: &ModelConfig) -> Result<(Vec<AdapterModule>, Vec<String>)> {
    let resolution = resolve(lora, config)?;
    let note = |(name, nearest): &(String, Vec<String>)| {
        format!(
            "target_modules: `{name}` matches no module of this model and is NOT trained; did you mean {}?",
            nearest.join(", ")
        )
    };
    let notes = resolution.unmatched.iter().map(note).collect();
    Ok((resolution.modules, notes))
}

/// Records the program of a training run. Without a checkpoint, a pre-quantised model's format is taken from config.json.
pub fn record_training(
    recipe: &Recipe,
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    capacity: Capacity,
) -> Result<(Model, Vec<String>)> {
    let lora = lora_config(recipe)?;
    let (modules, notes) = targets(&lora, config)?;
    let quantization = recipe.quantization.as_ref();
    let skip = quantization.map_or(&[][..], |q| &q.skip_modules);
    let base = base_schemes(config, checkpoint, quantization.map(|q| q.scheme), skip)?;
    let model = record(training_spec(recipe, config, &modules, lora.dropout, base, capacity)?)?;
    Ok((model, notes))
}

/// A run that is ready to start: data tokenised, program recorded, nothing written yet.
pub struct Prepared {
    /// The recipe.
    pub recipe: Recipe,
    /// The base model.
    pub place: ModelPlace,
    /// Its config, with what the recipe says about it.
    pub config: ModelConfig,
    /// Rows, reports, tokenizer.
    pub data: RunData,
    /// Steps, program, memory, notes.
    pub preflight: Preflight,
    lora: LoraConfig,
    modules: Vec<AdapterModule>,
    /// `None`: the weights are made up.
    checkpoint: Option<Checkpoint>,
    start: Option<Adapter>,
}

/// Reads the weights of the model and the recipe's adapter and data, and records the program.
pub fn prepare(recipe: Recipe, place: ModelPlace, progress: &dyn Fn(usize)) -> Result<Prepared> {
    let config = recipe.apply(place.config.clone())?;
    let checkpoint = place.checkpoint()?;
    let lora = lora_config(&recipe)?;
    let (modules, _) = targets(&lora, &config)?;
    let start = match &recipe.model.adapter {
        Some(folder) => {
            let adapter = Adapter::open(Path::new(folder), &config)?;
            if let Some(checkpoint) = &checkpoint {
                adapter.check_head(checkpoint, &config)?;
            }
            Some(adapter)
        }
        None => None,
    };
    let mut data = open_data(&recipe.data, &place.tokenizer()?, &config, progress)?;
    let mut preflight = Preflight::new(&recipe, &config, checkpoint.as_ref(), &mut data)?;
    preflight.notes.splice(0..0, place.notes());
    Ok(Prepared { recipe, place, config, data, preflight, lora, modules, checkpoint, start })
}

impl Prepared {
    /// The lines of trainable parameters.
    pub fn parameters(&self) -> String {
        parameters(&self.recipe, &self.config, &self.modules)
    }

    /// HF's estimate of the floating point operations that a token of training takes: six times the parameters but for
    /// the embeddings. In transformers' `num_parameters` a 4-bit weight counts in full.
    fn flos_per_token(&self) -> u64 {
        let embeddings = (self.config.vocab_size * self.config.hidden_size) as u64;
        let trainable: u64 = self.modules.iter().map(|m| m.parameters() as u64).sum();
        6 * (crate::weights::names::count(&self.config, None).parameters - embeddings + trainable)
    }

    /// Allocates on `device`, loads the base, starts the adapter or takes up that of a checkpoint. The run folder is
    /// created here.
    pub fn start(self, device: Box<dyn Device>, device_kind: &str, start: Start) -> Result<Run> {
        fit::check(&self, device.as_ref())?;
        let output = PathBuf::from(&self.recipe.training.output_dir);
        let (saved, notes) = match start {
            Start::Resume => resume::find(&output, &self.recipe, &self.place, device_kind)?,
            Start::Fresh | Start::Overwrite => (None, Vec::new()),
        };
        let flos_per_token = self.flos_per_token();
        let Prepared { recipe, place, config, data, preflight, lora, modules, checkpoint, start: adapter } = self;
        let Preflight { steps, model, .. } = preflight;
        let batching = Batching {
            batch: recipe.training.batch_size,
            accumulation: recipe.training.accumulation,
            group_by_length: recipe.data.group_by_length,
            drop_last: recipe.training.drop_last,
            packed: recipe.data.packing,
            sliding_window: config.sliding_window,
            seed: recipe.training.data_seed,
        };
        let evaluation = data.eval.map(|(dataset, _)| Evaluation {
            dataset,
            batch: recipe.training.eval_batch_size,
            packed: recipe.data.packing,
        });
        let loader = Loader::new(data.train, batching)?;
        let state = saved.as_ref().map_or_else(|| TrainerState::start(loader.position()), |s| s.run.state.clone());
        if state.step > steps.total {
            let (done, total) = (state.step, steps.total);
            return Err(Error::usage(format!("the checkpoint is of step {done}, the run has only {total}"))
                .hint("raise max_steps or num_train_epochs"));
        }
        let training = &recipe.training;
        let (special, capacity) = (recipe.data.special_in_template, model.spec.tokens);
        let new_tokens = training.sample_max_new_tokens;
        let samples = Samples::new(&training.sample_prompts, new_tokens, special, &data.encoder, capacity)?;
        let tokenizer = TokenizerFiles::read(&place.tokenizer()?)?;
        let locked = LockedFolder::new(&output, training.adapter_dir.as_deref().map(Path::new), start)?;
        let mut session = Session::planned(model, device)?;
        match &checkpoint {
            Some(checkpoint) => load_base(&mut session, checkpoint, recipe.model.dtype)?,
            None => fill_base(&mut session, recipe.training.seed)?,
        }
        init_optimizer(&mut session)?;
        match (&saved, adapter) {
            (Some(saved), _) => saved.restore(&mut session)?,
            (None, None) => init_adapter(&mut session, recipe.training.seed)?,
            (None, Some(adapter)) => write_to(&mut session, adapter)?,
        }
        // Only now: a run that could not start has removed nothing.
        let folder = locked.begin(start, saved.as_ref().map_or(0, |s| s.run.metrics_bytes))?;
        Ok(Run {
            saver: Saver {
                place,
                tokenizer,
                lora,
                modules,
                checkpoint,
                device: device_kind.into(),
                last: saved.map(|_| state.step),
            },
            recipe,
            steps,
            session,
            loader,
            evaluation,
            folder,
            samples,
            encoder: data.encoder,
            state,
            flos_per_token,
            notes,
        })
    }
}

/// Puts an adapter into the session.
fn write_to(session: &mut Session, adapter: Adapter) -> Result<()> {
    let names = adapter.modules.iter().map(|m| m.module.name.clone());
    write_adapter(session, &names.zip(adapter.weights).collect())
}

/// A started run.
pub struct Run {
    /// The recipe.
    pub recipe: Recipe,
    /// The length of the run.
    pub steps: Steps,
    /// The model on its device.
    pub session: Session,
    /// Lines for the report: what a resumed run began with.
    pub notes: Vec<String>,
    loader: Loader,
    evaluation: Option<Evaluation>,
    folder: RunFolder,
    samples: Samples,
    encoder: Encoder,
    state: TrainerState,
    flos_per_token: u64,
    saver: Saver,
}

impl Run {
    /// Trains to the end (or until `observe` says stop) and saves the adapter. Metrics go to metrics.jsonl. A run that
    /// is stopped leaves a checkpoint instead of the adapter.
    pub fn train(&mut self, mut observe: impl FnMut(&Event) -> Reply) -> Result<Results> {
        let resolved = self.recipe.resolved_toml();
        write_text(&self.folder.path().join("recipe.toml"), &resolved)?;
        let resumed = self.saver.last.map(|_| self.state.step);
        let start = track::Start { folder: self.folder.path(), recipe: &resolved, resumed };
        let trackers = Trackers::open(&self.recipe.training, start)?;
        self.folder.track(trackers);
        let clock = Clock::start(&self.state);
        if self.recipe.training.eval_on_start && self.state.step == 0 {
            self.evaluate_and_log(0, &mut observe)?;
        }
        let Run { recipe, steps, session, loader, evaluation, folder, samples, encoder, state, saver, .. } = self;
        let training = &recipe.training;
        let mut summary = train(session, loader, evaluation.as_ref(), training, steps, state, |session, event| {
            let reply = observe(&event);
            let limit = training.save_total_limit.filter(|_| !matches!(event, Event::Diverged(_)));
            match event {
                Event::Logged(record) => folder.log(&record)?,
                Event::Evaluated(record) => folder.log(&record)?,
                Event::SampleDue { step } if !training.sample_prompts.is_empty() => {
                    let record = samples.take(session, encoder, step)?;
                    folder.log(&record)?;
                    observe(&Event::Sampled(record));
                }
                Event::SaveDue(state) | Event::Diverged(state) => {
                    let step = state.step;
                    if let Some(saved) = saver.save(folder, session, recipe, state, limit)? {
                        observe(&Event::Saved { step, folder: saved });
                    }
                }
                Event::SampleDue { .. } | Event::Stepped(_) | Event::Sampled(_) | Event::Saved { .. } => {}
            }
            Ok(reply)
        })?;
        if !summary.interrupted {
            if let Some(best) = summary.best.filter(|_| training.best.load_at_end && self.state.step > 0) {
                let folder = folder_of(self.folder.path(), best.step);
                let adapter = Adapter::open(&folder, &self.session.model.spec.config)?;
                write_to(&mut self.session, adapter)?;
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
        observe: &mut impl FnMut(&Event) -> Reply,
    ) -> Result<Option<EvalRecord>> {
        let Some(record) = self.evaluate(true)? else { return Ok(None) };
        let record = EvalRecord { step, ..record };
        observe(&Event::Evaluated(record));
        self.folder.log(&record)?;
        Ok(Some(record))
    }

    /// The loss of the evaluation set, with the adapter or of the base alone; `None` if the recipe has no such set.
    pub fn evaluate(&mut self, adapter: bool) -> Result<Option<EvalRecord>> {
        match &self.evaluation {
            Some(evaluation) => evaluate(&mut self.session, evaluation, adapter, 0).map(Some),
            None => Ok(None),
        }
    }

    /// Where the adapter is written.
    pub fn adapter_folder(&self) -> &Path {
        self.recipe.training.adapter_dir.as_deref().map_or(self.folder.path(), Path::new)
    }

    /// Commands that show what the trackers were told.
    pub fn tracker_commands(&self) -> Vec<String> {
        self.folder.trackers().map_or_else(Vec::new, Trackers::commands)
    }

    /// The folder of the run.
    pub fn output_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The base model.
    pub fn model(&self) -> &ModelPlace {
        &self.saver.place
    }
}

/// Writes adapters and checkpoints.
struct Saver {
    place: ModelPlace,
    tokenizer: TokenizerFiles,
    lora: LoraConfig,
    modules: Vec<AdapterModule>,
    /// `None`: the weights are made up.
    checkpoint: Option<Checkpoint>,
    device: String,
    /// Step of the newest checkpoint.
    last: Option<usize>,
}

impl Saver {
    /// Writes a checkpoint, unless that of this step is there; then the oldest ones go until `limit` are left.
    fn save(
        &mut self,
        folder: &RunFolder,
        session: &mut Session,
        recipe: &Recipe,
        state: TrainerState,
        limit: Option<usize>,
    ) -> Result<Option<PathBuf>> {
        let (step, best) = (state.step, state.best.filter(|_| recipe.training.best.load_at_end).map(|b| b.step));
        if self.last == Some(step) {
            return Ok(None);
        }
        let run = SavedRun::new(state, recipe.resolved_toml(), self.device.clone(), folder.metrics_bytes()?);
        let fill = |session: &mut Session, folder: &Path| self.write_adapter(session, folder);
        let saved = write_checkpoint(folder.path(), session, &run, fill)?;
        self.last = Some(step);
        if let Some(limit) = limit {
            rotate(folder.path(), limit, best)?;
        }
        Ok(Some(saved))
    }

    /// Writes the adapter in PEFT's layout, and the tokenizer beside it.
    fn write_adapter(&self, session: &mut Session, folder: &Path) -> Result<()> {
        let mut found = read_adapter(session)?;
        let weights = self.modules.iter().filter_map(|m| found.remove(&m.module.name)).collect();
        let adapter = Adapter {
            config: self.lora.clone(),
            base_model: Some(self.place.name.clone()),
            modules: self.modules.clone(),
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
