//! Runs the program: its output, its errors, and the files that it writes.

mod bad_data;
mod bad_input;
mod byte_level;
mod changed;
mod decode;
mod divergence;
mod dummy;
mod folder;
mod generate;
mod help;
mod hostile;
mod hub;
#[path = "../shared/hub_server.rs"]
mod hub_server;
mod inspect_data;
mod life;
#[cfg(unix)]
mod limits;
mod memory;
mod own_files;
mod plan;
#[path = "../../../tests/shared/project.rs"]
mod project;
mod quickstart;
mod reference;
mod report;
mod resume;
mod tokenize;
mod track;
mod train;
