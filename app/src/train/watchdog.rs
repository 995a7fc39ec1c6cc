//! Stops runs that would finish without an error but learn nothing: all texts are equal, truncation cuts off many
//! tokens, the gradient is zero, or the adapter does not change. `watchdog = false` in the recipe turns the checks off.

use super::records::StepRecord;
use crate::data::report::Report;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Session;
use std::hash::{DefaultHasher, Hasher};

/// The number of updates without effect after which a run stops.
const UPDATES: usize = 10;

/// The largest share of all tokens that truncation may cut off.
const CUT: f64 = 0.2;

/// The end of each hint: how to override the check.
const ANYWAY: &str = "to train anyway, set watchdog = false";

/// Checks the training data before the first step.
pub fn check_data(report: &Report) -> Result<()> {
    let counts = &report.counts;
    let texts = counts.records - counts.empty;
    if texts > 1 && counts.duplicates == texts - 1 {
        return Err(Error::input(format!("all {texts} records become the same text"))
            .hint(format!("check with `halfbyte inspect-data RECIPE` that the template uses the columns; {ANYWAY}")));
    }
    let all = counts.tokens + counts.tokens_lost;
    let share = counts.tokens_cut as f64 / all.max(1) as f64;
    if share > CUT {
        let (percent, longest, median) = (100.0 * share, report.longest_row, report.median);
        let what = format!(
            "{percent:.0} % of the training tokens are lost: {} of {} records are longer than max_seq_length = {longest} \
             and are {}",
            counts.too_long, counts.records, report.over_length
        );
        return Err(Error::input(what).hint(format!(
            "raise max_seq_length (a record has {median} tokens in the median, {} at most) or set \
             over_length = \"split\"; {ANYWAY}",
            report.longest
        )));
    }
    Ok(())
}

/// Checks the updates of a run.
pub struct Watch {
    /// Hash of the adapter before the first update.
    start: u64,
    /// Number of updates so far.
    updates: usize,
    /// Number of consecutive updates whose gradient was exactly zero.
    without_gradient: usize,
}

impl Watch {
    /// Remembers the adapter of `session`.
    pub fn start(session: &mut Session) -> Result<Self> {
        Ok(Self { start: hash(session)?, updates: 0, without_gradient: 0 })
    }

    /// Checks the update of `record`, which is done. An error if the run trains nothing.
    pub fn step(&mut self, session: &mut Session, record: &StepRecord) -> Result<()> {
        if record.skipped {
            return Ok(());
        }
        // At a loss of exactly zero there is nothing left to learn, and the gradient is rightly zero.
        let dead = record.grad_norm == 0.0 && record.loss != 0.0;
        self.without_gradient = if dead { self.without_gradient + 1 } else { 0 };
        self.updates += 1;
        let step = record.step;
        if self.without_gradient == UPDATES {
            let what = format!("step {step}: the gradient was exactly 0 in {UPDATES} updates in a row");
            return Err(Error::run(format!("{what}: the loss does not depend on the adapter"))
                .hint(format!("check lora_alpha and target_modules; {ANYWAY}")));
        }
        if self.updates == UPDATES && hash(session)? == self.start {
            let cause =
                if record.learning_rate == 0.0 { "the learning rate is 0" } else { "the updates are too small" };
            return Err(Error::run(format!("step {step}: {UPDATES} updates have not changed the adapter: {cause}"))
                .hint(format!("check learning_rate and lr_scheduler_type; {ANYWAY}")));
        }
        Ok(())
    }
}

/// Hash of the adapter's f32 master copy.
fn hash(session: &mut Session) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    if let Some((master, _)) = session.model.params.master {
        hasher.write(&session.read_bytes(master)?);
    }
    Ok(hasher.finish())
}
