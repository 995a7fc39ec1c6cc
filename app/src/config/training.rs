//! The `[training]` section: optimizer, schedule, and when to log, evaluate and save.

use toml::Value;

use super::best::BestModel;
pub use super::cadence::Cadence;
use super::raw::{Raw, name};
use halfbyte_core::error::Result;

/// The implementation that an optimizer reproduces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Formula {
    /// `torch.optim.AdamW`.
    Torch,
    /// The optimizers of bitsandbytes.
    Bitsandbytes,
}

/// The memory that holds the optimizer's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// On the device.
    Resident,
    /// In pages that may move to the host. This changes nothing on the CPU device.
    Paged,
}

/// `optim`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Optim {
    /// The implementation that it reproduces.
    pub formula: Formula,
    /// Bits of each moment: 32 or 8.
    pub bits: u8,
    /// The memory that holds the moments.
    pub placement: Placement,
}

const TORCH: Optim = Optim { formula: Formula::Torch, bits: 32, placement: Placement::Resident };
const BNB_8: Optim = Optim { formula: Formula::Bitsandbytes, bits: 8, placement: Placement::Resident };
const PAGED_8: Optim = Optim { placement: Placement::Paged, ..BNB_8 };
const PAGED_32: Optim = Optim { bits: 32, ..PAGED_8 };

/// Hugging Face's names. The first of several names of one optimizer is the one that is printed.
const OPTIMS: [(&str, Optim); 9] = [
    ("adamw_torch", TORCH),
    ("adamw_torch_fused", TORCH),
    // transformers' own AdamW; it differs only in where epsilon is added, which `optim_note` reports.
    ("adamw_hf", TORCH),
    ("adamw_8bit", BNB_8),
    ("adamw_bnb_8bit", BNB_8),
    ("paged_adamw_8bit", PAGED_8),
    ("paged_adamw_32bit", PAGED_32),
    ("paged_adamw", PAGED_32),
    ("paged_adamw_bnb_8bit", PAGED_8),
];

/// A tracker that gets the metrics in addition to metrics.jsonl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracker {
    /// TensorBoard event files.
    TensorBoard,
    /// A folder that the W&B client can sync.
    Wandb,
}

/// TRL's default for `logging_steps`. With that of `TrainingArguments`, 500, a short run would log nothing.
const LOGGING: Cadence = Cadence::Steps(10);

const TRACKERS: [(&str, Tracker); 2] = [("tensorboard", Tracker::TensorBoard), ("wandb", Tracker::Wandb)];

