//! The file names of a run folder, and the ways to start a run in a folder that may contain results.

/// The weights of the adapter, written at the end of a run.
pub const ADAPTER: &str = "adapter_model.safetensors";
/// The configuration of the adapter. It is written after the weights, so a folder with it has both.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file that marks the folder of a run.
pub const MARKER: &str = "run.json";
/// The log: one JSON record per line.
pub const METRICS: &str = "metrics.jsonl";
/// The results and the last evaluation, in the format of HF's example scripts.
pub const ALL_RESULTS: &str = "all_results.json";
/// The file that HF's `Trainer.save_state` writes. Notebooks plot its `log_history`.
pub const TRAINER_STATE: &str = "trainer_state.json";
/// The resolved recipe, as TOML.
pub const RECIPE: &str = "recipe.toml";

/// How a run treats results that exist in its folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunStart {
    /// Existing results are an error.
    Fresh,
    /// Existing results are removed.
    Overwrite,
    /// The run resumes from the newest complete checkpoint in the folder.
    Resume,
}
