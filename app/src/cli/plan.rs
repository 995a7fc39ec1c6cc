//! `halfbyte plan RECIPE`: prints the resolved recipe and the memory that it needs. Needs config.json, but no weights.

use super::listing::listing;
use super::peak::peak;
use super::{arena_svg, budget, human_bytes, out};
use crate::config::recipe::Recipe;
use crate::config::training::Placement;
use crate::data::open::longest_row;
use crate::data::tokenizer_config::TokenizerConfig;
use crate::disk::write::replace_own;
use crate::run::ModelPlace;
use crate::run::fit::Limit;
use crate::run::forecast::full_step;
use crate::run::ladder::{Ladder, POLICIES, Rung, describe, name as policy_name};
use crate::run::record::{Adapted, Recorded, record_training};
use crate::run::spec::Capacity;
use halfbyte_core::device::Device;
use halfbyte_core::device::cuda::{self, Cuda, CudaOptions};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::Model;
use halfbyte_core::op::{Phase, Purpose};
use halfbyte_core::plan::Plan;
use halfbyte_core::plan::cost::Rates;
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
    /// Choose policies for this much memory on a GPU, the driver's part included: 12GiB, 800MiB [default: what is free on
    /// the first GPU, less a reserve]
    #[arg(long, value_name = "AMOUNT", value_parser = budget::parse)]
    memory_budget: Option<usize>,
    /// Draw the arena over a micro-step
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
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
    let capacity = Capacity { tokens, updates };
    let record = |choice| record_training(&recipe, &config, None, adapted.clone(), capacity, choice);
    let accumulation = recipe.training.accumulation;
    let (gpu, rates) = Rates::reference();
    let seconds = |r: &Recorded, rates| full_step(&r.model.program, max, accumulation, config.sliding_window, rates);
    let (checkpointing, optim) = (recipe.training.checkpointing, recipe.training.optim);
    let freedom = (checkpointing, optim.placement == Placement::Paged);
    let ladder = Ladder::new(config.layers, freedom, &record, &seconds, rates)?;
    let taken = Taken::of(&ladder, checkpointing, args.memory_budget)?;
    let recorded = &taken.rung.recorded;
    let (model, plan) = (&recorded.model, &recorded.plan);
    if let Some(file) = &args.svg {
        let title = format!("{batch} × {max} tokens, {}", describe(&taken.rung.recorded.model));
        let text = arena_svg::draw(&model.program, plan, &title);
        replace_own(file, &text, arena_svg::is_ours)?;
    }
    if args.json {
        say!("{:#}", as_json(model, plan, &ladder, &taken));
        return Ok(());
    }
    out(&recipe.resolved_toml());
    say!("");
    recorded.adapted.notes.iter().chain(&recipe.notes).for_each(|note| say!("note: {note}"));
    say!("{}", recorded.parameters(&recipe));
    let size = match accumulation {
        1 => format!("{batch} × {max} tokens"),
        n => format!("{n} micro-batches of {batch} × {max} tokens"),
    };
    print_ladder(&ladder, &taken, gpu, &size);
    print_memory(model, plan, &format!("{batch} × {max}"));
    if args.list {
        for (phase, _) in &model.program.phases {
            say!("\nphase {phase:?}\n{}", listing(&model.program, &plan.address, *phase));
        }
    }
    Ok(())
}

/// The rung that a run takes, and why.
struct Taken {
    rung: Rung,
    why: String,
}

