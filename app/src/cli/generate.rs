//! `halfbyte generate RUN "TEXT"`: asks a trained model, or continues a text with any model; with the most probable tokens
//! or with drawn ones.

use super::device::DeviceArgs;
use super::out;
use super::trained::Trained;
use crate::config::recipe::{LoadDtype, Recipe};
use crate::data::document::{Encoder, open_tokenizer};
use crate::data::open::open_format;
use crate::data::recognize::first_record;
use crate::data::source::DataFiles;
use crate::generate::{Decoding, ask, decode};
use crate::hub::Hub;
use crate::run::spec::{BLOCK, base_schemes, inference_spec};
use crate::weights::adapter::Adapter;
use crate::weights::load::{load_adapter, load_base};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::{ModelConfig, record};
use halfbyte_core::quant::{QuantKind, Scheme};
use halfbyte_core::session::{Sampling, Session};
use halfbyte_tokenizer::Tokenizer;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// Arguments of `generate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder of a run, which says how its model was trained; or a model folder or hub id
    #[arg(value_name = "RUN|MODEL")]
    source: String,
    /// The question to a run, or the text that a model continues [default: standard input]
    #[arg(value_name = "PROMPT")]
    text: Option<String>,
    /// The same as PROMPT, for a text that begins with a dash
    #[arg(long, value_name = "TEXT", conflicts_with = "text", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from this file; a line end at its end is left out
    #[arg(long, conflicts_with_all = ["text", "prompt"])]
    file: Option<PathBuf>,
    /// Take the prompt as it is, instead of writing it as the questions of the run's data are written
    #[arg(long)]
    raw: bool,
    /// An adapter folder in PEFT's layout; base model and tokenizer are then those of MODEL
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// At most this many new tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Draw tokens instead of taking the most probable one: logits are divided by this; 0 draws nothing [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw among the k most probable tokens [default: all]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw among the fewest tokens that together have this probability [default: 1, all]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Seed of the draws [default: 42]
    #[arg(long)]
    seed: Option<u32>,
    /// Length of prompt and answer together [default: as long as the model allows]
    #[arg(long, value_name = "N")]
    max_seq_length: Option<usize>,
    /// Quantize the base to NF4 with double quantization [default: as the run did]
    #[arg(long)]
    load_in_4bit: bool,
    /// Type of activations: float32, bfloat16 or float16 [default: that of the run; without one bfloat16 on a GPU and
    /// float32 on a CPU]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Leave out the begin token
    #[arg(long)]
    no_bos: bool,
    /// Print ids and text as JSON
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

    /// The prompt, from wherever it comes.
    fn prompt(&self) -> Result<String> {
        if let Some(text) = self.text.as_ref().or(self.prompt.as_ref()) {
            return Ok(text.clone());
        }
        let mut text = match &self.file {
            Some(file) => std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?,
            None if std::io::stdin().is_terminal() => {
                return Err(Error::usage("there is no prompt")
                    .hint("give it after the model: halfbyte generate RUN \"TEXT\", or pipe it in"));
            }
            None => {
                let mut text = String::new();
                let read = std::io::stdin().read_to_string(&mut text);
                read.map_err(|e| Error::input(format!("cannot read the prompt from standard input: {e}")))?;
                text
            }
        };
        // Editors and `echo` end a text with a line end that nobody meant.
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// The type of activations that the user or the run asks for.
    fn compute(&self, recipe: Option<&Recipe>, config: &ModelConfig) -> Result<DType> {
        match (self.dtype.as_deref(), recipe) {
            (Some(name), _) => DType::from_torch_name(name)
                .ok_or_else(|| Error::usage(format!("--dtype {name}: expected float32, bfloat16 or float16"))),
            (None, Some(recipe)) => Ok(recipe.compute),
            (None, None) => self.device.best_type(config.torch_dtype),
        }
    }
}

/// The tokens that the model is given.
struct Prompt {
    ids: Vec<u32>,
    /// It is a question: only the answer is printed.
    asked: bool,
    /// The token that ends an answer, besides those that the model's config names.
    eos: Option<u32>,
}

impl Prompt {
    /// As the run's data are written, unless `--raw` says otherwise or they have no questions.
    fn new(args: &Args, trained: &Trained, tokenizer: &Path) -> Result<Self> {
        let text = args.prompt()?;
        if let Some(recipe) = trained.recipe.as_ref().filter(|_| trained.by_run && !args.raw) {
            let data = &recipe.data;
            let first = || first_record(&DataFiles::named(&data.dataset, &Hub::from_env())?.load(&data.split)?);
            let (format, encoder, _) = open_format(data, tokenizer, first)
                .map_err(|e| e.at(format!("the format of the run's data ({})", args.source)))?;
            if let Some(asked) = ask(&format, &text)? {
                return Ok(Self { ids: Self::begun(&encoder, &asked, args), asked: true, eos: encoder.eos() });
            }
            return Ok(Self { ids: Self::plain(encoder.tokenizer(), &text, args), asked: false, eos: encoder.eos() });
        }
        Ok(Self { ids: Self::plain(&open_tokenizer(tokenizer)?, &text, args), asked: false, eos: None })
    }

