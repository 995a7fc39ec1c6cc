//! Prints a line after five seconds without output, for runs without a terminal.

use crate::train::records::StepRecord;
use std::time::{Duration, Instant};

/// The longest time without output, as long as steps complete.
const SILENCE: Duration = Duration::from_secs(5);

/// Time of the last printed line.
pub struct Heartbeat(Option<Instant>);

impl Heartbeat {
    /// Starts the clock. A run that is `watched` on a terminal gets no lines.
    pub fn new(watched: bool) -> Self {
        Self((!watched).then(Instant::now))
    }

    /// Restarts the clock after a printed line.
    pub fn printed(&mut self) {
        self.0 = self.0.map(|_| Instant::now());
    }

    /// The line about a finished step, if one is due.
    pub fn step(&self, r: &StepRecord) -> Option<String> {
        self.0.filter(|last| last.elapsed() >= SILENCE)?;
        let StepRecord { step, total, epoch, loss, .. } = r;
        Some(format!("step {step:5}/{total}  epoch {epoch:.2}  loss {loss:.4}  {:.1} s a step", r.time.as_secs_f64()))
    }
}
