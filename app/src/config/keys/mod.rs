//! Every key that a recipe may have: the parameters of Hugging Face's `TrainingArguments`, `SFTConfig`, `LoraConfig`,
//! `BitsAndBytesConfig` and `from_pretrained` under their own names, the names that Axolotl, LLaMA-Factory and Unsloth
//! give to the same settings, and our own. This table is the only place that documents a key; [`describe`] prints it.
//!
//! * `model`, `data`, `adapter`, `training`: the rows, by the section of a recipe that they belong to.

mod adapter;
mod data;
mod model;
mod training;

use crate::suggest::nearest;
use halfbyte_core::error::{Error, Result};

/// The sections of a recipe, in the order in which the resolved recipe is printed. A recipe may have a key in
/// any section or above all sections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// The model that is fine-tuned.
    Model,
    /// The data that it is trained on.
    Data,
    /// The adapter.
    Lora,
    /// The 4-bit base.
    Quantization,
    /// Optimizer, schedule, logging, evaluation, checkpoints.
    Training,
}

impl Section {
    /// All sections, in order.
    pub const ALL: [Section; 5] =
        [Section::Model, Section::Data, Section::Lora, Section::Quantization, Section::Training];

    /// The name of its table in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Section::Model => "model",
            Section::Data => "data",
            Section::Lora => "lora",
            Section::Quantization => "quantization",
            Section::Training => "training",
        }
    }
}

/// The reaction of `--resume` to a value that differs from the one in the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Refuses: the checkpoint does not fit the new value.
    Fixed,
    /// Accepts and reports it: the results will differ from those of the original run.
    Noted,
    /// Accepts: the results do not change.
    Free,
}

/// The documentation of a used key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Doc {
    /// The section that the key belongs to.
    pub section: Section,
    /// Whether a resumed run may change it.
    pub resume: Resume,
    /// The values that it takes.
    pub takes: &'static str,
    /// The default as TOML, or in words when there is no fixed value.
    pub default: &'static str,
    /// The effect of the key. Lists show only the first sentence.
    pub text: &'static str,
}

/// The way in which a key of a recipe is treated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Use {
    /// Used under this name.
    Used(Doc),
    /// Another name of a used key.
    Alias(&'static str),
    /// Another program's way to set a used key. Each of its values (as TOML) stands for a value of that key, or sets
    /// nothing ("").
    Means(&'static str, &'static [(&'static str, &'static str)]),
    /// Accepted without effect. The report gives the reason.
    NoEffect(&'static str),
    /// Not implemented: accepted with one of these values (as TOML), otherwise refused for this reason.
    Only(&'static [&'static str], &'static str),
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RecipeKey {
    /// The name in a recipe.
    pub name: &'static str,
    /// The way in which it is treated.
    pub used: Use,
}

impl RecipeKey {
    /// The used key that this one sets, if any.
    pub fn target(&self) -> Option<&'static str> {
        match self.used {
            Use::Used(_) => Some(self.name),
            Use::Alias(of) | Use::Means(of, _) => Some(of),
            Use::NoEffect(_) | Use::Only(..) => None,
        }
    }
}

const fn used(
    name: &'static str,
    section: Section,
    resume: Resume,
    takes: &'static str,
    default: &'static str,
    text: &'static str,
) -> RecipeKey {
    RecipeKey { name, used: Use::Used(Doc { section, resume, takes, default, text }) }
}

const fn alias(name: &'static str, of: &'static str) -> RecipeKey {
    RecipeKey { name, used: Use::Alias(of) }
}

const fn means(name: &'static str, of: &'static str, values: &'static [(&'static str, &'static str)]) -> RecipeKey {
    RecipeKey { name, used: Use::Means(of, values) }
}

const fn no_effect(name: &'static str, why: &'static str) -> RecipeKey {
    RecipeKey { name, used: Use::NoEffect(why) }
}

const fn only(name: &'static str, values: &'static [&'static str], why: &'static str) -> RecipeKey {
    RecipeKey { name, used: Use::Only(values, why) }
}

// Reasons that several keys share.
const NO_FRAMEWORK: &str = "halfbyte has its own kernels and loaders";
const ONE_PROCESS: &str = "halfbyte runs as one process";
pub(super) const SECRET: &str = "a recipe must not hold secrets; set the environment variable HF_TOKEN";
const NOT_IMPLEMENTED: &str = "halfbyte does not implement this";

/// All known keys. The used ones are in the order of the resolved recipe.
pub fn all() -> impl Iterator<Item = &'static RecipeKey> {
    [model::KEYS, data::KEYS, adapter::KEYS, training::KEYS].into_iter().flatten()
}

/// The row of `name`; None for an unknown key.
pub fn lookup(name: &str) -> Option<&'static RecipeKey> {
    all().find(|key| key.name == name)
}

/// The used keys of a section, with their documentation.
pub fn of_section(section: Section) -> impl Iterator<Item = (&'static str, &'static Doc)> {
    all().filter_map(move |key| match &key.used {
        Use::Used(doc) if doc.section == section => Some((key.name, doc)),
        _ => None,
    })
}

/// The documentation of `name` for a user: its values, default, effect and other names; or why it is refused or has no
/// effect. Errors if there is no such key.
pub fn describe(name: &str) -> Result<String> {
    let Some(key) = lookup(name) else { return Err(unknown(name)) };
    Ok(match key.used {
        Use::Used(doc) => describe_used(name, &doc),
        Use::Alias(of) => format!("{name} is another name of {of}.\n\n{}", describe(of)?),
        Use::Means(of, values) => {
            let settings = values.iter().map(|(value, ours)| match *ours {
                "" => format!("  {name} = {value} sets nothing\n"),
                ours => format!("  {name} = {value} means {of} = {ours}\n"),
            });
            format!("{name} sets {of}:\n{}\n{}", settings.collect::<String>(), describe(of)?)
        }
        Use::NoEffect(why) => format!("{name} is accepted and has no effect: {why}.\n"),
        Use::Only([], why) => format!("{name} is refused: {why}.\n"),
        Use::Only(values, why) => format!("{name} is accepted only as {}: {why}.\n", values.join(" or ")),
    })
}

fn describe_used(name: &str, doc: &Doc) -> String {
    let resume = match doc.resume {
        Resume::Fixed => "refuses another value",
        Resume::Noted => "accepts another value and reports it",
        Resume::Free => "accepts another value",
    };
    let mut text = format!(
        "{name}\n  section   [{}]\n  takes     {}\n  default   {}\n  --resume  {resume}\n",
        doc.section.name(),
        doc.takes,
        doc.default
    );
    let is_alias = |key: &&RecipeKey| matches!(key.used, Use::Alias(of) if of == name);
    let aliases: Vec<&str> = all().filter(is_alias).map(|key| key.name).collect();
    if !aliases.is_empty() {
        text += &format!("  also      {}\n", aliases.join(", "));
    }
    for key in all() {
        if matches!(key.used, Use::Means(of, _) if of == name) {
            text += &format!("  see       {}\n", key.name);
        }
    }
    text + "\n" + doc.text + "\n"
}

/// The error for an unknown key. Only keys with an effect are suggested.
fn unknown(name: &str) -> Error {
    let error = Error::usage(format!("there is no key `{name}`"));
    match suggestion(name) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`halfbyte keys` lists all keys"),
    }
}

/// The key with an effect whose name is nearest to `name`.
pub fn suggestion(name: &str) -> Option<&'static str> {
    nearest(name, all().filter(|key| key.target().is_some()).map(|key| key.name))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