    fn begun(encoder: &Encoder, marked: &str, args: &Args) -> Vec<u32> {
        let mut ids = encoder.prompt(marked);
        if args.no_bos && encoder.bos().is_some_and(|bos| ids.first() == Some(&bos)) {
            ids.remove(0);
        }
        ids
    }

    fn plain(tokenizer: &Tokenizer, text: &str, args: &Args) -> Vec<u32> {
        tokenizer.bos().filter(|_| !args.no_bos).into_iter().chain(tokenizer.encode(text)).collect()
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let sampling = args.sampling()?;
    let trained = Trained::find(&args.source, args.adapter.as_deref())?;
    let recipe = trained.recipe.as_ref();
    let mut config = trained.place.config.clone();
    if let Some(recipe) = recipe {
        config = recipe.apply(config)?;
    }
    let folder = trained.tokenizer()?;
    let tokenizer = open_tokenizer(&folder)?;
    let prompt = Prompt::new(&args, &trained, &folder)?;
    if let Some(id) = prompt.ids.iter().find(|id| **id as usize >= config.vocab_size) {
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
    let tokens = longest.min(prompt.ids.len().saturating_add(args.max_new_tokens));

    let adapter = trained.adapter.as_deref().map(|folder| Adapter::open(folder, &config)).transpose()?;
    let compute = args.compute(recipe, &config)?;
    let checkpoint = trained.place.checkpoint()?;
    let checkpoint = checkpoint.ok_or_else(|| Error::input(format!("{} has no weights", trained.place.name)))?;
    let quantization = recipe.and_then(|recipe| recipe.quantization.as_ref());
    let nf4 = args.load_in_4bit.then_some(Scheme { kind: QuantKind::Nf4, blocksize: BLOCK, double: true });
    let scheme = quantization.map(|q| q.scheme).or(nf4);
    let skip = quantization.map_or(&[][..], |q| &q.skip_modules);
    let base = base_schemes(&config, Some(&checkpoint), scheme, skip)?;
    let bits = if base.is_empty() { "" } else { " in 4 bits" };
    let modules = adapter.as_ref().map_or(&[][..], |a| &a.modules);
    let spec = inference_spec(&config, compute, modules, base, tokens.max(1))?;
    let map = recipe.and_then(|recipe| recipe.model.device.as_deref());
    let (device, device_name) = args.device.open(map, compute, CpuOptions::default())?;
    let with = trained.adapter.as_ref().map_or_else(String::new, |folder| format!(", adapter {}", folder.display()));
    let base_name = &trained.place.name;
    super::note(&format!("device: {device_name}; {base_name}{bits}, {}{with}", compute.torch_name()));

    let mut session = Session::planned(record(spec)?, device)?;
    load_base(&mut session, &checkpoint, recipe.map_or(LoadDtype::Auto, |recipe| recipe.model.dtype))?;
    let has_adapter = adapter.is_some();
    if let Some(adapter) = adapter {
        load_adapter(&mut session, adapter)?;
        session.begin()?;
    }
    let eos: Vec<u32> = config.eos_ids.iter().copied().chain(prompt.eos).collect();
    let rule = Decoding { max_new_tokens: args.max_new_tokens, eos: &eos, adapter: has_adapter, sampling };
    if args.json {
        let new = decode(&mut session, &prompt.ids, rule, |_| true)?;
        let text = tokenizer.decode(&new).map_err(wrong_text)?;
        say!("{}", serde_json::json!({"prompt_ids": prompt.ids, "new_ids": new, "text": text}));
        return Ok(());
    }
    print(&mut session, &tokenizer, &prompt, rule)
}

fn wrong_text(e: halfbyte_tokenizer::Error) -> Error {
    Error::input(e.to_string())
}

/// Prints the text while it is made: a prompt that is continued as well, of a question only the answer.
fn print(session: &mut Session, tokenizer: &Tokenizer, prompt: &Prompt, rule: Decoding) -> Result<()> {
    let mut decoder = tokenizer.decoder();
    for id in &prompt.ids {
        let text = decoder.push(*id).map_err(wrong_text)?;
        if !prompt.asked {
            out(text);
        }
    }
    let mut begun = !prompt.asked;
    let mut wrong = None;
    decode(session, &prompt.ids, rule, |id| match decoder.push(id) {
        Ok(text) => {
            let text = if begun { text } else { text.trim_start() };
            begun |= !text.is_empty();
            let mut stdout = std::io::stdout().lock();
            // When nobody reads any more, there is no point in going on.
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
        }
        Err(e) => {
            wrong = Some(wrong_text(e));
            false
        }
    })?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    say!("{}", decoder.finish());
    Ok(())
}
