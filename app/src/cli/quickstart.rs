//! `halfbyte quickstart`: trains the embedded model on the embedded data with the code of `train`, and asks questions
//! before and after.

use super::progress::Progress;
use super::train::{finish, stop_flag};
use crate::config::recipe::Recipe;
use crate::data::document::open_tokenizer;
use crate::generate::{Decoding, decode};
use crate::quickstart::{Task, examples, extract};
use crate::run::{ModelPlace, Run, RunStart, prepare, refuse_results};
use halfbyte_core::device::Device;
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::Sampling;
use halfbyte_tokenizer::Tokenizer;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `quickstart`.
#[derive(clap::Args, Debug)]
pub struct QuickstartArgs {
    /// Folder for all files; it is created
    #[arg(long, default_value = "quickstart")]
    output: PathBuf,
    /// Override a key of the recipe: --set learning_rate=1e-3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace the results of an earlier run
    #[arg(long)]
    overwrite: bool,
    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
}

/// The most tokens of a printed answer. The base model has not learned to stop.
const SHOWN_TOKENS: usize = 16;

/// Runs the command.
pub fn run(args: QuickstartArgs) -> Result<()> {
    let began = Instant::now();
    let files = extract(&args.output)?;
    let recipe = Recipe::open(&files.recipe, &args.set)?;
    let start = if args.overwrite { RunStart::Overwrite } else { RunStart::Fresh };
    refuse_results(&recipe.training, start)?;
    if !args.json {
        say!("A Mistral of a million parameters, fine-tuned in 4 bits on this CPU.");
        say!("Model, data and recipe are in {}.\n", args.output.display());
    }
    let mut progress = Progress::new(args.json);
    let place = ModelPlace::open(&recipe.model, false)?;
    let prepared = prepare(recipe, place, &|_| ())?;
    let device = Cpu::new(CpuOptions::default());
    progress.prepared(&prepared, "cpu", &device.about());
    // Until here, Ctrl-C ends the program at once: no run has begun.
    let stop = stop_flag()?;
    let mut run = prepared.start(Box::new(device), start)?;
    let tokenizer = open_tokenizer(&run.model().tokenizer()?)?;
    let shown = examples(&files.held_out);
    let before = Exam::take(&mut run, &tokenizer, &files.held_out, &shown, false)?;
    finish(&mut run, &mut progress, &stop, &format!("`halfbyte train {} --resume`", files.recipe.display()))?;
    let after = Exam::take(&mut run, &tokenizer, &files.held_out, &shown, true)?;
    if args.json {
        print_json(&shown, &before, &after, files.held_out.len());
        return Ok(());
    }

    print_table(&shown, &before.answers, &after.answers);
    let count = files.held_out.len();
    say!("\nThe {count} held-out questions are not in the training data:");
    say!("{:>24}  {:>8}  {:>8}", "", "before", "after");
    say!("{:>24}  {:8.3}  {:8.3}", "loss", before.loss, after.loss);
    say!("{:>24}  {:8}  {:8}", "right answers", before.right, after.right);
    let (folder, adapter) = (args.output.display(), run.adapter_folder().display());
    say!("\nThe adapter (PEFT's format) is in {adapter}. {:.0} s in all.", began.elapsed().as_secs_f64());
    // The program's path as it was called: after `cargo run` it is not in PATH.
    let program = std::env::args().next().unwrap_or_else(|| "halfbyte".into());
    if let Some(task) = after.to_ask(&shown) {
        say!("Ask it a question; it has just answered this with {:?}:", task.output);
        say!("  {program} generate {adapter} \"{}\" --max-new-tokens {SHOWN_TOKENS}", task.instruction);
    }
    say!("Change {folder}/recipe.toml and train again:");
    say!("  {program} train {folder}/recipe.toml --set output_dir={folder}/second");
    say!("Look at the data, the memory and the curves of the run:");
    say!("  {program} inspect-data {folder}/recipe.toml");
    say!("  {program} plan {folder}/recipe.toml");
    say!("  {program} report {folder}/run");
    Ok(())
}

/// The result of asking the held-out questions, before or after training.
struct Exam {
    /// The answers to the questions in the table.
    answers: Vec<String>,
    /// The number of held-out questions whose answer matches exactly.
    right: usize,
    /// Mean loss per token of the held-out answers.
    loss: f64,
}

