//! The learning rate of every step: the schedules of `transformers.optimization`, computed in f64 as Python does.
//!
//! A schedule is a factor on `learning_rate`. It rises linearly over the first `warmup` steps, from 0 at step 0. After
//! that it follows the [`ScheduleKind`]. `constant` is the exception: it ignores the warm-up.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use crate::suggest::nearest;
use halfbyte_core::error::{Error, Result};

/// `lr_scheduler_type` with its `lr_scheduler_kwargs`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ScheduleKind {
    /// 1 from the first step, without a warm-up.
    Constant,
    /// 1 after the warm-up.
    ConstantWithWarmup,
    /// Falls linearly to 0.
    Linear,
    /// Follows `num_cycles` cosine waves; 0.5 falls to 0 once.
    Cosine {
        /// Number of cosine waves, which may be a fraction.
        num_cycles: f64,
    },
    /// Falls to 0 `num_cycles` times and jumps back to 1 in between.
    CosineWithRestarts {
        /// Number of falls to 0.
        num_cycles: f64,
    },
    /// As `Cosine`, but falls to `floor` instead of 0.
    CosineWithMinLr {
        /// The lowest learning rate.
        floor: MinLr,
        /// Number of cosine waves, which may be a fraction.
        num_cycles: f64,
    },
    /// Falls to the learning rate `lr_end` as a power of the remaining share of the steps.
    Polynomial {
        /// The final learning rate itself, not a factor.
        lr_end: f64,
        /// Exponent of the remaining share; 1 is linear.
        power: f64,
    },
    /// Falls as 1 / √step. The time scale is the number of warm-up steps, or 10,000 without a warm-up.
    InverseSqrt,
}

/// The lowest learning rate of `cosine_with_min_lr`, in one of its two forms.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MinLr {
    /// `min_lr`: the learning rate itself.
    Rate(f64),
    /// `min_lr_rate`: a share of `learning_rate`.
    Share(f64),
}

/// The argument of `inverse_sqrt` that transformers accepts but never passes on (`get_scheduler`). It has no effect here
/// either.
pub const TIMESCALE: &str = "timescale";

/// The names that [`ScheduleKind::parse`] knows, with their keyword arguments.
const NAMES: [(&str, &[&str]); 8] = [
    ("constant", &[]),
    ("constant_with_warmup", &[]),
    ("linear", &[]),
    ("cosine", &["num_cycles"]),
    ("cosine_with_restarts", &["num_cycles"]),
    ("cosine_with_min_lr", &["min_lr", "min_lr_rate", "num_cycles"]),
    ("polynomial", &["lr_end", "power"]),
    ("inverse_sqrt", &[TIMESCALE]),
];

impl ScheduleKind {
    /// Whether the schedule has a warm-up.
    pub fn warms_up(self) -> bool {
        self != ScheduleKind::Constant
    }

    /// Parses `lr_scheduler_type` and `lr_scheduler_kwargs`. A missing argument gets HF's default.
    pub fn parse(name: &str, kwargs: &BTreeMap<String, f64>) -> Result<ScheduleKind> {
        let Some((_, known)) = NAMES.iter().find(|(n, _)| *n == name) else {
            let names = NAMES.map(|(n, _)| n);
            let hint = match nearest(name, names) {
                Some(n) => format!("did you mean `{n}`?"),
                None => format!("one of {}", names.join(", ")),
            };
            return Err(Error::usage(format!("unknown lr_scheduler_type `{name}`")).hint(hint));
        };
        if let Some(key) = kwargs.keys().find(|k| !known.contains(&k.as_str())) {
            let takes = if known.is_empty() { "no arguments".into() } else { known.join(", ") };
            return Err(Error::usage(format!("lr_scheduler_kwargs: unknown argument `{key}`"))
                .hint(format!("`{name}` takes {takes}")));
        }
        let given = |key: &str| kwargs.get(key).copied();
        let num_cycles = |default| given("num_cycles").unwrap_or(default);
        Ok(match name {
            "constant" => ScheduleKind::Constant,
            "constant_with_warmup" => ScheduleKind::ConstantWithWarmup,
            "linear" => ScheduleKind::Linear,
            "cosine" => ScheduleKind::Cosine { num_cycles: num_cycles(0.5) },
            "cosine_with_restarts" => ScheduleKind::CosineWithRestarts { num_cycles: num_cycles(1.0) },
            "cosine_with_min_lr" => {
                let floor = match (given("min_lr"), given("min_lr_rate")) {
                    (Some(rate), None) => MinLr::Rate(rate),
                    (None, Some(share)) => MinLr::Share(share),
                    _ => {
                        return Err(Error::usage("cosine_with_min_lr needs a lowest learning rate, given once")
                            .hint("give either min_lr or min_lr_rate in lr_scheduler_kwargs"));
                    }
                };
                ScheduleKind::CosineWithMinLr { floor, num_cycles: num_cycles(0.5) }
            }
            "polynomial" => ScheduleKind::Polynomial {
                lr_end: given("lr_end").unwrap_or(1e-7),
                power: given("power").unwrap_or(1.0),
            },
            _ => ScheduleKind::InverseSqrt,
        })
    }
}

