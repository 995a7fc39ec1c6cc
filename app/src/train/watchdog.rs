//! A watch over runs that end well and have learned nothing: texts that are all the same, tokens that truncation has cut
//! off, a gradient of zero, an adapter that does not change. Such a run stops with the reason, unless the recipe says
//! `watchdog = false`.

use super::records::StepRecord;
use crate::data::report::Report;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Session;
use std::hash::{DefaultHasher, Hasher};

/// After so many updates without effect a run stops.
const UPDATES: usize = 10;

/// The largest share of the tokens that truncation may cut off.
const CUT: f64 = 0.2;

/// How each error says that it can be overridden.
const ANYWAY: &str = "to train anyway, set watchdog = false";

/// Checks the training data before the first step.
pub fn check_data(report: &Report) -> Result<()> {
    let counts = &report.counts;
    let texts = counts.records - counts.empty;
    if texts > 1 && counts.duplicates == texts - 1 {
        return Err(Error::input(format!("all {texts} records become the same text"))
            .hint(format!("does the template use the columns? look: halfbyte inspect-data RECIPE; {ANYWAY}")));
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

/// The watch over the first updates of a run.
pub struct Watch {
    /// A hash of the adapter as it was at the start.
    start: u64,
    /// Updates made.
    updates: usize,
    /// Updates in a row whose gradient was exactly zero.
    without_gradient: usize,
}

impl Watch {
    /// Takes down the adapter of `session`.
    pub fn start(session: &mut Session) -> Result<Self> {
        Ok(Self { start: hash(session)?, updates: 0, without_gradient: 0 })
    }

    /// Looks at the update of `record`, which is done; an error if nothing is being trained.
    pub fn step(&mut self, session: &mut Session, record: &StepRecord) -> Result<()> {
        if record.skipped {
            return Ok(());
        }
        // A loss of exactly zero has no gradient: there is nothing left to learn.
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

/// A hash of the adapter in full precision.
fn hash(session: &mut Session) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    if let Some((master, _)) = session.model.params.master {
        hasher.write(&session.read_bytes(master)?);
    }
    Ok(hasher.finish())
}
