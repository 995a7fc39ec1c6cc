//! A whole training run, from a recipe to an adapter folder. The files below follow the order of the work.
//!
//! * [`files`]: the file names of a run folder.
//! * `locate`: finds the base model and its tokenizer.
//! * [`spec`], [`record`]: specify, record and plan the program.
//! * [`prepare`](prepare()): turns the data into rows, counts steps, and plans the program. It writes nothing.
//! * [`ladder`], [`forecast`], [`fit`]: choose what blocks keep in memory; predict the time of the run; check that it fits
//!   into the device's memory, or suggest what would.
//! * `start`: loads the weights and opens the run folder. All mistakes of the user are reported before that.
//! * `train`: [`Run::train`] trains, evaluates and saves.
//! * `marker`: `run.json`, which tells the folder of a run from one of the user's.
//! * `folder`, `resume`, `save`, [`results`], `samples`: write the run folder, and resume from its checkpoints.

pub mod files;
pub mod fit;
mod folder;
pub mod forecast;
pub mod ladder;
pub mod locate;
mod marker;
mod prepare;
pub mod record;
pub mod results;
mod resume;
mod samples;
mod save;
pub mod spec;
mod start;
mod train;

pub use files::RunStart;
pub use folder::refuse_results;
pub use locate::ModelPlace;
pub use prepare::{Planned, Prepared, prepare};
pub use train::Run;
