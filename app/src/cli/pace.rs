//! Estimates the remaining time of a run from its own steps.

use crate::run::forecast::Time;
use std::time::Duration;

/// Steps measured before an estimate is printed. The first step of a run is not measured, because it warms up caches.
const CALIBRATION: usize = 5;

/// The estimate is the mean of this many last steps, so that it follows the load of the machine.
const WINDOW: usize = 50;

/// The measured step times of one run.
pub struct Pace {
    /// Optimizer steps of the whole run.
    total: usize,
    /// Evaluations that are not done yet.
    evaluations: usize,
    /// Predicted time of an evaluation divided by that of a step. The prediction knows this ratio, but not a CPU's
    /// speed.
    ratio: f64,
    /// Optimizer steps done, including those before a resume.
    done: usize,
    /// Seconds of each of the last steps, without the first step of the run.
    recent: Vec<f64>,
}

impl Pace {
    /// The pace of a run of `total` steps with the relative costs of `predicted`.
    pub fn new(total: usize, predicted: Option<Time>) -> Self {
        let (evaluations, ratio) = predicted.map_or((0, 0.0), |t| (t.evaluations, t.evaluation / t.step));
        Self { total, evaluations, ratio, done: 0, recent: Vec::new() }
    }

    /// Records that step `step` took `time`.
    pub fn step(&mut self, step: usize, time: Duration) {
        let first = self.done == 0;
        self.done = step;
        if !first {
            if self.recent.len() == WINDOW {
                self.recent.remove(0);
            }
            self.recent.push(time.as_secs_f64());
        }
    }

    /// Records that an evaluation is done.
    pub fn evaluated(&mut self) {
        self.evaluations = self.evaluations.saturating_sub(1);
    }

    /// Mean seconds per step; None until enough steps are measured.
    pub fn seconds_per_step(&self) -> Option<f64> {
        let measured = self.recent.len() >= CALIBRATION.min(self.total.saturating_sub(1)) && !self.recent.is_empty();
        measured.then(|| self.recent.iter().sum::<f64>() / self.recent.len() as f64)
    }

    /// Seconds until the end of the run; None until enough steps are measured.
    pub fn remaining(&self) -> Option<f64> {
        let step = self.seconds_per_step()?;
        Some(step * ((self.total - self.done.min(self.total)) as f64 + self.evaluations as f64 * self.ratio))
    }

    /// Whether this step is the first one with an estimate.
    pub fn just_known(&self) -> bool {
        self.recent.len() == CALIBRATION && self.done < self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow first step, then steps of 200 ms ± 10 %, and an evaluation of two steps' length at the end.
    #[test]
    fn the_forecast_is_within_a_quarter_as_soon_as_it_exists() {
        let predicted = Time { step: 1.0, training: 40.0, evaluations: 1, evaluation: 2.0 };
        let mut pace = Pace::new(40, Some(predicted));
        let seconds = |step: usize| if step == 1 { 3.0 } else { 0.2 + 0.02 * ((step % 3) as f64 - 1.0) };
        for step in 1..=40 {
            pace.step(step, Duration::from_secs_f64(seconds(step)));
            let truth = (step + 1..=40).map(seconds).sum::<f64>() + 0.4;
            match pace.remaining() {
                None => assert!(step <= CALIBRATION),
                Some(left) => {
                    assert!(step > CALIBRATION && (left / truth - 1.0).abs() < 0.25, "{step}: {left} {truth}")
                }
            }
        }
        pace.evaluated();
        assert_eq!(pace.remaining(), Some(0.0));
    }

    #[test]
    fn a_run_of_one_step_has_no_pace() {
        let mut pace = Pace::new(1, None);
        pace.step(1, Duration::from_secs(1));
        assert_eq!(pace.remaining(), None);
    }
}
