//! The reference stays small enough to be read: this test limits its lines and the packages it builds on.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of the core: `src/` and the kernels' sources.
const LINES: usize = 12_000;
/// Packages of the core, itself included, without procedural macros.
const PACKAGES: usize = 30;
/// Folders that a build can leave out: a second code path for one family of cards.
const OPTIONAL: [&str; 2] = ["kernels/sm_90a", "src/device/cuda/sm_90a"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources below `folder` with one of these extensions.
fn sources(folder: PathBuf, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry").path();
        if OPTIONAL.iter().any(|optional| path == root().join(optional)) {
            continue;
        }
        if path.is_dir() {
            sources(path, extensions, found);
        } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
            found.push(path);
        }
    }
}

/// Lines of a source without its unit tests, which stand at its end or in a file of their own.
fn lines(path: &Path) -> usize {
    if path.to_string_lossy().ends_with("_tests.rs") {
        return 0;
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

#[test]
fn the_core_has_at_most_12_000_lines() {
    let mut files = Vec::new();
    sources(root().join("src"), &["rs"], &mut files);
    sources(root().join("kernels"), &["cu", "cuh"], &mut files);
    let total: usize = files.iter().map(|path| lines(path)).sum();
    assert!(files.len() > 80 && total > 8_000, "{} files, {total} lines: are all sources found?", files.len());
    assert!(total <= LINES, "{total} lines");
    println!("{total} lines in {} files", files.len());
}

#[test]
fn the_core_builds_on_at_most_30_packages() {
    let tree = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "-p", "halfbyte-core", "-e", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .args(["--locked", "--offline"])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8_lossy(&tree.stdout);
    let packages: std::collections::BTreeSet<&str> =
        text.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end_matches(" (*)")).collect();
    assert!(packages.iter().any(|package| package.starts_with("rayon ")), "{text}");
    assert!(packages.len() <= PACKAGES, "{} packages:\n{text}", packages.len());
}
