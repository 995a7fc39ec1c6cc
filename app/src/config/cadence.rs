//! When something that repeats happens: `*_strategy` and `*_steps`.

use toml::Value;

use super::raw::Raw;
use halfbyte_core::error::Result;

/// When something that repeats happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cadence {
    /// Never.
    Never,
    /// At the end of each epoch.
    Epoch,
    /// Every so many optimizer steps.
    Steps(usize),
    /// Every such share of all steps, rounded up.
    Share(f64),
}

const STRATEGIES: [(&str, &str); 3] = [("no", "no"), ("steps", "steps"), ("epoch", "epoch")];

impl Cadence {
    /// Reads `*_strategy` with its `*_steps`: a number of steps, or below 1 a share of all steps.
    pub(super) fn read(raw: &Raw, strategy: &str, steps: &str, default: &'static str, every: Self) -> Result<Self> {
        let every = match raw.value(steps) {
            None => every,
            Some(Value::Float(share)) if *share > 0.0 && *share < 1.0 => Self::Share(*share),
            Some(Value::Float(n)) if *n >= 1.0 && n.fract() == 0.0 => Self::Steps(*n as usize),
            Some(_) => match raw.count(steps, 1)? {
                Some(n) => Self::Steps(n),
                None => every,
            },
        };
        Ok(match raw.choice(strategy, &STRATEGIES)?.unwrap_or(default) {
            "no" => Self::Never,
            "epoch" => Self::Epoch,
            _ => every,
        })
    }

    /// `*_strategy` for the resolved recipe.
    pub(super) fn strategy(self) -> Value {
        let name = match self {
            Self::Never => "no",
            Self::Epoch => "epoch",
            Self::Steps(_) | Self::Share(_) => "steps",
        };
        name.into()
    }

    /// `*_steps` for the resolved recipe.
    pub(super) fn steps(self) -> Option<Value> {
        match self {
            Self::Steps(n) => Some(Value::from(n as i64)),
            Self::Share(share) => Some(share.into()),
            Self::Never | Self::Epoch => None,
        }
    }

    /// Steps from one time to the next in a run of `total` steps; `None` if steps do not decide it.
    pub fn every(self, total: usize) -> Option<usize> {
        match self {
            Self::Never | Self::Epoch => None,
            Self::Steps(n) => Some(n.max(1)),
            Self::Share(share) => Some(((share * total as f64).ceil() as usize).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_steps_is_rounded_up() {
        assert_eq!(Cadence::Share(0.1).every(7), Some(1));
        assert_eq!(Cadence::Share(0.3).every(10), Some(3));
        assert_eq!(Cadence::Share(0.31).every(10), Some(4));
        assert_eq!(Cadence::Steps(4).every(10), Some(4));
        assert_eq!([Cadence::Never, Cadence::Epoch].map(|c| c.every(10)), [None, None]);
    }
}