/// Warm-up steps of a run of `total` steps. A `warmup_steps` of at least 1 is a number of steps; between 0 and 1 it is
/// a share of `total`, as in transformers 5. Either overrides `warmup_ratio`. Shares are rounded up.
pub fn warmup_steps(total: usize, warmup_steps: f64, warmup_ratio: f64) -> usize {
    match warmup_steps {
        steps if steps >= 1.0 => steps as usize,
        share if share > 0.0 => (total as f64 * share).ceil() as usize,
        _ => (total as f64 * warmup_ratio).ceil() as usize,
    }
}

/// The learning-rate schedule of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// The course of the learning rate after the warm-up.
    pub shape: ScheduleKind,
    /// `learning_rate`: the peak.
    pub learning_rate: f64,
    /// Number of warm-up steps.
    pub warmup: usize,
    /// Optimizer steps of the run.
    pub total: usize,
}

impl Schedule {
    /// A schedule over `total` steps. An error if its parameters contradict each other.
    pub fn new(shape: ScheduleKind, learning_rate: f64, warmup: usize, total: usize) -> Result<Schedule> {
        if let ScheduleKind::Polynomial { lr_end, .. } = shape
            && lr_end >= learning_rate
        {
            return Err(Error::usage(format!("lr_end {lr_end} is not below learning_rate {learning_rate}"))
                .hint("lower lr_end in lr_scheduler_kwargs"));
        }
        Ok(Schedule { shape, learning_rate, warmup, total })
    }

