//! `halfbyte keys [NAME]`: what each key of a recipe does, from the table that reads recipes.

use super::out;
use crate::config::keys::Use;
use crate::config::keys::{Section, all, describe, of_section};
use halfbyte_core::error::Result;

/// Arguments of `keys`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A key [default: all of them, by section]
    name: Option<String>,
}

/// Prints one key or the list.
pub fn run(args: &Args) -> Result<()> {
    out(&match &args.name {
        Some(name) => describe(name)?,
        None => list(),
    });
    Ok(())
}

/// The keys by section with the first sentence about each, then those that are accepted for the sake of other programs'
/// recipes.
fn list() -> String {
    let mut text = String::new();
    for section in Section::ALL {
        text += &format!("[{}]\n", section.name());
        for (name, doc) in of_section(section) {
            let first = doc.text.split_inclusive(". ").next().unwrap_or_default().trim_end();
            text += &format!("  {name} = {}\n      {first}\n", doc.default);
        }
        text.push('\n');
    }
    text += "Accepted without effect, or with some values only\n";
    for key in all() {
        match key.used {
            Use::NoEffect(why) | Use::Only(_, why) => text += &format!("  {}: {why}\n", key.name),
            Use::Used(_) | Use::Alias(_) | Use::Means(..) => {}
        }
    }
    text
}
