//! `halfbyte keys [NAME]`: explains the keys of a recipe, from the table that recipes are checked against.

use super::out;
use crate::config::keys::Use;
use crate::config::keys::{Section, all, describe, of_section};
use halfbyte_core::error::Result;

/// Arguments of `keys`.
#[derive(clap::Args, Debug)]
pub struct KeysArgs {
    /// Name of a key [default: list all keys by section]
    name: Option<String>,
}

/// Prints one key or the list of all keys.
pub fn run(args: &KeysArgs) -> Result<()> {
    out(&match &args.name {
        Some(name) => describe(name)?,
        None => list(),
    });
    Ok(())
}

/// Lists the used keys by section, each with its first sentence, then the keys of other programs that are accepted.
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
