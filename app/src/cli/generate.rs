//! `halfbyte generate RUN "TEXT"`: asks a trained model a question, or continues a text with any model, greedily or by
//! sampling.

use super::device::DeviceArgs;
use super::out;
use super::trained::Trained;
use crate::config::recipe::{LoadDtype, Recipe};
use crate::data::document::{Encoder, open_tokenizer};
use crate::data::open::open_format;
use crate::data::recognize::first_record;
use crate::data::source::DataFiles;
use crate::generate::{Asked, Decoding, ask, decode};
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
pub struct GenerateArgs {
    /// The output folder of a run, a model folder, or a hub id
    #[arg(value_name = "RUN|MODEL")]
    source: String,
    /// The question for the trained model, or the text to continue [default: standard input]
    #[arg(value_name = "PROMPT")]
    text: Option<String>,
    /// The prompt, if it begins with a dash
    #[arg(long, value_name = "TEXT", conflicts_with = "text", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from this file, without a final newline
    #[arg(long, conflicts_with_all = ["text", "prompt"])]
    file: Option<PathBuf>,
    /// Use the prompt verbatim instead of applying the format of the run's training data
    #[arg(long)]
    raw: bool,
    /// Apply this adapter (a run or a folder in PEFT's layout) to MODEL, with MODEL's tokenizer
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// Generate at most this many tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Sample with logits divided by this; 0 always takes the most probable token [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Sample from the k most probable tokens [default: all]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample from the smallest set of tokens whose probabilities sum to at least this [default: 1, all]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Seed for sampling [default: 42]
    #[arg(long)]
    seed: Option<u32>,
    /// Most tokens of prompt and answer together [default: the model's limit]
    #[arg(long, value_name = "N")]
    max_seq_length: Option<usize>,
    /// Quantize the base to NF4 with double quantization [default: as in the run]
    #[arg(long)]
    load_in_4bit: bool,
    /// Type of activations: float32, bfloat16 or float16 [default: that of the run; for a model, 16 bits on a
    /// GPU and float32 on the CPU]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Do not put the begin token in front of the prompt
    #[arg(long)]
    no_bos: bool,
    /// Print ids and text as JSON
    #[arg(long)]
    json: bool,
}

impl GenerateArgs {
    /// The sampling settings of the four flags, checked.
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
            return Err(Error::usage(format!("{flag} has no effect: without --temperature nothing is sampled"))
                .hint("add --temperature 1"));
        }
        Ok(Sampling { temperature, top_k: self.top_k.unwrap_or(0), top_p, seed: self.seed.unwrap_or(42) })
    }

    /// The prompt, from the command line, the file or standard input.
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
        // Editors and `echo` add a final newline that is not part of the prompt.
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// The type of activations: `--dtype`, or that of the run, or the device's default.
    fn compute(&self, recipe: Option<&Recipe>, config: &ModelConfig) -> Result<DType> {
        match (self.dtype.as_deref(), recipe) {
            (Some(name), _) => DType::from_torch_name(name)
                .ok_or_else(|| Error::usage(format!("--dtype {name}: expected float32, bfloat16 or float16"))),
            (None, Some(recipe)) => Ok(recipe.compute),
            (None, None) => self.device.best_type(config.torch_dtype),
        }
    }
}

/// The input tokens.
struct Prompt {
    ids: Vec<u32>,
    /// The prompt is a question, so only the answer is printed.
    asked: bool,
    /// Tokens that end an answer, in addition to those of the model's folder.
    ends: Vec<u32>,
}

impl Prompt {
    /// Formats the prompt like the questions in the run's data. With `--raw`, or if the data have no questions, the
    /// prompt is used verbatim.
    fn new(args: &GenerateArgs, trained: &Trained, tokenizer: &Path) -> Result<Self> {
        let text = args.prompt()?;
        if let Some(recipe) = trained.recipe.as_ref().filter(|_| trained.by_run && !args.raw) {
            let data = &recipe.data;
            let first = || first_record(&DataFiles::named(&data.dataset, &Hub::from_env())?.load(&data.split)?);
            let (format, encoder, _) = open_format(data, tokenizer, first)
                .map_err(|e| e.at(format!("the format of the run's data ({})", args.source)))?;
            let eos = encoder.eos();
            if let Some(Asked { prompt, end }) = ask(&format, &text)? {
                let ends = eos.into_iter().chain(end).collect();
                return Ok(Self { ids: Self::begun(&encoder, &prompt, args), asked: true, ends });
            }
            let ids = Self::plain(encoder.tokenizer(), &text, args);
            return Ok(Self { ids, asked: false, ends: eos.into_iter().collect() });
        }
        Ok(Self { ids: Self::plain(&open_tokenizer(tokenizer)?, &text, args), asked: false, ends: Vec::new() })
    }

    fn begun(encoder: &Encoder, marked: &str, args: &GenerateArgs) -> Vec<u32> {
        let mut ids = encoder.prompt(marked);
        if args.no_bos && encoder.bos().is_some_and(|bos| ids.first() == Some(&bos)) {
            ids.remove(0);
        }
        ids
    }

    fn plain(tokenizer: &Tokenizer, text: &str, args: &GenerateArgs) -> Vec<u32> {
        tokenizer.bos().filter(|_| !args.no_bos).into_iter().chain(tokenizer.encode(text)).collect()
    }
}

/// Runs the command.
pub fn run(args: GenerateArgs) -> Result<()> {
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
        return Err(Error::input(format!(
            "the tokenizer produces id {id}, but the embedding has only {} rows",
            config.vocab_size
        ))
        .hint("the tokenizer does not belong to this model"));
    }
    let max = config.longest_context();
    let longest = args.max_seq_length.unwrap_or(max);
    if longest > max {
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
    let eos: Vec<u32> = config.eos_ids.iter().chain(&prompt.ends).copied().collect();
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

/// Prints the text while it is generated. A text to continue is printed first; a question is not.
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
            // A closed pipe ends the generation.
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