/// The section `[training]`. The defaults are those of `TrainingArguments`.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainingConfig {
    /// The folder for the run's files.
    pub output_dir: String,
    /// Where the adapter goes at the end; None: to `output_dir`.
    pub adapter_dir: Option<String>,
    /// The name of the run; None: made from the folder.
    pub run_name: Option<String>,
    /// `num_train_epochs`; may be a fraction.
    pub epochs: f64,
    /// `max_steps`; overrides the epochs.
    pub max_steps: Option<usize>,
    /// `per_device_train_batch_size`: rows of a micro-batch.
    pub batch_size: usize,
    /// `per_device_eval_batch_size`.
    pub eval_batch_size: usize,
    /// `gradient_accumulation_steps`.
    pub accumulation: usize,
    /// `dataloader_drop_last`.
    pub drop_last: bool,
    /// `learning_rate`: the highest, after the warmup.
    pub learning_rate: f64,
    /// `lr_scheduler_type`.
    pub schedule: String,
    /// `lr_scheduler_kwargs`.
    pub schedule_kwargs: Vec<(String, f64)>,
    /// LoRA+ (arXiv 2402.12354): factor on the learning rate of every `lora_B`; 1: none.
    pub lora_b_factor: f64,
    /// Warmup as a share of all steps; `warmup_steps` overrides it.
    pub warmup_ratio: f64,
    /// Warmup steps; below 1 a share of all steps.
    pub warmup_steps: f64,
    /// The optimizer.
    pub optim: Optim,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the first moment, β₁.
    pub adam_beta1: f64,
    /// Decay of the second moment, β₂.
    pub adam_beta2: f64,
    /// Added to the root of the second moment, ε.
    pub adam_epsilon: f64,
    /// Largest gradient norm; 0: gradients are not clipped.
    pub max_grad_norm: f64,
    /// `neftune_noise_alpha`: size of the noise on the embeddings in training; None: no noise.
    pub neftune_alpha: Option<f64>,
    /// `gradient_checkpointing`: whether blocks are recomputed in the backward pass. `None`: as far as memory demands it.
    pub checkpointing: Option<bool>,
    /// Seed of the initial adapter, of dropout and of the order of rows.
    pub seed: u64,
    /// Seed of the order of rows.
    pub data_seed: u64,
    /// How often the training loss is logged.
    pub logging: Cadence,
    /// Whether the first step is logged too.
    pub logging_first_step: bool,
    /// How often the evaluation runs.
    pub eval: Cadence,
    /// Whether the evaluation also runs before the first step.
    pub eval_on_start: bool,
    /// How the best evaluation is chosen and used.
    pub best: BestModel,
    /// Prompts that the model continues during training. They are tokenized verbatim.
    pub sample_prompts: Vec<String>,
    /// How often the prompts are continued.
    pub sample: Cadence,
    /// The most tokens of a continuation.
    pub sample_max_new_tokens: usize,
    /// How often a checkpoint is written.
    pub save: Cadence,
    /// How many checkpoints are kept; None: all.
    pub save_total_limit: Option<usize>,
    /// Unless `save` is never, a checkpoint is also written after this many minutes without one, and removed when the
    /// next one is written. 0 turns this off.
    pub save_minutes: f64,
    /// Whether a run that learns nothing stops with an error.
    pub watchdog: bool,
    /// The trackers that get the metrics in addition to metrics.jsonl.
    pub report_to: Vec<Tracker>,
    /// The folder of the TensorBoard event files; None: below `runs` of the output folder.
    pub logging_dir: Option<String>,
}

impl TrainingConfig {
    /// Reads the section. Errors if two keys contradict each other; errors about values are kept in `raw`.
    pub(super) fn read(raw: &Raw) -> Result<Self> {
        let seed = raw.count("seed", 0).unwrap_or(42) as u64;
        let logging = Cadence::read(raw, "logging_strategy", "logging_steps", "steps", LOGGING);
        // As in HF, evaluations happen at the logging steps unless `eval_steps` is given.
        let own = if raw.has("logging_steps") && logging.steps().is_some() { logging } else { Cadence::Steps(500) };
        let eval = Cadence::read(raw, "eval_strategy", "eval_steps", "no", own);
        Ok(Self {
            output_dir: raw.text("output_dir").unwrap_or("trainer_output".into()),
            adapter_dir: raw.text("adapter_dir"),
            run_name: raw.text("run_name"),
            epochs: raw.at_least("num_train_epochs", 0.0).unwrap_or(3.0),
            max_steps: max_steps(raw),
            batch_size: raw.size("per_device_train_batch_size", 1).unwrap_or(8),
            eval_batch_size: raw.size("per_device_eval_batch_size", 1).unwrap_or(8),
            accumulation: raw.size("gradient_accumulation_steps", 1).unwrap_or(1),
            drop_last: raw.flag("dataloader_drop_last").unwrap_or(false),
            learning_rate: raw.at_least("learning_rate", 0.0).unwrap_or(5e-5),
            schedule: raw.text("lr_scheduler_type").unwrap_or("linear".into()),
            schedule_kwargs: raw.numbers("lr_scheduler_kwargs").unwrap_or_default(),
            lora_b_factor: lora_b_factor(raw),
            warmup_ratio: share(raw, "warmup_ratio", 1.0).unwrap_or(0.0),
            warmup_steps: raw.at_least("warmup_steps", 0.0).unwrap_or(0.0),
            optim: raw.choice("optim", &OPTIMS).unwrap_or(TORCH),
            weight_decay: raw.at_least("weight_decay", 0.0).unwrap_or(0.0),
            adam_beta1: share(raw, "adam_beta1", 1.0 - f64::EPSILON).unwrap_or(0.9),
            adam_beta2: share(raw, "adam_beta2", 1.0 - f64::EPSILON).unwrap_or(0.999),
            adam_epsilon: raw.at_least("adam_epsilon", 0.0).unwrap_or(1e-8),
            max_grad_norm: raw.at_least("max_grad_norm", 0.0).unwrap_or(1.0),
            neftune_alpha: raw.at_least("neftune_noise_alpha", 0.0).filter(|alpha| *alpha > 0.0),
            checkpointing: raw.flag("gradient_checkpointing"),
            seed,
            data_seed: raw.count("data_seed", 0).map_or(seed, |n| n as u64),
            logging,
            logging_first_step: raw.flag("logging_first_step").unwrap_or(false),
            eval,
            eval_on_start: raw.flag("eval_on_start").unwrap_or(false),
            best: BestModel::read(raw, eval)?,
            sample: sample(raw, eval),
            sample_prompts: raw.texts("sample_prompts").unwrap_or_default(),
            sample_max_new_tokens: raw.count("sample_max_new_tokens", 1).unwrap_or(64),
            save: Cadence::read(raw, "save_strategy", "save_steps", "steps", Cadence::Steps(500)),
            save_minutes: raw.at_least("save_minutes", 0.0).unwrap_or(30.0),
            save_total_limit: raw.count("save_total_limit", 1),
            watchdog: raw.flag("watchdog").unwrap_or(true),
            report_to: report_to(raw),
            logging_dir: raw.text("logging_dir").filter(|folder| !folder.is_empty()),
        })
    }

