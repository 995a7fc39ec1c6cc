//! Draws a run: a bar on a terminal, plain lines elsewhere, JSON lines where asked.

use super::{human_bytes, out};
use crate::run::Prepared;
use crate::train::trainer::{Event, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;

/// The view of a run.
pub struct Progress {
    json: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A view; `json` for machines.
    pub fn new(json: bool) -> Self {
        Self { json, bar: None }
    }

    /// What is about to run.
    pub fn prepared(&mut self, p: &Prepared, device: &str) {
        let plan = crate::plan::plan(&p.model.program);
        if self.json {
            let record = json!({
                "event": "prepared", "steps": p.steps.total, "rows": p.data.train.rows.len(), "memory": plan.bytes,
                "notes": p.notes, "device": device, "parameters": p.parameters(), "train": p.data.report,
            });
            say!("{record}");
            return;
        }
        say!("model {}: {}", p.place.folder.display(), p.parameters());
        out(&p.data.report.text());
        if let Some((_, report)) = &p.data.eval {
            out(&report.text());
        }
        p.notes.iter().for_each(|note| say!("note: {note}"));
        say!("device: {device}");
        say!("memory: {} ({} of activations)", human_bytes(plan.bytes), human_bytes(plan.arena_bytes));
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(p.steps.total as u64);
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
    }

    /// One event of the trainer.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Stepped(r) => {
                if self.json {
                    say!(
                        "{}",
                        json!({"event": "step", "step": r.step, "loss": r.loss, "grad_norm": r.grad_norm,
                        "learning_rate": r.learning_rate, "epoch": r.epoch, "skipped": r.skipped})
                    );
                } else if let Some(bar) = &self.bar {
                    bar.set_position(r.step as u64);
                    let speed = r.tokens as f64 / r.time.as_secs_f64();
                    bar.set_message(format!("loss {:.4}  lr {:.2e}  {speed:.0} tokens/s", r.loss, r.learning_rate));
                }
            }
            Event::Logged(r) => self.line(
                json!({"event": "log", "log": r}),
                format!(
                    "step {:5}  epoch {:.2}  loss {:.4}  grad_norm {:.3}  lr {:.3e}  {:.0} tokens/s",
                    r.step, r.epoch, r.loss, r.grad_norm, r.learning_rate, r.tokens_per_second
                ),
            ),
            Event::Evaluated(r) => self.line(
                json!({"event": "eval", "eval": r}),
                format!(
                    "step {:5}  eval_loss {:.4} (per token {:.4}, {} tokens)",
                    r.step, r.eval_loss, r.eval_loss_per_token, r.eval_tokens
                ),
            ),
            Event::SaveDue { .. } => {}
        }
    }

    /// The end of the run.
    pub fn finished(&mut self, summary: &Summary, adapter: &Path) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.line(
            json!({"event": "finished", "summary": summary, "adapter": adapter}),
            format!(
                "{} steps in {:.1} s: train_loss {:.4}, last {:.4}; adapter in {}",
                summary.steps,
                summary.seconds,
                summary.train_loss,
                summary.final_loss,
                adapter.display()
            ),
        );
    }

    fn line(&self, machine: serde_json::Value, person: String) {
        let text = if self.json { machine.to_string() } else { person };
        match &self.bar {
            Some(bar) => bar.suspend(|| say!("{text}")),
            None => say!("{text}"),
        }
    }
}
