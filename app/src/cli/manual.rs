//! `halfbyte completions SHELL` and `halfbyte man`: completions and manual pages, generated from the definitions of
//! `--help`.

use super::out;
use clap_complete::Shell;
use halfbyte_core::error::{Error, Result};

/// Arguments of `completions`.
#[derive(clap::Args, Debug)]
pub struct CompletionArgs {
    /// Shell to complete for
    shell: Shell,
}

/// Arguments of `man`.
#[derive(clap::Args, Debug)]
pub struct ManArgs {
    /// Name of a command [default: the page of the whole program]
    command: Option<String>,
}

/// Prints the completions of a shell for `program`.
pub fn completions(args: &CompletionArgs, mut program: clap::Command) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut program, "halfbyte", &mut text);
    out(&String::from_utf8_lossy(&text));
    Ok(())
}

/// Prints the manual page of `program` or of one of its commands.
pub fn man(args: &ManArgs, mut program: clap::Command) -> Result<()> {
    // `build` fills in full names such as `halfbyte train`.
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
            Error::usage(format!("there is no command {name}")).hint(format!("the commands are {}", names.join(", ")))
        })?,
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|e| Error::system(format!("cannot make the manual page: {e}")))?;
    out(&String::from_utf8_lossy(&text));
    Ok(())
}
