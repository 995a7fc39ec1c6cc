//! The examples that `--help` prints below the options. Lines have at most 80 columns.

/// `halfbyte --help`.
pub const PROGRAM: &str = "\
Examples:
  halfbyte quickstart                     train a tiny model, without any files
  halfbyte plan recipe.toml               will it fit?
  halfbyte inspect-data recipe.toml       what does the model see?
  halfbyte train recipe.toml
  halfbyte generate runs/first \"Hello?\"   ask the trained model

Exit codes:
  0    done
  2    the command line or the recipe is wrong
  3    a model, an adapter or a data file is wrong or missing
  4    the machine refused: no GPU, not enough memory, disk full
  5    the run failed: the loss is not finite, for instance
  130  stopped by Ctrl-C or SIGTERM; a run in progress has left a checkpoint

With --json, an error is also a JSON event on the last line of standard
output.

Environment:
  HF_HOME, HF_HUB_CACHE      cache of models and data sets from the hub
  HF_TOKEN                   access to gated models
  HF_ENDPOINT                a mirror of the hub
  HF_HUB_OFFLINE=1           download nothing
  NO_COLOR, CLICOLOR, TERM   whether output is colored";

/// `halfbyte quickstart --help`.
pub const QUICKSTART: &str = "\
Examples:
  halfbyte quickstart
  halfbyte quickstart --output /tmp/tiny --set learning_rate=1e-3";

/// `halfbyte train --help`.
pub const TRAIN: &str = "\
Examples:
  halfbyte train recipe.toml
  halfbyte train recipe.toml --set max_steps=100 --set output_dir=runs/short
  halfbyte train recipe.toml --resume
  halfbyte train recipe.toml --dummy-weights --device cuda:1";

/// `halfbyte plan --help`.
pub const PLAN: &str = "\
Examples:
  halfbyte plan recipe.toml
  halfbyte plan recipe.toml --set per_device_train_batch_size=8
  halfbyte plan recipe.toml --set model_name_or_path=mistral-7b-v0.1 \\
      --dummy-weights";

/// `halfbyte inspect-data --help`.
pub const INSPECT_DATA: &str = "\
Examples:
  halfbyte inspect-data recipe.toml
  halfbyte inspect-data recipe.toml --rows 10
  halfbyte inspect-data recipe.toml --row 131,25
  halfbyte inspect-data recipe.toml --write texts.jsonl";

/// `halfbyte generate --help`.
pub const GENERATE: &str = "\
Examples:
  halfbyte generate runs/first \"What is the capital of France?\"
  halfbyte generate runs/first --raw --file prompt.txt
  echo \"Once upon a time\" | halfbyte generate models/Mistral-7B-v0.1
  halfbyte generate models/Mistral-7B-v0.1 --adapter runs/first --prompt \"Hi\"
  halfbyte generate runs/first \"A poem:\" --temperature 0.7 --top-p 0.9 --seed 1";

/// `halfbyte report --help`.
pub const REPORT: &str = "\
Examples:
  halfbyte report runs/first
  halfbyte report runs/first --out first.html";

/// `halfbyte inspect --help`.
pub const INSPECT: &str = "\
Examples:
  halfbyte inspect models/Mistral-7B-v0.1
  halfbyte inspect mistralai/Mistral-7B-v0.1 --target-modules all-linear --r 16
  halfbyte inspect mixtral-8x7b-v0.1 --tree";

/// `halfbyte tokenize --help`.
pub const TOKENIZE: &str = "\
Examples:
  halfbyte tokenize models/Mistral-7B-v0.1 \"Hello world\"
  halfbyte tokenize models/Mistral-7B-v0.1 --show pieces --file text.txt
  halfbyte tokenize models/Mistral-7B-v0.1 --decode 22557 1526";

/// `halfbyte devices --help`.
pub const DEVICES: &str = "\
Examples:
  halfbyte devices
  halfbyte devices --kernels";

/// `halfbyte keys --help`.
pub const KEYS: &str = "\
Examples:
  halfbyte keys
  halfbyte keys learning_rate";

/// `halfbyte completions --help`.
pub const COMPLETIONS: &str = "\
Examples:
  halfbyte completions bash > ~/.bash_completion
  halfbyte completions zsh > ~/.zfunc/_halfbyte
  halfbyte completions fish > ~/.config/fish/completions/halfbyte.fish";

/// `halfbyte man --help`.
pub const MAN: &str = "\
Examples:
  halfbyte man > ~/.local/share/man/man1/halfbyte.1
  halfbyte man train | man -l -";
