//! Shows the progress of a run: a bar on a terminal, plain lines otherwise, JSON lines with `--json`.

use super::heartbeat::Heartbeat;
use super::pace::Pace;
use super::{forecast, human_bytes, preamble};
use crate::run::ladder::describe;
use crate::run::results::Results;
use crate::run::{Prepared, Run};
use crate::train::records::{Continuation, EvalRecord, LogRecord, StepRecord};
use crate::train::trainer::TrainEvent;
use halfbyte_core::device::{About, DeviceKind};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;

/// The progress output of a run.
pub struct Progress {
    json: bool,
    bar: Option<ProgressBar>,
    heartbeat: Heartbeat,
    pace: Pace,
    /// Bytes in use on the GPU: the planned bytes at first, then the value that NVML reports.
    gpu_memory: Option<u64>,
    /// The logged records of the training loss.
    log: Vec<LogRecord>,
    /// Whether the last printed line was a row of the evaluation table.
    in_table: bool,
}

impl Progress {
    /// The output as JSON lines (`json`) or for a person.
    pub fn new(json: bool) -> Self {
        let (heartbeat, pace) = (Heartbeat::new(true), Pace::new(0, None));
        Self { json, bar: None, heartbeat, pace, gpu_memory: None, log: Vec::new(), in_table: false }
    }

    /// Prints what is about to run; `device` is the description of its device.
    pub fn prepared(&mut self, p: &Prepared, device: &str, about: &About) {
        let planned = &p.planned;
        let time = about.rates.map(|rates| planned.time(rates));
        self.pace = Pace::new(planned.steps.total, time);
        let on_cpu = about.kind == DeviceKind::Cpu;
        self.gpu_memory = (!on_cpu).then_some(planned.recorded.plan.bytes as u64);
        // The speed of a CPU is not known in advance.
        let time = time.filter(|_| !on_cpu);
        if self.json {
            let record = json!({
                "event": "prepared", "steps": planned.steps.total, "rows": planned.data.train.rows.len(),
                "memory": planned.recorded.plan.bytes,
                "policies": describe(&planned.recorded.model), "time": time, "notes": planned.notes, "device": device,
                "parameters": planned.parameters(), "train": planned.data.report,
            });
            say!("{record}");
            return;
        }
        preamble::lines(p, device, forecast::time(device, time)).iter().for_each(|line| say!("{line}"));
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(planned.steps.total as u64);
            let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        self.heartbeat = Heartbeat::new(self.bar.is_some() || !planned.recipe.training.logs_by_default());
    }

    /// Shows one event of the trainer.
    pub fn event(&mut self, event: &TrainEvent) {
        match event {
            TrainEvent::Stepped(r) => {
                if self.json {
                    say!(
                        "{}",
                        json!({"event": "step", "step": r.step, "loss": r.loss, "grad_norm": r.grad_norm,
                        "learning_rate": r.learning_rate, "epoch": r.epoch, "skipped": r.skipped})
                    );
                }
                self.pace.step(r.step, r.time);
                self.step_done(r);
            }
            TrainEvent::Logged(r) => {
                self.log.push(r.clone());
                self.gpu_memory = r.sensors.and_then(|s| s.memory).or(self.gpu_memory);
                self.line(
                    json!({"event": "log", "log": r}),
                    format!(
                        "step {:5}  epoch {:.2}  loss {:.4}  grad_norm {:.3}  lr {:.3e}  {:.0} tokens/s",
                        r.step, r.epoch, r.loss, r.grad_norm, r.learning_rate, r.tokens_per_second
                    ),
                );
            }
            TrainEvent::Evaluated(r) => {
                self.pace.evaluated();
                let text = self.table(r);
                self.line(json!({"event": "eval", "eval": r}), text);
                self.in_table = true;
            }
            TrainEvent::Sampled(r) => {
                let text = |s: &Continuation| format!("  {}▸{}{}", s.prompt, s.answer, if s.ended { "" } else { " …" });
                let texts: Vec<String> = r.samples.iter().map(text).collect();
                self.line(
                    json!({"event": "samples", "samples": r}),
                    format!("step {:5}  sampled answers:\n{}", r.step, texts.join("\n")),
                );
            }
            TrainEvent::Saved { step, folder } => self.line(
                json!({"event": "saved", "step": step, "folder": folder}),
                format!("step {step:5}  checkpoint in {}", folder.display()),
            ),
            TrainEvent::SampleDue { .. } | TrainEvent::SaveDue { .. } => {}
        }
    }

