//! A folder with a tiny random model, data and a recipe; and the program, run in it.

use crate::project::project;
use halfbyte::weights::names::tensors;
use halfbyte::weights::safetensors::{Output, write};
use halfbyte_core::dtype::DType;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The output and exit code of a program.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Checks that it failed with this exit code, one error line and one hint, without a panic.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        assert!(self.err.starts_with("error: ") && !self.err.contains("panicked"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
    }

    /// Checks that it succeeded.
    pub fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }
}

/// A temporary folder.
pub struct Folder(tempfile::TempDir);

/// A recipe that trains in a second.
pub const RECIPE: &str = r#"
model_name_or_path = "model"
dataset = ["data.jsonl"]
template = "Q: {{ question }} A: {{ answer }}</s>"
special_in_template = true
test_size = 4
output_dir = "run"
load_in_4bit = true
bnb_4bit_quant_type = "nf4"
bnb_4bit_compute_dtype = "float32"
r = 4
lora_alpha = 8
target_modules = ["q_proj", "v_proj", "down_proj"]
learning_rate = 0.01
per_device_train_batch_size = 4
max_steps = 6
max_seq_length = 32
logging_steps = 2
"#;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "torch_dtype": "float32", "tie_word_embeddings": false, "vocab_size": "#;

impl Folder {
    /// An empty folder.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// A folder with a Llama model, data and a recipe.
    pub fn new() -> Self {
        Self::with(CONFIG)
    }

    /// A folder with a model of this config.json (with the tokenizer's vocabulary size), data and a recipe.
    pub fn with(config: &str) -> Self {
        let folder = Self::empty();
        let source = project().join("tokenizer/tests/data/tokenizers/small/tokenizer.model");
        let vocab = halfbyte_tokenizer::Tokenizer::open(&source).expect("the tests' tokenizer").vocab_size();
        folder.text("model/config.json", &format!("{config}{vocab}}}"));
        std::fs::copy(source, folder.path("model/tokenizer.model")).expect("copied");
        folder.weights("model");
        let rows: Vec<String> =
            (0..24).map(|i| format!(r#"{{"question": "what comes after {i}?", "answer": "{}"}}"#, i + 1)).collect();
        folder.text("data.jsonl", &rows.join("\n"));
        folder.text("recipe.toml", RECIPE);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn text(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    /// Random weights for the config in `model`.
    pub fn weights(&self, model: &str) {
        let config = halfbyte::config::config_json::open(&self.path(model)).expect("a valid config");
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.3
        };
        let outputs: Vec<Output> = tensors(&config)
            .into_iter()
            .map(|slot| {
                let n: usize = slot.shape.iter().product();
                let norm = slot.name.ends_with("norm.weight");
                let values: Vec<f32> = (0..n).map(|_| if norm { 1.0 } else { random() }).collect();
                Output::floats(slot.name, DType::F32, slot.shape, &values)
            })
            .collect();
        write(&self.path(model).join("model.safetensors"), &outputs).expect("written");
    }

    /// Starts `halfbyte` in the folder.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = Command::new(program());
        command.args(args);
        self.start_command(command)
    }

    /// Starts any command in the folder.
    pub fn start_command(&self, mut command: Command) -> Child {
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// Runs `halfbyte` in the folder.
    pub fn run(&self, args: &[&str]) -> Said {
        Said::of(self.start(args))
    }

    /// Runs `halfbyte` in the folder with more in its environment.
    pub fn run_with(&self, environment: &[(&str, &str)], args: &[&str]) -> Said {
        let mut command = Command::new(program());
        command.args(args).envs(environment.iter().copied());
        Said::of(self.start_command(command))
    }

    /// Runs `halfbyte` in the folder with `text` as its standard input.
    pub fn run_on(&self, text: &str, args: &[&str]) -> Said {
        self.text("standard-input", text);
        let input = std::fs::File::open(self.path("standard-input")).expect("opened");
        let mut command = Command::new(program());
        let child = command.args(args).current_dir(self.0.path()).stdin(input).stdout(Stdio::piped());
        Said::of(child.stderr(Stdio::piped()).spawn().expect("the program starts"))
    }
}

/// The path of `halfbyte`: the built one, or `HALFBYTE_BIN` on a machine where it was not built.
pub fn program() -> PathBuf {
    let given = std::env::var_os("HALFBYTE_BIN").map(PathBuf::from);
    given.map_or(env!("CARGO_BIN_EXE_halfbyte").into(), |p| p.canonicalize().expect("HALFBYTE_BIN is a file"))
}

impl Said {
    /// Waits for a started program and returns its output.
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().expect("the program ends");
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
