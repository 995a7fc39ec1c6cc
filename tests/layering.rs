//! Dependencies point downwards only: a module of the crate uses modules that stand below it in this list, and no others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the top to the bottom; the same order as in the map of `src/lib.rs`.
const ORDER: [&str; 17] = [
    "cli",
    "quickstart",
    "report",
    "run",
    "generate",
    "train",
    "model",
    "weights",
    "data",
    "tape",
    "device",
    "plan",
    "op",
    "track",
    "config",
    "dtype",
    "error",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a source names as `crate::…`, comments aside.
fn uses(source: &str) -> BTreeSet<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = |line: &str| -> Vec<String> {
        let names = line.split("crate::").skip(1);
        names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
    };
    code.flat_map(after).filter(|name: &String| !name.is_empty()).collect()
}

#[test]
fn dependencies_point_downwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files {
        let inside = file.strip_prefix(&root).expect("below src");
        // Tests inside of the crate may use whatever they like; the roots name everything.
        if inside.to_string_lossy().ends_with("_tests.rs")
            || ["lib.rs", "main.rs"].iter().any(|r| inside == Path::new(r))
        {
            continue;
        }
        let module = inside.components().next().expect("a name").as_os_str().to_string_lossy().replace(".rs", "");
        let level = |name: &str| ORDER.iter().position(|m| *m == name);
        let Some(own) = level(&module) else {
            wrong.push(format!("{module} has no place in the order of modules"));
            continue;
        };
        let source = std::fs::read_to_string(&file).expect("a source");
        for used in uses(&source).into_iter().filter(|used| *used != module) {
            seen += 1;
            if level(&used).is_none_or(|below| below < own) {
                wrong.push(format!("{} uses {used}, which does not stand below {module}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} uses found: does the test still read the sources?");
}

#[test]
fn the_map_of_the_crate_is_in_this_order() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let named = |line: &str| line.strip_prefix("//! * [`").and_then(|rest| rest.split('`').next()).map(String::from);
    let map: Vec<String> = text.lines().filter_map(named).collect();
    let places: Vec<_> = map.iter().map(|m| ORDER.iter().position(|o| o == m)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{map:?}");
    for line in text.lines() {
        let module = line.strip_prefix("pub mod ").map(|rest| rest.trim_end_matches(';'));
        assert!(module.is_none_or(|m| text.contains(&format!("[`{m}`]"))), "the map lacks {module:?}");
    }
}