    /// The learning rate of optimizer step `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        self.learning_rate * self.factor(step)
    }

    /// The learning rates of all `total` steps.
    pub fn table(&self) -> Vec<f64> {
        (0..self.total).map(|step| self.rate(step)).collect()
    }

    fn factor(&self, step: usize) -> f64 {
        if !self.shape.warms_up() {
            return 1.0;
        }
        let (step, warmup, total) = (step as f64, self.warmup as f64, self.total as f64);
        if step < warmup {
            return step / warmup;
        }
        let progress = (step - warmup) / (total - warmup).max(1.0);
        let wave = |num_cycles: f64| 0.5 * (1.0 + (PI * num_cycles * 2.0 * progress).cos());
        match self.shape {
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup => 1.0,
            ScheduleKind::Linear => ((total - step) / (total - warmup).max(1.0)).max(0.0),
            ScheduleKind::Cosine { num_cycles } => wave(num_cycles).max(0.0),
            ScheduleKind::CosineWithRestarts { .. } if progress >= 1.0 => 0.0,
            ScheduleKind::CosineWithRestarts { num_cycles } => {
                0.5 * (1.0 + (PI * ((num_cycles * progress) % 1.0)).cos())
            }
            ScheduleKind::CosineWithMinLr { floor, num_cycles } => {
                let floor = match floor {
                    MinLr::Rate(rate) => rate / self.learning_rate,
                    MinLr::Share(share) => share,
                };
                (wave(num_cycles) * (1.0 - floor) + floor).max(0.0)
            }
            ScheduleKind::Polynomial { lr_end, .. } if step > total => lr_end / self.learning_rate,
            ScheduleKind::Polynomial { lr_end, power } => {
                ((self.learning_rate - lr_end) * (1.0 - progress).powf(power) + lr_end) / self.learning_rate
            }
            ScheduleKind::InverseSqrt => {
                let timescale = if self.warmup > 0 { warmup } else { 10_000.0 };
                1.0 / ((step + timescale - warmup) / timescale).sqrt()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kwargs(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(k, v)| (k.to_string(), *v)).collect()
    }

    #[test]
    fn a_wrong_name_or_argument_is_named() {
        let wrong =
            |name: &str, pairs: &[(&str, f64)]| ScheduleKind::parse(name, &kwargs(pairs)).unwrap_err().to_string();
        assert!(wrong("cosin", &[]).contains("did you mean `cosine`?"));
        assert!(wrong("cosine", &[("cycles", 2.0)]).contains("unknown argument `cycles`\n  hint: `cosine` takes num_"));
        assert!(wrong("linear", &[("power", 2.0)]).contains("no arguments"));
        assert!(wrong("cosine_with_min_lr", &[]).contains("either min_lr or min_lr_rate"));
        let both = [("min_lr", 1e-5), ("min_lr_rate", 0.1)];
        assert!(wrong("cosine_with_min_lr", &both).contains("either min_lr or min_lr_rate"));
        let polynomial = ScheduleKind::parse("polynomial", &kwargs(&[("lr_end", 1e-3)])).unwrap();
        assert!(Schedule::new(polynomial, 1e-4, 0, 10).is_err());
    }

    #[test]
    fn warm_up_below_one_is_a_share_and_steps_win_over_the_ratio() {
        assert_eq!(warmup_steps(1000, 0.03, 0.0), 30);
        assert_eq!(warmup_steps(1000, 0.0301, 0.5), 31);
        assert_eq!(warmup_steps(1000, 7.0, 0.5), 7);
        assert_eq!(warmup_steps(1000, 0.0, 0.3), 300);
    }

    #[test]
    fn the_lowest_rate_may_be_written_either_way() {
        let shape = |pairs: &[(&str, f64)]| ScheduleKind::parse("cosine_with_min_lr", &kwargs(pairs)).unwrap();
        let rate = Schedule::new(shape(&[("min_lr", 1e-5)]), 1e-4, 0, 20).unwrap();
        let share = Schedule::new(shape(&[("min_lr_rate", 0.1)]), 1e-4, 0, 20).unwrap();
        assert_eq!(rate.table(), share.table());
        assert!((rate.rate(20) - 1e-5).abs() < 1e-18);
    }

    #[test]
    fn inverse_sqrt_ignores_its_timescale_as_transformers_does() {
        let kind = ScheduleKind::parse("inverse_sqrt", &kwargs(&[("timescale", 30.0)])).unwrap();
        let schedule = Schedule::new(kind, 1e-3, 4, 100).unwrap();
        // 1e-3 / √(step / 4); transformers 4.57.6 gives these numbers with and without the argument.
        for (step, rate) in [(2, 5e-4), (4, 1e-3), (16, 5e-4), (64, 2.5e-4)] {
            assert!((schedule.rate(step) / rate - 1.0).abs() < 1e-15, "step {step}");
        }
    }

    #[test]
    fn a_warm_up_that_fills_the_run_divides_by_nothing() {
        for (name, _) in NAMES {
            let kwargs = if name == "cosine_with_min_lr" { kwargs(&[("min_lr_rate", 0.1)]) } else { kwargs(&[]) };
            let schedule = Schedule::new(ScheduleKind::parse(name, &kwargs).unwrap(), 1e-4, 10, 10).unwrap();
            assert!((0..13).all(|step| schedule.rate(step).is_finite()), "{name}");
        }
    }
}
