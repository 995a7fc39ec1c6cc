//! A whole run, as the `train` command does it: from a recipe to an adapter folder. A recipe takes one road through these
//! files.
//!
//! * [`files`]: the files of a run folder by name.
//! * `locate`: where the base model and its tokenizer are.
//! * [`spec`], [`record`]: what a run records; its program, planned.
//! * [`prepare`](prepare()): data into rows, steps counted, program planned. Nothing has been written then.
//! * [`forecast`], `fit`: the time that it will take; whether it fits the device, and what would.
//! * `start`: the weights are loaded, the folder is opened. Any mistake of the user has been found by then.
//! * `train`: [`Run::train`] trains, evaluates, saves.
//! * `folder`, `resume`, `save`, [`results`], `samples`: what it writes, and how it goes on from that.

pub mod files;
mod fit;
mod folder;
pub mod forecast;
pub mod locate;
mod prepare;
pub mod record;
pub mod results;
mod resume;
mod samples;
mod save;
pub mod spec;
mod start;
mod train;

pub use files::Start;
pub use folder::refuse_results;
pub use locate::ModelPlace;
pub use prepare::{Planned, Prepared, prepare};
pub use train::Run;
