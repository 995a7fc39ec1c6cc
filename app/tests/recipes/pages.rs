//! Every recipe parses, keeps its settings when its defaults are written out, and has a page. The pages name only files
//! that exist.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use halfbyte::config::recipe::Recipe;

use crate::project::project;
use crate::rig::recipe;
use crate::walk::{Case, Outcome};

/// The settings of the quickstart's base model, which are not a recipe.
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
    let recipes = recipes().into_iter().map(|name| Case::new(name.clone(), move || page(&name)));
    recipes.chain([Case::new("paths", paths)]).collect()
}

fn page(name: &str) -> Outcome {
    let parsed = Recipe::open(Path::new(&recipe(name)), &[]).map_err(|e| e.to_string())?;
    let mut again = Recipe::parse(&parsed.resolved_toml(), name, &[]).map_err(|e| e.to_string())?;
    // The resolved recipe leaves out keys without effect.
    again.notes = parsed.notes.clone();
    if again != parsed {
        return Err("the resolved recipe has other settings".into());
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

/// Folders of the repository. A path that begins with one of them must exist.
const FOLDERS: [&str; 9] = ["app", "benches", "docs", "kernels", "compiled", "scripts", "src", "tests", "tokenizer"];

/// Checks every path in the Markdown files, and every source file that they name without its folder.
fn paths() -> Outcome {
    let root = project();
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    let names: HashSet<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    let pages = files.iter().filter(|file| file.starts_with(root.join("docs")));
    let pages = pages.filter(|file| file.extension().is_some_and(|extension| extension == "md")).cloned();
    let (mut checked, mut missing) = (0, Vec::new());
    for page in pages.chain(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name))) {
        let text = std::fs::read_to_string(&page).map_err(|e| format!("{}: {e}", page.display()))?;
        let in_word = |c: char| c.is_ascii_alphanumeric() || "./-_<>*".contains(c);
        let words = text.split(|c| !in_word(c)).map(|word| word.trim_end_matches('.').trim_start_matches("../"));
        // `<family>.rs` is a placeholder, and `scale` the kernel that adding-a-kernel.md writes.
        for word in words.filter(|word| !word.contains(['<', '*']) && !word.contains("/scale.")) {
            let exists = match word.split_once('/') {
                Some((first, _)) if FOLDERS.contains(&first) => root.join(word).exists(),
                None if word.len() > 4 && [".rs", ".cuh"].iter().any(|end| word.ends_with(end)) => names.contains(word),
                _ => continue,
            };
            checked += 1;
            if !exists {
                missing.push(format!("{}: there is no {word}", page.display()));
            }
        }
    }
    if missing.is_empty() { Ok(format!("{checked} paths")) } else { Err(missing.join("\n")) }
}

/// Adds all files below `folder` to `files`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let wrong = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
