//! How often logs, evaluations, samples and checkpoints happen: `*_strategy` with its `*_steps`.

use toml::Value;

use super::raw::Raw;

/// How often a repeated event happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cadence {
    /// The event does not happen.
    Never,
    /// At the end of each epoch.
    Epoch,
    /// Every n optimizer steps.
    Steps(usize),
    /// Every `share` of all steps, rounded up to whole steps.
    Share(f64),
}

const STRATEGIES: [(&str, &str); 3] = [("no", "no"), ("steps", "steps"), ("epoch", "epoch")];

impl Cadence {
    /// Reads `strategy` ("no", "steps", "epoch"; absent: `default`) and `steps` (a number of steps, or below 1 a share
    /// of all steps; absent: `every`).
    pub(super) fn read(raw: &Raw, strategy: &str, steps: &str, default: &'static str, every: Cadence) -> Cadence {
        let every = match raw.value(steps) {
            Some(Value::Float(share)) if *share > 0.0 && *share < 1.0 => Cadence::Share(*share),
            Some(Value::Float(n)) if *n >= 1.0 && n.fract() == 0.0 => Cadence::Steps(*n as usize),
            _ => raw.count(steps, 1).map_or(every, Cadence::Steps),
        };
        match raw.choice(strategy, &STRATEGIES).unwrap_or(default) {
            "no" => Cadence::Never,
            "epoch" => Cadence::Epoch,
            _ => every,
        }
    }

    /// The interval in optimizer steps in a run of `total` steps; None for [`Cadence::Never`] and [`Cadence::Epoch`].
    pub fn every(self, total: usize) -> Option<usize> {
        match self {
            Cadence::Never | Cadence::Epoch => None,
            Cadence::Steps(n) => Some(n),
            Cadence::Share(share) => Some(((share * total as f64).ceil() as usize).max(1)),
        }
    }

    /// The value of `*_strategy` in the resolved recipe.
    pub(super) fn strategy(self) -> Value {
        Value::from(match self {
            Cadence::Never => "no",
            Cadence::Epoch => "epoch",
            Cadence::Steps(_) | Cadence::Share(_) => "steps",
        })
    }

    /// The value of `*_steps` in the resolved recipe.
    pub(super) fn steps(self) -> Option<Value> {
        match self {
            Cadence::Steps(n) => Some(Value::from(n as i64)),
            Cadence::Share(share) => Some(share.into()),
            Cadence::Never | Cadence::Epoch => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up_to_whole_steps() {
        assert_eq!(Cadence::Share(0.25).every(10), Some(3));
        assert_eq!(Cadence::Share(0.01).every(10), Some(1));
        assert_eq!(Cadence::Steps(7).every(3), Some(7));
        assert_eq!((Cadence::Never.every(10), Cadence::Epoch.every(10)), (None, None));
    }
}
