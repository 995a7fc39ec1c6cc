//! `halfbyte report RUN`: writes the HTML page of a run.

use crate::disk::write::{is_there, write_text};
use crate::report::{Source, page};
use halfbyte_core::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Arguments of `report`.
#[derive(clap::Args, Debug)]
pub struct ReportArgs {
    /// The output_dir of a run, or any folder with a metrics.jsonl
    run: PathBuf,
    /// File to write [default: report.html in the folder of the run]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ReportArgs) -> Result<()> {
    let source = Source::open(&args.run)?;
    source.notes.iter().for_each(|note| say!("note: {note}"));
    let file = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    refuse_foreign(&file)?;
    write_text(&file, &page::html(&source))?;
    say!(
        "{}: {} logged records, {} evaluations",
        file.display(),
        source.history.logs.len(),
        source.history.evals.len()
    );
    Ok(())
}

/// Errors if `file` exists and is not an earlier page.
fn refuse_foreign(file: &Path) -> Result<()> {
    let is_page = || file.is_file() && std::fs::read(file).is_ok_and(|bytes| page::is_page(&bytes));
    if !is_there(file) || is_page() {
        return Ok(());
    }
    Err(Error::usage(format!("{} exists and is not a page of this command", file.display()))
        .hint("name another file with --out, or remove this one"))
}
