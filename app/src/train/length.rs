//! Counts the optimizer steps of a run, as `transformers.Trainer` does.

use crate::config::training::TrainingConfig;
use halfbyte_core::error::{Error, Result};

/// The settings of the recipe and the data set that determine the length of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Length {
    /// Rows of the training set (packed rows when packing).
    pub samples: usize,
    /// `per_device_train_batch_size`: rows of a micro-batch.
    pub batch: usize,
    /// `gradient_accumulation_steps`: micro-batches of an optimizer step.
    pub accumulation: usize,
    /// `num_train_epochs`, which may be a fraction.
    pub epochs: f64,
    /// `max_steps`, which overrides `epochs`.
    pub max_steps: Option<usize>,
    /// `dataloader_drop_last`: whether to drop a last micro-batch that is not full.
    pub drop_last: bool,
}

/// The counts that a [`Length`] determines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steps {
    /// Micro-batches of one epoch.
    pub micro_batches_per_epoch: usize,
    /// Optimizer steps of one epoch. The last one may have fewer micro-batches than the others.
    pub per_epoch: usize,
    /// Optimizer steps of the run.
    pub total: usize,
    /// Epochs that the run starts. It may end before the last one does.
    pub epochs: usize,
}

impl Length {
    /// The length of a run of this recipe over `samples` rows.
    pub fn new(training: &TrainingConfig, samples: usize) -> Self {
        Self {
            samples,
            batch: training.batch_size,
            accumulation: training.accumulation,
            epochs: training.epochs,
            max_steps: training.max_steps,
            drop_last: training.drop_last,
        }
    }

    /// The counts. An error if the run would have no step.
    pub fn steps(&self) -> Result<Steps> {
        if self.batch == 0 || self.accumulation == 0 {
            return Err(Error::usage("per_device_train_batch_size and gradient_accumulation_steps must be at least 1"));
        }
        let micro = if self.drop_last { self.samples / self.batch } else { self.samples.div_ceil(self.batch) };
        if micro == 0 {
            let why = if self.samples == 0 { "the training set is empty" } else { "drop_last leaves no micro-batch" };
            return Err(Error::input(format!("{why} ({} rows, batch {})", self.samples, self.batch)));
        }
        let per_epoch = micro.div_ceil(self.accumulation);
        let (total, epochs) = match self.max_steps {
            Some(steps) => (steps, steps.div_ceil(per_epoch)),
            None => ((self.epochs * per_epoch as f64).ceil() as usize, self.epochs.ceil() as usize),
        };
        if total == 0 {
            return Err(Error::usage("the run has no step").hint("set num_train_epochs or max_steps above 0"));
        }
        Ok(Steps { micro_batches_per_epoch: micro, per_epoch, total, epochs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Length =
        Length { samples: 1000, batch: 2, accumulation: 2, epochs: 2.0, max_steps: None, drop_last: false };

    #[test]
    fn a_thousand_samples_two_by_two_for_two_epochs_are_500_steps() {
        let steps = LENGTH.steps().unwrap();
        assert_eq!(steps, Steps { micro_batches_per_epoch: 500, per_epoch: 250, total: 500, epochs: 2 });
    }

    #[test]
    fn a_run_without_steps_is_an_error() {
        let what = |l: Length| l.steps().unwrap_err().to_string();
        assert!(what(Length { samples: 0, ..LENGTH }).contains("empty (0 rows"));
        assert!(what(Length { samples: 1, drop_last: true, ..LENGTH }).contains("drop_last"));
        assert!(what(Length { epochs: 0.0, ..LENGTH }).contains("no step"));
        assert!(what(Length { batch: 0, ..LENGTH }).contains("at least 1"));
    }
}