    /// A line for the report if the optimizer differs from the one that the recipe names.
    pub(super) fn optim_note(&self, raw: &Raw) -> Option<String> {
        let is_hf = raw.value("optim").and_then(Value::as_str) == Some("adamw_hf");
        is_hf.then(|| {
            "`optim = \"adamw_hf\"` is computed as adamw_torch; the two differ in where epsilon is added".into()
        })
    }

    /// Whether logging has its default setting. A run without a terminal then also prints lines at time intervals.
    pub fn logs_by_default(&self) -> bool {
        self.logging == LOGGING
    }

    /// Keys and values of the resolved recipe; None for a key without a value.
    pub(super) fn entries(&self) -> Vec<(&'static str, Option<Value>)> {
        let count = |n: usize| Some(Value::from(n as i64));
        let kwargs: toml::Table = self.schedule_kwargs.iter().map(|(k, v)| (k.clone(), Value::from(*v))).collect();
        let trackers: Vec<Value> = self.report_to.iter().map(|t| name(&TRACKERS, *t)).collect();
        let sampled = !self.sample_prompts.is_empty();
        let mut entries = vec![
            ("output_dir", Some(self.output_dir.clone().into())),
            ("adapter_dir", self.adapter_dir.clone().map(Value::from)),
            ("run_name", self.run_name.clone().map(Value::from)),
            ("num_train_epochs", Some(self.epochs.into())),
            ("max_steps", Some(self.max_steps.map_or(Value::from(-1), |n| Value::from(n as i64)))),
            ("per_device_train_batch_size", count(self.batch_size)),
            ("per_device_eval_batch_size", count(self.eval_batch_size)),
            ("gradient_accumulation_steps", count(self.accumulation)),
            ("dataloader_drop_last", Some(self.drop_last.into())),
            ("learning_rate", Some(self.learning_rate.into())),
            ("lr_scheduler_type", Some(self.schedule.clone().into())),
            ("lr_scheduler_kwargs", (!kwargs.is_empty()).then_some(Value::Table(kwargs))),
            ("loraplus_lr_ratio", (self.lora_b_factor != 1.0).then(|| self.lora_b_factor.into())),
            ("warmup_ratio", Some(self.warmup_ratio.into())),
            ("warmup_steps", Some(self.warmup_steps.into())),
            ("optim", Some(name(&OPTIMS, self.optim))),
            ("weight_decay", Some(self.weight_decay.into())),
            ("adam_beta1", Some(self.adam_beta1.into())),
            ("adam_beta2", Some(self.adam_beta2.into())),
            ("adam_epsilon", Some(self.adam_epsilon.into())),
            ("max_grad_norm", Some(self.max_grad_norm.into())),
            ("neftune_noise_alpha", self.neftune_alpha.map(Value::from)),
            ("gradient_checkpointing", self.checkpointing.map(Value::from)),
            ("seed", Some(Value::from(self.seed as i64))),
            ("data_seed", Some(Value::from(self.data_seed as i64))),
            ("logging_strategy", Some(self.logging.strategy())),
            ("logging_steps", self.logging.steps()),
            ("logging_first_step", Some(self.logging_first_step.into())),
            ("eval_strategy", Some(self.eval.strategy())),
            ("eval_steps", self.eval.steps()),
            ("eval_on_start", Some(self.eval_on_start.into())),
            ("sample_prompts", sampled.then(|| self.sample_prompts.clone().into())),
            ("sample_strategy", sampled.then(|| self.sample.strategy())),
            ("sample_steps", self.sample.steps().filter(|_| sampled)),
            ("sample_max_new_tokens", count(self.sample_max_new_tokens).filter(|_| sampled)),
            ("save_strategy", Some(self.save.strategy())),
            ("save_steps", self.save.steps()),
            ("save_minutes", Some(self.save_minutes.into())),
            ("watchdog", Some(self.watchdog.into())),
            ("save_total_limit", self.save_total_limit.map(|n| Value::from(n as i64))),
            ("report_to", Some(Value::Array(trackers))),
            ("logging_dir", self.logging_dir.clone().map(Value::from)),
        ];
        entries.extend(self.best.entries());
        entries
    }
}

