//! `halfbyte report RUN`: writes the HTML page of a run.

use crate::disk::write::replace_own;
use crate::report::{Source, page};
use halfbyte_core::error::Result;
use std::path::PathBuf;

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
    replace_own(&file, &page::html(&source), page::is_page)?;
    say!(
        "{}: {} logged records, {} evaluations",
        file.display(),
        source.history.logs.len(),
        source.history.evals.len()
    );
    Ok(())
}
