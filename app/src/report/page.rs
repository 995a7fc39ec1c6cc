//! The HTML page, except for the charts.

use super::Source;
use super::chart::{Chart, Series};
use super::html::escape;
use super::ticks::{Unit, number};
use crate::track::history::{History, LoggedLine, LoggedSample};
use serde_json::Value;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("hover.js");

/// The beginning of every page.
const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"generator\" content=\"halfbyte\">\n";

/// Whether `bytes` are a page that [`html`] made.
pub fn is_page(bytes: &[u8]) -> bool {
    bytes.starts_with(HEAD.as_bytes())
}

/// The whole page.
pub fn html(source: &Source) -> String {
    let Source { history, recipe, name, model, notes } = source;
    let mut body = format!("<h1>{}</h1>\n", escape(name));
    if let Some(model) = model {
        body += &format!("<p class=\"sub\">{}</p>\n", escape(model));
    }
    for note in notes {
        body += &format!("<p class=\"note\">{}</p>\n", escape(note));
    }
    body += &tiles(history);
    let charts = charts(history);
    if charts.is_empty() {
        body += "<p class=\"note\">Nothing has been logged yet.</p>\n";
    } else {
        body += &format!("<h2>Curves</h2>\n<div class=\"charts\">\n{charts}</div>\n");
    }
    body += &samples(&history.samples);
    body += &results(history);
    if let Some(recipe) = recipe {
        body += &format!("<h2>Recipe</h2>\n<div class=\"card\"><pre>{}</pre></div>\n", escape(recipe.trim_end()));
    }
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{HEAD}\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}<footer>halfbyte {version}</footer>\n</main>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(name)
    )
}