/// Reads `sample_*`. The default is after each evaluation, or after each epoch if there are no evaluations.
fn sample(raw: &Raw, eval: Cadence) -> Cadence {
    let (default, every) = match eval {
        Cadence::Steps(_) | Cadence::Share(_) => ("steps", eval),
        Cadence::Epoch | Cadence::Never => ("epoch", Cadence::Steps(500)),
    };
    let default = if raw.has("sample_steps") { "steps" } else { default };
    Cadence::read(raw, "sample_strategy", "sample_steps", default, every)
}

/// Reads `loraplus_lr_ratio`, which works as in PEFT's `create_loraplus_optimizer`.
fn lora_b_factor(raw: &Raw) -> f64 {
    let ratio = raw.at_least("loraplus_lr_ratio", 0.0).unwrap_or(1.0);
    if ratio == 0.0 {
        raw.report(raw.wrong("loraplus_lr_ratio", "expected a number above 0").hint("the paper uses 16"));
    }
    ratio
}

/// A number from 0 to `high`.
fn share(raw: &Raw, key: &str, high: f64) -> Option<f64> {
    let share = raw.at_least(key, 0.0)?;
    if share > high {
        raw.report(raw.wrong(key, "expected a share between 0 and 1"));
    }
    Some(share)
}

/// Reads `max_steps`. With −1 (HF's default) and 0, the number of epochs applies.
fn max_steps(raw: &Raw) -> Option<usize> {
    match raw.value("max_steps")? {
        Value::Integer(-1 | 0) => None,
        _ => raw.count("max_steps", 1),
    }
}

/// Reads `report_to`. Each tracker appears once, in the order of [`TRACKERS`].
fn report_to(raw: &Raw) -> Vec<Tracker> {
    let names = raw.texts("report_to").unwrap_or_default();
    let is_known = |name: &String| TRACKERS.iter().any(|(tracker, _)| tracker == name);
    match names.as_slice() {
        [one] if one == "none" => Vec::new(),
        [one] if one == "all" => TRACKERS.map(|(_, tracker)| tracker).into(),
        names => {
            if !names.iter().all(is_known) {
                raw.report(raw.wrong("report_to", "expected \"none\", \"all\", \"tensorboard\" or \"wandb\""));
            }
            TRACKERS.iter().filter(|(name, _)| names.iter().any(|n| n == name)).map(|(_, tracker)| *tracker).collect()
        }
    }
}
