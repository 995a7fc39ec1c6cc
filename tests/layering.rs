//! Dependencies point downwards only. A module of a crate uses only modules further down in the map of that crate's
//! `lib.rs`, no others; no two files import each other; and no file imports, within its module, a file that imports it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate of the workspace, read from its sources.
struct Crate {
    /// The folder that holds `lib.rs`.
    src: PathBuf,
    /// Its modules in the order of the map in `lib.rs`, from the top to the bottom.
    order: Vec<String>,
    /// Every source but the roots and unit tests in files of their own, relative to `src`, with its code.
    files: BTreeMap<PathBuf, String>,
}

impl Crate {
    fn read(package: &str) -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("src");
        let lib = std::fs::read_to_string(src.join("lib.rs")).expect("lib.rs");
        let entries = lib.lines().filter(|line| line.starts_with("//! * ["));
        let names = entries.flat_map(|line| line.split("[`").skip(1).filter_map(|rest| rest.split('`').next()));
        let order = names.map(String::from).collect();
        let mut files = BTreeMap::new();
        collect(&src, &src, &mut files);
        Self { src, order, files }
    }

    fn level(&self, module: &str) -> Option<usize> {
        self.order.iter().position(|m| m == module)
    }

    /// The file that holds the module with this path (`device`, `cpu`, `memory`), or the longest part of it that is a file.
    fn file(&self, path: &[String]) -> Option<PathBuf> {
        (1..=path.len()).rev().find_map(|n| {
            let stem: PathBuf = path[..n].iter().collect();
            [stem.with_extension("rs"), stem.join("mod.rs")].into_iter().find(|f| self.files.contains_key(f))
        })
    }

    /// The files whose modules `file` names, itself aside.
    fn imports(&self, file: &Path) -> BTreeSet<PathBuf> {
        let own = module_path(file);
        let parent = own[..own.len() - 1].to_vec();
        let is_folder = file.ends_with("mod.rs");
        let mut found = BTreeSet::new();
        for path in paths(&self.files[file]) {
            let mut parts = path.split("::").map(String::from).peekable();
            let mut base = match parts.next().as_deref() {
                Some("crate") => Vec::new(),
                Some("super") => parent.clone(),
                Some("self") => own.clone(),
                Some(name) if is_folder => [own.clone(), vec![name.into()]].concat(),
                _ => continue,
            };
            while parts.next_if(|part| part == "super").is_some() {
                base.pop();
            }
            base.extend(parts);
            found.extend(self.file(&base).filter(|f| f != file));
        }
        found
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            collect(root, &path, files);
        } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") && !["lib.rs", "main.rs"].contains(&&*name) {
            let text = std::fs::read_to_string(&path).expect("a source");
            // Unit tests may use whatever they like.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code = lines.collect::<Vec<_>>().join("\n");
            files.insert(path.strip_prefix(root).expect("below src").to_path_buf(), code);
        }
    }
}

/// `device/cpu/mod.rs` → `device`, `cpu`; `op/view.rs` → `op`, `view`.
fn module_path(file: &Path) -> Vec<String> {
    let stem = if file.ends_with("mod.rs") { file.parent().expect("a folder") } else { file };
    stem.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// Every path that a source names: those of `use` items with their braces multiplied out, and `crate::…` elsewhere.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let item = &rest[at + 4..];
        let end = item.find(';').unwrap_or(item.len());
        let starts =
            rest[..at].ends_with('\n') || rest[..at].ends_with("pub ") || rest[..at].ends_with("    ") || at == 0;
        if starts {
            flatten(&item[..end], &mut found);
        }
        rest = &item[end..];
    }
    for after in code.split("crate::").skip(1) {
        let path: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        found.push(format!("crate::{}", path.trim_end_matches(':')));
    }
    found
}

/// `a::{b, c::{d}}` → `a::b`, `a::c::d`.
fn flatten(tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        return found.extend(tree.split(" as ").next().map(|path| path.trim().to_string()).filter(|p| !p.is_empty()));
    };
    let (prefix, body) = (&tree[..open], &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())]);
    let (mut depth, mut start) = (0, 0);
    for (i, c) in body.char_indices().chain([(body.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&format!("{prefix}{}", body[start..i].trim()), found);
                start = i + 1;
            }
            _ => {}
        }
    }
}

const PACKAGES: [&str; 3] = ["", "app", "tokenizer"];

#[test]
fn modules_use_only_what_stands_below_them() {
    for package in ["", "app"] {
        let krate = Crate::read(package);
        let mut wrong = Vec::new();
        let mut seen = 0;
        for (file, code) in &krate.files {
            let module = module_path(file)[0].clone();
            let Some(own) = krate.level(&module) else {
                wrong.push(format!("{module} has no place in the map of {package}/src/lib.rs"));
                continue;
            };
            let used: BTreeSet<String> = paths(code)
                .iter()
                .filter_map(|path| path.strip_prefix("crate::")?.split("::").next().map(String::from))
                .filter(|used| *used != module && !used.is_empty())
                .collect();
            for used in used {
                seen += 1;
                if krate.level(&used).is_none_or(|below| below < own) {
                    wrong.push(format!("{} uses {used}, which is not below {module}", file.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 20, "only {seen} uses found: does the test still read the sources?");
    }
}

#[test]
fn the_map_names_every_module() {
    for package in ["", "app"] {
        let krate = Crate::read(package);
        let lib = std::fs::read_to_string(krate.src.join("lib.rs")).expect("lib.rs");
        let modules: BTreeSet<&str> =
            lib.lines().filter_map(|line| line.strip_prefix("pub mod ")).map(|m| m.trim_end_matches(';')).collect();
        let map: BTreeSet<&str> = krate.order.iter().map(String::as_str).collect();
        assert_eq!(map, modules, "{package}/src/lib.rs");
    }
}

#[test]
fn no_two_files_import_each_other() {
    let mut circles = Vec::new();
    for package in PACKAGES {
        let krate = Crate::read(package);
        let imports: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
            krate.files.keys().map(|file| (file, krate.imports(file))).collect();
        let edges: usize = imports.values().map(BTreeSet::len).sum();
        assert!(edges > 10, "only {edges} imports found in {package}/src: does the test still read the sources?");
        for (file, used) in &imports {
            for other in used {
                // A folder's `mod.rs` declares and re-exports its files; they may use what it defines.
                let declares =
                    |a: &Path, b: &Path| a.ends_with("mod.rs") && b.starts_with(a.parent().expect("a folder"));
                if *file < other && imports[other].contains(*file) && !declares(file, other) && !declares(other, file) {
                    circles.push(format!(
                        "{package}/src: {} and {} import each other",
                        file.display(),
                        other.display()
                    ));
                }
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}