/// The most important numbers of the run, as tiles.
fn tiles(history: &History) -> String {
    let (log, eval) = (history.logs.last(), history.evals.last());
    let result = |name: &str| history.results.as_ref().and_then(|r| r.get(name)).and_then(Value::as_f64);
    let steps = history.logs.iter().chain(&history.evals).map(|e| e.step).max();
    let lowest = history.evals.iter().filter_map(|e| e.number("eval_loss")).reduce(f64::min);
    let plain = |x: f64| number(x, Unit::Plain);
    let seen = [
        ("training loss, last record", log.and_then(|e| e.number("loss")).map(plain)),
        ("validation loss, last", eval.and_then(|e| e.number("eval_loss")).map(plain)),
        ("validation loss, lowest", lowest.filter(|_| history.evals.len() > 1).map(plain)),
        ("steps", steps.map(|n| n.to_string())),
        ("epochs", result("epoch").or(log.and_then(|e| e.number("epoch"))).map(|x| format!("{x:.2}"))),
        ("training time", result("train_runtime").map(duration)),
        ("tokens per second, mean", mean(&history.logs, "tokens_per_second").map(|x| format!("{x:.0}"))),
        ("memory, planned", result("memory_planned").map(|b| number(b, Unit::Bytes))),
    ];
    let tiles = seen.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let tiles: String =
        tiles.map(|(name, value)| format!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>\n")).collect();
    format!("<div class=\"tiles\">\n{tiles}</div>\n")
}

fn mean(entries: &[LoggedLine], name: &str) -> Option<f64> {
    let values: Vec<f64> = entries.iter().filter_map(|e| e.number(name)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Formats a duration: `1 h 02 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// The charts of all logged values.
fn charts(history: &History) -> String {
    let line = |name: &'static str, entries: &[LoggedLine], field: &str| Series {
        name,
        points: entries.iter().filter_map(|e| Some((e.step as f64, e.number(field)?))).collect(),
    };
    let log = |name, field: &str| line(name, &history.logs, field);
    let eval = |name, field: &str| line(name, &history.evals, field);
    let all = [
        chart("Loss", false, vec![log("training", "loss"), eval("validation", "eval_loss")]),
        chart("Learning rate", true, vec![log("learning rate", "learning_rate")]),
        chart("Gradient norm before clipping", true, vec![log("gradient norm", "grad_norm")]),
        Chart {
            suffix: " tokens/s",
            ..chart("Throughput, tokens per second", true, vec![log("throughput", "tokens_per_second")])
        },
        chart(
            "Token accuracy",
            false,
            vec![log("training", "mean_token_accuracy"), eval("validation", "eval_mean_token_accuracy")],
        ),
        chart("Perplexity, validation", false, vec![eval("perplexity", "eval_perplexity")]),
        Chart {
            unit: Unit::Bytes,
            ..chart("GPU memory in use", true, vec![log("memory", "system.gpu.0.memoryAllocatedBytes")])
        },
        Chart { suffix: " %", ..chart("GPU utilization, percent", true, vec![log("utilisation", "system.gpu.0.gpu")]) },
        Chart { suffix: " W", ..chart("GPU power, watts", true, vec![log("power", "system.gpu.0.powerWatts")]) },
        Chart { suffix: " °C", ..chart("GPU temperature, °C", true, vec![log("temperature", "system.gpu.0.temp")]) },
    ];
    let points = || all.iter().flat_map(|chart| &chart.series).flat_map(|series| &series.points);
    let last = points().map(|(step, _)| *step).fold(0.0, f64::max);
    all.iter().filter_map(|chart| chart.html(last)).collect()
}

fn chart(title: &'static str, from_zero: bool, series: Vec<Series>) -> Chart {
    let series = series.into_iter().filter(|series| !series.points.is_empty()).collect();
    Chart { title, unit: Unit::Plain, suffix: "", from_zero, series }
}

/// The last sampled answers, and the earlier ones in a collapsed section.
fn samples(samples: &[(usize, Vec<LoggedSample>)]) -> String {
    let Some(((last, answers), earlier)) = samples.split_last() else { return String::new() };
    let mut html = format!("<h2>Sampled answers after step {last}</h2>\n{}", answer_table(answers));
    if !earlier.is_empty() {
        html += "<details><summary>Earlier answers</summary>\n";
        for (step, answers) in earlier.iter().rev() {
            html += &format!("<h2>After step {step}</h2>\n{}", answer_table(answers));
        }
        html += "</details>\n";
    }
    html
}

fn answer_table(answers: &[LoggedSample]) -> String {
    let expected = answers.iter().any(|a| a.expected.is_some());
    let mut html = String::from("<div class=\"card\"><table><tr><th>prompt</th><th>answer</th>");
    if expected {
        html += "<th>expected</th>";
    }
    html += "</tr>\n";
    for LoggedSample { prompt, answer, expected: right } in answers {
        let same = right.as_ref().is_some_and(|right| right.trim() == answer.trim());
        let class = if same { "text right" } else { "text" };
        html += &format!("<tr><td class=\"text\">{}</td><td class=\"{class}\">{}</td>", escape(prompt), escape(answer));
        if expected {
            html += &format!("<td class=\"text\">{}</td>", escape(right.as_deref().unwrap_or_default()));
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

/// The table of results and the last evaluation, rounded (metrics.jsonl has all digits).
fn results(history: &History) -> String {
    let Some(results) = &history.results else { return String::new() };
    let evaluation = history.evals.last().into_iter().flat_map(|e| &e.fields).filter(|(name, _)| *name != "step");
    let mut html = String::from("<h2>Results</h2>\n<div class=\"card\"><table>\n");
    for (name, value) in results.iter().chain(evaluation) {
        let text = match value.as_f64() {
            Some(bytes) if name.starts_with("memory_") => number(bytes, Unit::Bytes),
            _ => rounded(value),
        };
        html += &format!("<tr><th>{}</th><td class=\"n\">{}</td></tr>\n", escape(name), escape(&text));
    }
    html + "</table></div>\n"
}

/// Formats a value with four significant digits, or the fields of an object one after the other.
fn rounded(value: &Value) -> String {
    match value {
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), |x| number(x, Unit::Plain)),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name} {}", rounded(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
