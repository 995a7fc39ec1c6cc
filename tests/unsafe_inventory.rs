//! The table in docs/security.md lists every file with `unsafe` code, and how often the word occurs in it.

use std::collections::BTreeMap;
use std::path::Path;

fn count(root: &Path, folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count(root, &path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
            let uses = words.filter(|word| *word == "unsafe").count();
            if uses > 0 {
                let name = path.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/");
                found.insert(name, uses);
            }
        }
    }
}

#[test]
fn the_inventory_of_unsafe_code_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    for folder in ["src", "app/src", "tokenizer/src"] {
        count(root, &root.join(folder), &mut found);
    }
    let page = std::fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.trim_matches('`').to_string();
        let uses = cells.next()?.parse().ok()?;
        assert!(cells.next().is_some_and(|fact| fact.len() > 10), "{name} names no fact");
        Some((name, uses))
    };
    let listed: BTreeMap<String, usize> = page.lines().filter_map(row).collect();
    assert_eq!(found, listed, "the sources, the page");
}