impl Taken {
    /// The fastest program that the recipe allows and that fits into the budget (or the free memory of the first GPU). If
    /// none fits, the smallest.
    fn of(ladder: &Ladder<'_>, checkpointing: Option<bool>, budget: Option<usize>) -> Result<Self> {
        let gpu = cuda::list().ok().and_then(|gpus| gpus.first().map(|gpu| gpu.ordinal));
        let device = gpu.map(|ordinal| Cuda::new(CudaOptions { ordinal, ..CudaOptions::default() })).transpose()?;
        let limit = Limit { budget, device: device.as_ref().map(|device| device as &dyn Device) };
        let first = ladder.first()?;
        if limit.allows(&first.recorded)? {
            let why = match checkpointing {
                Some(flag) => format!("gradient_checkpointing = {flag}"),
                None if budget.is_none() && device.is_none() => "there is neither a GPU nor a --memory-budget".into(),
                None => format!("it fits into {}", limit.describe()),
            };
            return Ok(Taken { rung: first, why });
        }
        Ok(match ladder.best(limit.pinnable(), &|recorded| limit.allows(recorded))? {
            Some(rung) => Taken { rung, why: format!("it is the fastest that fits into {}", limit.describe()) },
            None => {
                Taken { rung: ladder.last()?, why: format!("it is the smallest, but larger than {}", limit.describe()) }
            }
        })
    }
}

/// Policy by policy, what all blocks together need.
fn print_ladder(ladder: &Ladder<'_>, taken: &Taken, gpu: &str, size: &str) {
    say!("\nif all blocks do the same, and the predicted time of a step of {size} on {gpu}:");
    say!("  {:34} {:>12} {:>12} {:>10}", "", "GPU memory", "pinned", "a step");
    let line = |what: &str, rung: &Rung| {
        let plan = &rung.recorded.plan;
        let host = if plan.host_bytes > 0 { human_bytes(plan.host_bytes) } else { "-".into() };
        let time = format!("{:.0} ms", 1e3 * rung.seconds);
        say!("  {what:34} {:>12} {host:>12} {time:>10}", human_bytes(plan.bytes));
    };
    ladder.rungs.iter().zip(POLICIES).for_each(|(rung, policy)| line(policy_name(policy), rung));
    ladder.paged.iter().for_each(|rung| line("and optimizer state paged", rung));
    ladder.streamed.iter().for_each(|rung| line("or weights streamed", rung));
    line("taken", &taken.rung);
    say!("taken: {}; {}\n", describe(&taken.rung.recorded.model), taken.why);
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
    if plan.host_bytes > 0 {
        say!("  {:26} {:>12}", "pinned host memory", human_bytes(plan.host_bytes));
    }
    if let Some(peak) = peak(plan, &model.program) {
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
}

fn as_json(model: &Model, plan: &Plan, ladder: &Ladder<'_>, taken: &Taken) -> serde_json::Value {
    let resident: serde_json::Map<String, serde_json::Value> =
        plan.resident.iter().map(|(k, b)| (key(*k), json!(b))).collect();
    let peak = peak(plan, &model.program).map(|p| {
        let alive = p.alive.iter().map(|(b, n)| json!({"buffer": model.program.info(*b).name, "bytes": n}));
        json!({"phase": format!("{:?}", p.phase), "op": p.op, "alive": alive.collect::<Vec<_>>()})
    });
    let ops = |phase: Phase| model.program.ops(phase).len();
    let rung = |(rung, policy): (&Rung, _)| {
        let plan = &rung.recorded.plan;
        json!({
            "policy": policy_name(policy), "total": plan.bytes, "host": plan.host_bytes, "step_seconds": rung.seconds,
        })
    };
    json!({
        "tokens": model.spec.tokens,
        "resident": resident,
        "activations": plan.arena_bytes,
        "activations_lower_bound": plan.lower_bound,
        "total": plan.bytes,
        "host": plan.host_bytes,
        "policies": describe(&taken.rung.recorded.model),
        "step_seconds": taken.rung.seconds,
        "ladder": ladder.rungs.iter().zip(POLICIES).map(rung).collect::<Vec<_>>(),
        "paged": ladder.paged.as_ref().map(|rung| rung.recorded.plan.bytes),
        "streamed": ladder.streamed.as_ref().map(|rung| rung.recorded.plan.bytes),
        "peak": peak,
        "micro_ops": ops(Phase::Micro),
    })
}
