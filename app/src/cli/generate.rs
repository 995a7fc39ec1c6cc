//! `halfbyte generate MODEL --prompt TEXT`: continues a prompt, with the most probable tokens or with drawn ones.

use super::device::DeviceArgs;
use super::out;
use crate::config::recipe::LoadDtype;
use crate::data::document::open_tokenizer;
use crate::generate::{Decoding, decode};
use crate::run::spec::{BLOCK, base_schemes, inference_spec};
use crate::weights::adapter::Adapter;
use crate::weights::load::{load_base, write_adapter};
use crate::weights::names::check;
use crate::weights::safetensors::Checkpoint;
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::record;
use halfbyte_core::quant::{QuantKind, Scheme};
use halfbyte_core::session::{Sampling, Session};
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `generate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model folder
    model: PathBuf,
    /// The text to continue
    #[arg(long)]
    prompt: String,
    /// An adapter folder in PEFT's layout
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// At most this many new tokens
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Draw tokens instead of taking the most probable one: logits are divided by this; 0 draws nothing [default: 0]
    #[arg(long)]
    temperature: Option<f64>,
    /// Draw among the k most probable tokens [default: all]
    #[arg(long)]
    top_k: Option<usize>,
    /// Draw among the fewest tokens that together have this probability [default: 1, all]
    #[arg(long)]
    top_p: Option<f64>,
    /// Seed of the draws [default: 42]
    #[arg(long)]
    seed: Option<u32>,
    /// Length of prompt and answer together [default: as long as the model allows]
    #[arg(long)]
    max_seq_length: Option<usize>,
    /// Quantise the base to NF4 with double quantisation, as it was in training
    #[arg(long)]
    load_in_4bit: bool,
    /// Type of activations: float32, bfloat16 or float16
    #[arg(long, default_value = "float32")]
    dtype: String,
    #[command(flatten)]
    device: DeviceArgs,
    /// Leave out the begin token
    #[arg(long)]
    no_bos: bool,
    /// Print ids instead of text
    #[arg(long)]
    json: bool,
}

impl Args {
    /// What the four flags say together.
    fn sampling(&self) -> Result<Sampling> {
        let temperature = self.temperature.unwrap_or(0.0);
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(Error::usage(format!("--temperature {temperature}: expected a number of at least 0")));
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::usage(format!("--top-p {top_p}: expected a probability above 0 and up to 1")));
        }
        if self.top_k == Some(0) {
            return Err(Error::usage("--top-k 0: expected at least 1; leave it out for all tokens"));
        }
        let flags =
            [("--top-k", self.top_k.is_some()), ("--top-p", self.top_p.is_some()), ("--seed", self.seed.is_some())];
        if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given && temperature == 0.0) {
            return Err(Error::usage(format!("{flag} has no effect: without --temperature nothing is drawn"))
                .hint("add --temperature 1"));
        }
        Ok(Sampling { temperature, top_k: self.top_k.unwrap_or(0), top_p, seed: self.seed.unwrap_or(42) })
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let compute = match args.dtype.as_str() {
        "float32" => DType::F32,
        "bfloat16" => DType::Bf16,
        "float16" => DType::F16,
        other => return Err(Error::usage(format!("--dtype {other}: expected float32, bfloat16 or float16"))),
    };
    let sampling = args.sampling()?;
    let config = crate::config::config_json::open(&args.model)?;
    let checkpoint = Checkpoint::open(&args.model)?;
    check(&checkpoint, &config)?;
    let tokenizer = open_tokenizer(&args.model)?;
    let adapter = args.adapter.as_deref().map(|folder| Adapter::open(folder, &config)).transpose()?;
    let mut prompt: Vec<u32> = tokenizer.bos().filter(|_| !args.no_bos).into_iter().collect();
    prompt.extend(tokenizer.encode(&args.prompt));
    if let Some(id) = prompt.iter().find(|id| **id as usize >= config.vocab_size) {
        return Err(Error::input(format!("the tokenizer gives id {id}, the embedding has {} rows", config.vocab_size))
            .hint("the tokenizer does not belong to this model"));
    }
    let longest = args.max_seq_length.unwrap_or(config.max_positions);
    if longest > config.max_positions {
        let max = config.max_positions;
        return Err(Error::usage(format!(
            "--max-seq-length {longest} is longer than the model allows ({max} positions)"
        )));
    }
    let tokens = longest.min(prompt.len().saturating_add(args.max_new_tokens));
    let scheme = args.load_in_4bit.then_some(Scheme { kind: QuantKind::Nf4, blocksize: BLOCK, double: true });
    let base = base_schemes(&config, Some(&checkpoint), scheme, &[])?;
    let modules = adapter.as_ref().map_or(&[][..], |a| &a.modules);
    let spec = inference_spec(&config, compute, modules, base, tokens.max(1))?;
    let (device, _) = args.device.open(None, compute, CpuOptions::default())?;
    let mut session = Session::planned(record(spec)?, device)?;
    load_base(&mut session, &checkpoint, LoadDtype::Auto)?;
    if let Some(adapter) = adapter {
        let names = adapter.modules.iter().map(|m| m.module.name.clone());
        write_adapter(&mut session, &names.zip(adapter.weights).collect())?;
        session.begin()?;
    }
    let (max_new_tokens, adapter) = (args.max_new_tokens, args.adapter.is_some());
    let rule = Decoding { max_new_tokens, eos: &config.eos_ids, adapter, sampling };
    let failed = |e: halfbyte_tokenizer::Error| Error::input(e.to_string());
    if args.json {
        let new = decode(&mut session, &prompt, rule, |_| true)?;
        let text = tokenizer.decode(&new).map_err(failed)?;
        say!("{}", serde_json::json!({"prompt_ids": prompt, "new_ids": new, "text": text}));
        return Ok(());
    }
    let mut decoder = tokenizer.decoder();
    for id in &prompt {
        out(decoder.push(*id).map_err(failed)?);
    }
    let mut wrong = None;
    decode(&mut session, &prompt, rule, |id| match decoder.push(id) {
        Ok(text) => {
            let mut stdout = std::io::stdout().lock();
            // When nobody reads any more, there is no point in going on.
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
        }
        Err(e) => {
            wrong = Some(failed(e));
            false
        }
    })?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    say!("{}", decoder.finish());
    Ok(())
}
