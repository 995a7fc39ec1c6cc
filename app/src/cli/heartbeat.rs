//! Signs of life of a run that nobody watches on a terminal: a line after five seconds without one.

use crate::train::records::StepRecord;
use std::time::{Duration, Instant};

/// The longest silence while steps come.
const SILENCE: Duration = Duration::from_secs(5);

/// When the last line was printed.
pub struct Heartbeat(Option<Instant>);

impl Heartbeat {
    /// Counts from now on, unless the run is `watched` otherwise.
    pub fn new(watched: bool) -> Self {
        Self((!watched).then(Instant::now))
    }

    /// A line has been printed.
    pub fn printed(&mut self) {
        self.0 = self.0.map(|_| Instant::now());
    }

    /// The line about a step that is done, if it is time for one.
    pub fn step(&self, r: &StepRecord) -> Option<String> {
        self.0.filter(|last| last.elapsed() >= SILENCE)?;
        let StepRecord { step, total, epoch, loss, .. } = r;
        Some(format!("step {step:5}/{total}  epoch {epoch:.2}  loss {loss:.4}  {:.1} s a step", r.time.as_secs_f64()))
    }
}
