//! `halfbyte plan RECIPE`: prints the resolved recipe and the memory that it needs. Needs config.json, but no weights.

use super::{count, human_bytes, out};
use crate::config::recipe::Recipe;
use crate::data::open::longest_row;
use crate::data::tokenizer_config::TokenizerConfig;
use crate::run::ModelPlace;
use crate::run::record::{Adapted, record_training};
use crate::run::spec::Capacity;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::Model;
use halfbyte_core::op::{Phase, Purpose};
use halfbyte_core::plan::Plan;
use halfbyte_core::tape::listing;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `plan`.
#[derive(clap::Args, Debug)]
pub struct PlanArgs {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Override a key of the recipe: --set max_seq_length=512
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Plan a run with --dummy-weights: model_name_or_path may be the name of an architecture such as mistral-7b-v0.1
    #[arg(long)]
    dummy_weights: bool,
    /// Print the op listing of every phase
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The printed name of a kind of resident memory.
fn name(kind: Purpose) -> &'static str {
    match kind {
        Purpose::Weight => "base weights",
        Purpose::Constant => "tables",
        Purpose::Master => "adapter (full precision)",
        Purpose::Adapter => "adapter (compute type)",
        Purpose::Gradient => "gradients",
        Purpose::Optimizer => "optimizer state",
        Purpose::Exchange => "inputs and outputs",
    }
}

/// The name of a kind of memory in JSON: `adapter_full_precision`.
fn key(purpose: Purpose) -> String {
    let words = name(purpose).split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// Runs the command.
pub fn run(args: PlanArgs) -> Result<()> {
    let recipe = Recipe::open(&args.recipe, &args.set)?;
    let place = ModelPlace::open(&recipe.model, args.dummy_weights)?;
    let config = recipe.apply(place.config.clone())?;
    let tokenizer = place.tokenizer_if_any()?.map(|folder| TokenizerConfig::open(&folder)).transpose()?;
    let (max, _) = longest_row(&recipe.data, tokenizer.as_ref(), &config)?;
    let batch = recipe.training.batch_size;
    let tokens = batch.checked_mul(max).ok_or_else(|| Error::usage("batch size times max_seq_length is too large"))?;
    let updates = recipe.training.max_steps.unwrap_or(1);
    let adapted = Adapted::resolve(&recipe, &config)?;
    let recorded = record_training(&recipe, &config, None, adapted, Capacity { tokens, updates })?;
    let (model, plan) = (&recorded.model, &recorded.plan);
    if args.json {
        say!("{:#}", as_json(model, plan));
        return Ok(());
    }
    out(&recipe.resolved_toml());
    say!("");
    recorded.adapted.notes.iter().chain(&recipe.notes).for_each(|note| say!("note: {note}"));
    say!("{}", recorded.parameters(&recipe));
    print_memory(model, plan, &format!("{batch} × {max}"));
    if args.list {
        for (phase, _) in &model.program.phases {
            say!("\nphase {phase:?}\n{}", listing(&model.program, &plan.address, *phase));
        }
    }
    Ok(())
}

fn print_memory(model: &Model, plan: &Plan, size: &str) {
    say!("memory for micro-batches of {size} = {} tokens:", model.spec.tokens);
    for (kind, bytes) in &plan.resident {
        say!("  {:26} {:>12}", name(*kind), human_bytes(*bytes));
    }
    say!(
        "  {:26} {:>12}   (at least {} is alive at once)",
        "activations",
        human_bytes(plan.arena_bytes),
        human_bytes(plan.lower_bound)
    );
    say!("  {:26} {:>12}", "in all", human_bytes(plan.bytes));
    if let Some(peak) = plan.peak(&model.program) {
        let ops = model.program.ops(peak.phase);
        say!("\nalive at the peak (phase {:?}, op {} of {}, {}):", peak.phase, peak.op, ops.len(), ops[peak.op].name());
        const SHOWN: usize = 12;
        for (buf, bytes) in peak.alive.iter().take(SHOWN) {
            say!("  {:40} {:>12}", model.program.info(*buf).name, human_bytes(*bytes));
        }
        let rest: usize = peak.alive.iter().skip(SHOWN).map(|(_, b)| b).sum();
        if rest > 0 {
            say!("  {:40} {:>12}", format!("and {} more", peak.alive.len() - SHOWN), human_bytes(rest));
        }
    }
    let groups: usize = model.fusion.groups.values().sum();
    say!("\n{} of products that add to one output, {} left single", count(groups, "group"), model.fusion.missed);
}

fn as_json(model: &Model, plan: &Plan) -> serde_json::Value {
    let resident: serde_json::Map<String, serde_json::Value> =
        plan.resident.iter().map(|(k, b)| (key(*k), json!(b))).collect();
    let peak = plan.peak(&model.program).map(|p| {
        let alive = p.alive.iter().map(|(b, n)| json!({"buffer": model.program.info(*b).name, "bytes": n}));
        json!({"phase": format!("{:?}", p.phase), "op": p.op, "alive": alive.collect::<Vec<_>>()})
    });
    let ops = |phase: Phase| model.program.ops(phase).len();
    json!({
        "tokens": model.spec.tokens,
        "resident": resident,
        "activations": plan.arena_bytes,
        "activations_lower_bound": plan.lower_bound,
        "total": plan.bytes,
        "peak": peak,
        "micro_ops": ops(Phase::Micro),
    })
}