    /// Advances the bar. Without a bar, prints the expected time once.
    fn step_done(&mut self, r: &StepRecord) {
        let (pace, left) = (self.pace.seconds_per_step(), self.pace.remaining());
        if let Some(bar) = &self.bar {
            bar.set_position(r.step as u64);
            let mut text = format!("epoch {:.2}  loss {:.4}", r.epoch, r.loss);
            text += &pace.map_or(String::new(), |s| format!("  {} a step", forecast::duration(s)));
            text += &self.gpu_memory.map_or(String::new(), |bytes| format!("  {}", human_bytes(bytes as usize)));
            let left = left.map_or("?".into(), forecast::clock);
            bar.set_message(format!("{text}  {} < {left}", forecast::clock(bar.elapsed().as_secs_f64())));
        } else if let (true, Some(pace), Some(left)) = (self.pace.just_known(), pace, left) {
            let text =
                format!("a step takes {}, the rest about {}", forecast::duration(pace), forecast::duration(left));
            self.line(json!({"event": "pace", "seconds_per_step": pace, "remaining_seconds": left}), text);
        } else if let (false, Some(text)) = (self.json, self.heartbeat.step(r)) {
            self.line(json!(null), text);
        }
    }

    /// Prints the notes of a started run, such as the step at which it resumes.
    pub fn started(&mut self, run: &Run) {
        let notes = &run.notes;
        if self.json {
            say!("{}", json!({"event": "started", "notes": notes}));
        } else {
            notes.iter().for_each(|note| self.line(json!(null), format!("note: {note}")));
        }
    }

    /// The row of an evaluation in the table of HF's notebooks. The header is printed in front of it unless the
    /// previous line is a row of the table.
    fn table(&self, r: &EvalRecord) -> String {
        let training = self.log.last().map_or("No log".into(), |log| format!("{:.6}", log.loss));
        let columns = [
            ("Step", r.step.to_string()),
            ("Training Loss", training),
            ("Validation Loss", format!("{:.6}", r.eval_loss)),
            ("Loss Per Token", format!("{:.6}", r.eval_loss_per_token)),
            ("Perplexity", format!("{:.4}", r.eval_perplexity)),
            ("Accuracy", format!("{:.4}", r.eval_mean_token_accuracy)),
        ];
        let width = |name: &str| name.len().max(8);
        let row = |cells: [&str; 6]| {
            let cells = columns.iter().zip(cells).map(|((name, _), cell)| format!("{cell:>0$}", width(name)));
            cells.collect::<Vec<_>>().join("  ")
        };
        let cells = row(columns.each_ref().map(|(_, cell)| cell.as_str()));
        if self.in_table { cells } else { format!("{}\n{cells}", row(columns.each_ref().map(|(name, _)| *name))) }
    }

    /// Prints the results at the end of the run.
    pub fn finished(&mut self, results: &Results, run: &Run) {
        let summary = &results.summary;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let folder = run.adapter_folder();
        let mut text = super::summary::history(&self.log) + &super::summary::results(results);
        let steps = if summary.steps == 1 { "1 step".into() } else { format!("{} steps", summary.steps) };
        text += &format!("{steps} in {:.1} s", summary.seconds);
        if let Some(best) = summary.best.filter(|_| summary.stopped_early || run.recipe.training.best.load_at_end) {
            text += &format!("; the best evaluation was that of step {} ({:.4})", best.step, best.metric);
        }
        if summary.stopped_early {
            text += "; stopped early";
        }
        if !summary.interrupted {
            text += &format!("; adapter in {}", folder.display());
        }
        for command in run.tracker_commands() {
            text += &format!("\nlook at it with: {command}");
        }
        let adapter = (!summary.interrupted).then_some(folder);
        self.line(json!({"event": "finished", "summary": results, "adapter": adapter}), text);
    }

    fn line(&mut self, machine: serde_json::Value, person: String) {
        self.in_table = false;
        self.heartbeat.printed();
        let text = if self.json { machine.to_string() } else { person };
        match &self.bar {
            Some(bar) => bar.suspend(|| say!("{text}")),
            None => say!("{text}"),
        }
    }
}
