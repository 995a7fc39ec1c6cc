//! Formats the predicted memory and time of a run.

use super::human_bytes;
use crate::run::forecast::Time;
use crate::run::ladder::describe;
use crate::run::record::Recorded;

/// The line with the planned memory.
pub fn memory(recorded: &Recorded) -> String {
    let (plan, policies) = (&recorded.plan, describe(&recorded.model));
    let (all, activations) = (human_bytes(plan.bytes), human_bytes(plan.arena_bytes));
    let host = match plan.host_bytes {
        0 => String::new(),
        bytes => format!(", and {} of pinned host memory", human_bytes(bytes)),
    };
    format!("memory: {all} ({activations} of activations; {policies}){host}")
}

/// The line with the predicted time on the device `name`; `time` is None if no rates are known for it.
pub fn time(name: &str, time: Option<Time>) -> String {
    let Some(time) = time else {
        return format!("time: not predicted on {name}; the first steps are measured");
    };
    let mut line = format!("time: about {} on {name}", duration(time.total()));
    let steps = (time.training / time.step).round();
    let steps = if steps == 1.0 { "a step".into() } else { format!("{steps} steps") };
    line += &format!(" ({steps} of {}", duration(time.step));
    match time.evaluations {
        0 => {}
        1 => line += &format!(", an evaluation of {}", duration(time.evaluation)),
        n => line += &format!(", {n} evaluations of {}", duration(time.evaluation)),
    }
    line + ")"
}

/// Formats seconds like a clock: `0:07`, `12:30`, `1:02:03`.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole % 3600 / 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Formats seconds with units: `40 ms`, `12 s`, `3 min 20 s`, `5 h 10 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0 => format!("{:.0} ms", seconds * 1e3),
        1..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_hours_only_where_there_are_some() {
        assert_eq!([7.2, 750.0, 3723.0].map(clock), ["0:07", "12:30", "1:02:03"]);
    }

    #[test]
    fn durations_have_two_figures_or_so() {
        let said = [0.04, 0.4999, 0.6, 5.0, 59.4, 59.6, 200.0, 18600.0].map(duration);
        assert_eq!(said, ["40 ms", "500 ms", "0.6 s", "5.0 s", "59 s", "1 min 0 s", "3 min 20 s", "5 h 10 min"]);
    }
}
