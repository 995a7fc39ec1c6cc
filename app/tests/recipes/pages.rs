//! Every recipe parses, keeps its meaning when its defaults are written out, and has a page.

use std::path::Path;

use halfbyte::config::recipe::Recipe;

use crate::project::project;
use crate::rig::recipe;
use crate::walk::{Case, Outcome};

/// The file that describes how the quickstart's base model was trained. It is not a recipe.
const NO_RECIPE: &str = "quickstart-base";

/// The names of all recipes.
pub fn recipes() -> Vec<String> {
    let entries = std::fs::read_dir(project().join("docs/recipes")).expect("docs/recipes");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".toml").map(String::from)).collect();
    names.retain(|name| name != NO_RECIPE);
    names.sort();
    names
}

pub fn cases(_: &Path) -> Vec<Case> {
    recipes().into_iter().map(|name| Case::new(name.clone(), move || page(&name))).collect()
}

fn page(name: &str) -> Outcome {
    let parsed = Recipe::open(Path::new(&recipe(name)), &[]).map_err(|e| e.to_string())?;
    let mut again = Recipe::parse(&parsed.resolved_toml(), name, &[]).map_err(|e| e.to_string())?;
    // The resolved recipe leaves out keys without effect.
    again.notes = parsed.notes.clone();
    if again != parsed {
        return Err("the resolved recipe differs from the recipe".into());
    }
    let page = std::fs::read_to_string(project().join(format!("docs/recipes/{name}.md")));
    let page = page.map_err(|e| format!("{name}.md: {e}"))?;
    let file = format!("{name}.toml");
    if !page.contains(&file) {
        return Err(format!("{name}.md does not name {file}"));
    }
    // Every `--set` key on a page must exist.
    for setting in page.split("--set ").skip(1).map(|rest| rest.split(['\n', ' ', '`', '\\']).next().unwrap_or("")) {
        let key = setting.trim_start_matches('\'').split('=').next().unwrap_or("");
        if halfbyte::config::keys::lookup(key).is_none() {
            return Err(format!("{name}.md: --set {setting}: there is no key {key:?}"));
        }
    }
    Ok(format!("{} notes", parsed.notes.len()))
}