impl Exam {
    /// The first question in the table that was answered correctly and can be asked on a command line: it has no input
    /// text and no quotation marks.
    fn to_ask<'a>(&self, shown: &'a [Task]) -> Option<&'a Task> {
        let right = shown.iter().zip(&self.answers).filter(|(task, answer)| task.output == **answer);
        let plain = |task: &&Task| task.input.is_empty() && !task.instruction.contains('"');
        right.map(|(task, _)| task).find(plain)
    }

    fn take(run: &mut Run, tokenizer: &Tokenizer, held_out: &[Task], shown: &[Task], adapter: bool) -> Result<Self> {
        let loss = run.evaluate(adapter)?.map_or(f64::NAN, |record| record.eval_loss_per_token);
        let mut right = 0;
        for task in held_out {
            // An answer that is longer than the right one is wrong, so it is cut off there.
            let tokens = tokenizer.encode(&task.output).len() + 1;
            right += usize::from(answer(run, tokenizer, task, tokens, adapter)? == task.output);
        }
        let answers = shown.iter().map(|task| answer(run, tokenizer, task, SHOWN_TOKENS, adapter));
        Ok(Self { answers: answers.collect::<Result<_>>()?, right, loss })
    }
}

/// The answer to `task`, with an ellipsis if it did not end within `max_new_tokens`.
fn answer(run: &mut Run, tokenizer: &Tokenizer, task: &Task, max_new_tokens: usize, adapter: bool) -> Result<String> {
    let ends = run.session.model.spec.config.eos_ids.clone();
    let prompt: Vec<u32> = tokenizer.bos().into_iter().chain(tokenizer.encode(&task.prompt())).collect();
    let rule = Decoding { max_new_tokens, eos: &ends, adapter, sampling: Sampling::GREEDY };
    let mut ids = decode(&mut run.session, &prompt, rule, |_| true)?;
    let ended = ids.pop_if(|id| ends.contains(id)).is_some();
    let text = tokenizer.decode(&ids).map_err(|e| Error::run(e.to_string()))?;
    Ok(text.trim().to_string() + if ended { "" } else { " …" })
}

/// Prints the table and the scores as JSON.
fn print_json(tasks: &[Task], before: &Exam, after: &Exam, held_out: usize) {
    let exam = |exam: &Exam| json!({"loss": exam.loss, "answered_right": exam.right});
    let answers = tasks.iter().zip(before.answers.iter().zip(&after.answers)).map(|(task, (before, after))| {
        json!({"question": task.instruction, "input": task.input, "before": before, "after": after,
            "expected": task.output})
    });
    let answers: Vec<_> = answers.collect();
    say!(
        "{}",
        json!({"event": "exam", "held_out": held_out, "before": exam(before), "after": exam(after), "answers": answers})
    );
}

/// Prints each question, the text that it is about, and below it the answers. Lines fit a terminal of 80 columns.
fn print_table(tasks: &[Task], before: &[String], after: &[String]) {
    let row = |before: &str, after: &str, expected: &str| {
        say!("  {} | {} | {}", cell(before, 26), cell(after, 22), cell(expected, 22).trim_end());
    };
    say!("");
    row("before", "after", "expected");
    for ((task, before), after) in tasks.iter().zip(before).zip(after) {
        say!("{}", format!("{} {}", task.instruction, task.input).trim_end());
        row(before, after, &task.output);
    }
}

/// Pads or cuts `text` to exactly `width` characters on one line.
fn cell(text: &str, width: usize) -> String {
    let text = text.replace('\n', " ");
    match text.char_indices().nth(width) {
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
        None => format!("{text:width$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_question_with_a_right_answer_is_printed() {
        let task = |instruction: &str, input: &str, output: &str| Task {
            instruction: instruction.into(),
            input: input.into(),
            output: output.into(),
        };
        let shown = [task("a?", "", "x"), task("b?", "text", "y"), task("c?", "", "z")];
        let exam = |answers: [&str; 3]| Exam { answers: answers.map(String::from).to_vec(), right: 0, loss: 0.0 };
        assert_eq!(exam(["x …", "y", "z"]).to_ask(&shown), Some(&shown[2]));
        assert_eq!(exam(["x", "y", "z"]).to_ask(&shown), Some(&shown[0]));
        assert_eq!(exam(["no", "y", "no"]).to_ask(&shown), None);
    }
}
