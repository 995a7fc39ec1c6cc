//! The files of a run folder by name, and how a run begins in a folder that may have some.

/// The adapter, which is written when a run has come to its end.
pub const ADAPTER: &str = "adapter_model.safetensors";
/// What was logged, line by line.
pub const METRICS: &str = "metrics.jsonl";
/// The results and the last evaluation, as HF's example scripts write them.
pub const ALL_RESULTS: &str = "all_results.json";
/// What `Trainer.save_state` writes; its `log_history` is what notebooks plot.
pub const TRAINER_STATE: &str = "trainer_state.json";
/// The resolved recipe.
pub const RECIPE: &str = "recipe.toml";

/// How a run begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// In a folder without results of another run.
    Fresh,
    /// Results that are there are removed.
    Overwrite,
    /// From the newest complete checkpoint of the folder.
    Resume,
}
