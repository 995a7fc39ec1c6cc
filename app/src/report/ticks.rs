//! Positions and labels of the ticks of an axis.

/// The number format of an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Plain numbers; very small and very large ones with an exponent.
    Plain,
    /// Bytes in powers of 1024.
    Bytes,
}

/// An axis that extends from its first tick to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Values of the ticks, ascending.
    pub ticks: Vec<f64>,
    unit: Unit,
    step: f64,
}

impl Axis {
    /// An axis that covers `low..=high` with about `count` ticks at round values.
    pub fn new(low: f64, high: f64, count: usize, unit: Unit) -> Self {
        let scale = match unit {
            Unit::Plain => 1.0,
            Unit::Bytes => byte_unit(high).0,
        };
        // A constant line is drawn in the middle.
        let slack = if high > low { 0.0 } else { (high.abs() * 0.1).max(f64::MIN_POSITIVE.max(1e-9 * scale)) };
        let (low, high) = (low - slack, high + slack);
        let step = round_step((high - low) / scale / count.max(1) as f64) * scale;
        let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
        Self { ticks: (first..=last).map(|i| i as f64 * step).collect(), unit, step }
    }

    /// An axis of steps: whole numbers up to the last step.
    pub fn steps(last: f64) -> Self {
        let step = round_step(last.max(1.0) / 6.0).max(1.0);
        let step = if step.fract() == 0.0 { step } else { 2.0 * step };
        let mut ticks: Vec<f64> = (0..).map(|i| f64::from(i) * step).take_while(|tick| *tick <= last).collect();
        if let Some(tick) = ticks.last_mut().filter(|tick| last - **tick < 0.4 * step && **tick > 0.0) {
            *tick = last.max(1.0);
        } else {
            ticks.push(last.max(1.0));
        }
        Self { ticks, unit: Unit::Plain, step: 1.0 }
    }

    /// The value of the first tick.
    pub fn low(&self) -> f64 {
        self.ticks.first().copied().unwrap_or(0.0)
    }

    /// The value of the last tick.
    pub fn high(&self) -> f64 {
        self.ticks.last().copied().unwrap_or(1.0)
    }

    /// The label of a tick.
    pub fn label(&self, value: f64) -> String {
        match self.unit {
            Unit::Bytes => {
                let (scale, name) = byte_unit(self.high());
                format!("{} {name}", decimals(value / scale, self.step / scale))
            }
            Unit::Plain => {
                let largest = self.low().abs().max(self.high().abs());
                if value == 0.0 {
                    "0".into()
                } else if largest < 1e-2 || largest >= 1e5 && self.step > 1.0 {
                    let exponent = largest.log10().floor() as i32;
                    let scale = 10_f64.powi(exponent);
                    format!("{}e{exponent}", decimals(value / scale, self.step / scale))
                } else {
                    decimals(value, self.step)
                }
            }
        }
    }
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
    // The quotient may be off by a rounding error.
    factors.iter().map(|factor| factor * power).find(|round| *round >= step * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// Formats `value` with the number of decimals that multiples of `step` need.
fn decimals(value: f64, step: f64) -> String {
    let needed = (0..12).find(|n| {
        let scaled = step * 10_f64.powi(*n);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0) && scaled.round() >= 1.0
    });
    let text = format!("{value:.*}", needed.unwrap_or(12) as usize);
    if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) { "0".into() } else { text }
}

/// The unit for `bytes`.
fn byte_unit(bytes: f64) -> (f64, &'static str) {
    let gib = 1024.0 * 1024.0 * 1024.0;
    match bytes {
        b if b >= gib => (gib, "GiB"),
        b if b >= 1024.0 * 1024.0 => (1024.0 * 1024.0, "MiB"),
        _ => (1024.0, "KiB"),
    }
}

/// Formats a single number with four significant digits.
pub fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => {
            let (scale, name) = byte_unit(value);
            format!("{:.2} {name}", value / scale)
        }
        Unit::Plain if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value}"),
        Unit::Plain if value.abs() < 1e-3 || value.abs() >= 1e7 => format!("{value:.3e}"),
        Unit::Plain => {
            let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 6);
            format!("{value:.*}", digits as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, unit: Unit) -> String {
        let axis = Axis::new(low, high, 5, unit);
        let labels: Vec<_> = axis.ticks.iter().map(|t| axis.label(*t)).collect();
        labels.join(" ")
    }

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        assert_eq!(labels(0.0, 1.0, Unit::Plain), "0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(1.52, 3.91, Unit::Plain), "1.5 2.0 2.5 3.0 3.5 4.0");
        assert_eq!(labels(0.0, 2e-4, Unit::Plain), "0 0.5e-4 1.0e-4 1.5e-4 2.0e-4");
        assert_eq!(labels(0.0, 12345.0, Unit::Plain), "0 2500 5000 7500 10000 12500");
        assert_eq!(
            labels(0.0, 11.5 * 1024_f64.powi(3), Unit::Bytes),
            "0 GiB 2.5 GiB 5.0 GiB 7.5 GiB 10.0 GiB 12.5 GiB"
        );
        assert_eq!(labels(-1.0, 1.0, Unit::Plain), "-1.0 -0.5 0 0.5 1.0");
        for (low, high) in [(0.0, 0.0), (3.0, 3.0), (-2e-9, -2e-9), (1e-300, 1e300), (5.0, 5.000001)] {
            let axis = Axis::new(low, high, 5, Unit::Plain);
            assert!(axis.low() <= low && high <= axis.high() && axis.ticks.len() < 20, "{axis:?}");
            assert!(axis.low() < axis.high(), "{axis:?}");
        }
    }

    #[test]
    fn the_axis_of_steps_ends_at_the_last() {
        let cases = [
            (1.0, "0 1"),
            (6.0, "0 1 2 3 4 5 6"),
            (7.0, "0 2 4 6 7"),
            (13.0, "0 5 10 13"),
            (500.0, "0 100 200 300 400 500"),
            (510.0, "0 100 200 300 400 510"),
        ];
        for (last, ticks) in cases {
            let axis = Axis::steps(last);
            let labels: Vec<_> = axis.ticks.iter().map(|t| axis.label(*t)).collect();
            assert_eq!(labels.join(" "), ticks);
        }
    }

    #[test]
    fn single_numbers_have_four_digits() {
        let cases = [(2.0, "2"), (1.23456, "1.235"), (123.456, "123.5"), (2e-4, "2.000e-4"), (1.5e16, "1.500e16")];
        for (value, text) in cases {
            assert_eq!(number(value, Unit::Plain), text);
        }
        assert_eq!(number(1.5 * 1024.0 * 1024.0, Unit::Bytes), "1.50 MiB");
    }
}
