//! Finds the files of a data set: named files, or a folder in the layout of the Hugging Face Hub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::files::{self, FileFormat};
use crate::data::subset::{Slice, slices, split_names};
use crate::data::table::Table;
use crate::hub::{Content, Hub, is_id};
use crate::suggest::nearest;
use halfbyte_core::error::{Error, Result};

/// The files of each split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataFiles {
    splits: Vec<(String, Vec<PathBuf>)>,
}

impl DataFiles {
    /// The given files as the split `train`, in this order.
    pub fn files(paths: &[PathBuf]) -> Result<DataFiles> {
        for path in paths {
            if !path.exists() {
                return Err(missing(path));
            }
            if path.is_dir() {
                return Err(Error::usage(format!(
                    "{} is a folder: it cannot be combined with other files or folders",
                    path.display()
                )));
            }
        }
        Ok(DataFiles { splits: vec![("train".into(), paths.to_vec())] })
    }

    /// The files of a folder, assigned to splits by their names as in the `datasets` library.
    pub fn folder(path: &Path) -> Result<DataFiles> {
        if path.join("state.json").exists() || path.join("dataset_dict.json").exists() {
            return Err(Error::input(format!("{} was written by save_to_disk", path.display()))
                .hint("write it in an open format: dataset.to_parquet(\"train.parquet\")"));
        }
        let mut found = Vec::new();
        walk(path, Path::new(""), &mut found)?;
        let formats = found.iter().filter_map(|p| FileFormat::of(p));
        let mut counts = BTreeMap::<FileFormat, usize>::new();
        formats.for_each(|format| *counts.entry(format).or_default() += 1);
        let Some(&most) = counts.values().max() else {
            return Err(Error::input(format!("{} has no data file", path.display()))
                .hint("data files are .jsonl, .json, .csv, .parquet or .txt"));
        };
        let mut common = counts.iter().filter(|(_, n)| **n == most).map(|(format, _)| *format);
        let (Some(format), None) = (common.next(), common.next()) else {
            return Err(Error::input(format!("{} has data files of several kinds", path.display()))
                .hint("name the files instead of the folder"));
        };
        found.retain(|p| FileFormat::of(p) == Some(format));
        found.sort();
        let splits = assign(&found).into_iter();
        let inside = |files: Vec<PathBuf>| files.into_iter().map(|f| path.join(f)).collect();
        Ok(DataFiles { splits: splits.map(|(name, files)| (name, inside(files))).collect() })
    }

    /// The files of the data set that a recipe names: files, one folder, or one hub id.
    pub fn named(names: &[String], hub: &Hub) -> Result<DataFiles> {
        let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        match &paths[..] {
            [] => {
                Err(Error::usage("the recipe names no data")
                    .hint("give dataset = \"data.jsonl\", a folder or a hub id"))
            }
            [path] if !path.exists() && FileFormat::of(path).is_none() && is_id(&names[0]) => {
                DataFiles::folder(&hub.snapshot(Content::Dataset, &names[0], None)?)
            }
            [path] => DataFiles::path(path),
            _ => DataFiles::files(&paths),
        }
    }

    /// The files behind one path, which is a file or a folder.
    pub fn path(path: &Path) -> Result<DataFiles> {
        if path.is_dir() { DataFiles::folder(path) } else { DataFiles::files(&[path.to_path_buf()]) }
    }

    /// The splits and their files.
    pub fn splits(&self) -> &[(String, Vec<PathBuf>)] {
        &self.splits
    }

    /// Loads the records of a split with slices: "train\[:10%\]". Errors if there are none.
    pub fn load(&self, spec: &str) -> Result<Table> {
        let wanted = split_names(spec)?;
        let mut table = Table::default();
        let (mut sizes, mut firsts) = (Vec::new(), Vec::new());
        for (name, files) in &self.splits {
            firsts.push(table.len());
            if wanted.contains(name) {
                let blocks = files.iter().map(|f| files::open(f)).collect::<Result<_>>()?;
                table.append(Table::new(blocks));
            }
            sizes.push((name.clone(), table.len() - firsts[firsts.len() - 1]));
        }
        let mut rows = Vec::new();
        for Slice { split, start, end } in slices(spec, &sizes)? {
            let first = sizes.iter().zip(&firsts).find(|((name, _), _)| *name == split).map_or(0, |(_, first)| *first);
            rows.extend(first + start..first + end);
        }
        if rows.is_empty() {
            let files = self.splits.iter().filter(|(name, _)| wanted.contains(name)).flat_map(|(_, files)| files);
            let files: Vec<String> = files.map(|f| f.display().to_string()).collect();
            return Err(Error::input(format!("split `{spec}` of {} has no records", files.join(", ")))
                .hint("check the files, and the slice that `split` takes of them"));
        }
        Ok(table.subset(&rows))
    }
}

/// The error for a missing file. Its hint is the nearest name in the folder.
fn missing(path: &Path) -> Error {
    let error = Error::input(format!("data file {} does not exist", path.display()));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&name, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {}?", folder.join(near).display())),
        None => error.hint("paths are relative to the folder that the command runs in"),
    }
}

/// Collects the files below `folder`, relative to `root`, without hidden files and metadata of the data set.
fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    const NO_DATA: [&str; 4] = ["config.json", "dataset_info.json", "dataset_infos.json", "README.txt"];
    let path = root.join(folder);
    for entry in std::fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))? {
        let name = entry.map_err(|e| Error::io("list", &path, e))?.file_name();
        let shown = name.to_string_lossy();
        if shown.starts_with(['.', '_']) || NO_DATA.contains(&shown.as_ref()) {
            continue;
        }
        let inside = folder.join(&name);
        if root.join(&inside).is_dir() {
            walk(root, &inside, found)?;
        } else if FileFormat::of(&inside).is_some() {
            found.push(inside);
        }
    }
    Ok(())
}

/// The words in file names that mark each split.
const KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Assigns files to splits by the first rule that matches any: `data/SPLIT-00000-of-00001.*`, a folder named after a
/// split, a file named after a split. If none matches, all files are `train`.
fn assign(files: &[PathBuf]) -> Vec<(String, Vec<PathBuf>)> {
    let mut sharded: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for file in files {
        if let Some(split) = shard_split(file) {
            match sharded.iter_mut().find(|(name, _)| *name == split) {
                Some((_, files)) => files.push(file.clone()),
                None => sharded.push((split, vec![file.clone()])),
            }
        }
    }
    let by = |part: fn(&Path) -> Vec<String>| -> Vec<(String, Vec<PathBuf>)> {
        let named = |file: &Path, words: &[&str]| part(file).iter().any(|name| has_word(name, words));
        let of = |words: &[&str]| files.iter().filter(|f| named(f, words)).cloned().collect::<Vec<_>>();
        KEYWORDS.map(|(split, words)| (split.to_string(), of(words))).into_iter().filter(|s| !s.1.is_empty()).collect()
    };
    let folders = |file: &Path| {
        let parents = file.parent().into_iter().flat_map(Path::components);
        parents.map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
    };
    // In a file name a separator must follow the word; the dot of the extension counts.
    let name = |file: &Path| file.file_name().map(|n| vec![n.to_string_lossy().into_owned()]).unwrap_or_default();
    let all = || vec![("train".to_string(), files.to_vec())];
    [sharded, by(folders), by(name), all()].into_iter().find(|splits| !splits.is_empty()).unwrap_or_default()
}

/// The split of `data/SPLIT-00000-of-00001-hash.parquet`.
fn shard_split(file: &Path) -> Option<String> {
    let parent = file.parent()?;
    let name = file.file_name()?.to_str()?;
    let stem = name.split('.').next()?;
    let (split, shard) = stem.split_once("-0").or_else(|| stem.split_once('-'))?;
    let digits = shard.split_once("-of-").map(|(n, of)| (n.to_string(), of.split('-').next().unwrap_or("")))?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (parent == Path::new("data") && number(&digits.0) && number(digits.1) && !split.is_empty())
        .then(|| split.to_string())
}

/// Whether `name` contains one of `words` between separators or its ends.
fn has_word(name: &str, words: &[&str]) -> bool {
    let separator = |c: char| matches!(c, '-' | '.' | '_' | ' ' | '/') || c.is_ascii_digit();
    name.split(separator).any(|part| words.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(files: &[&str]) -> Vec<(String, Vec<String>)> {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        let show = |files: Vec<PathBuf>| files.iter().map(|f| f.display().to_string()).collect();
        assign(&files).into_iter().map(|(name, files)| (name, show(files))).collect()
    }

    #[test]
    fn files_go_to_the_splits_that_their_names_say() {
        let one = |name: &str, files: &[&str]| (name.to_string(), files.iter().map(|f| f.to_string()).collect());
        let shards = ["data/train-00000-of-00002-a1b2.parquet", "data/train-00001-of-00002-a1b2.parquet"];
        assert_eq!(
            assigned(&[shards[0], shards[1], "data/test_sft-00000-of-00001.parquet", "extra.parquet"]),
            [one("train", &shards), one("test_sft", &["data/test_sft-00000-of-00001.parquet"])]
        );
        assert_eq!(
            assigned(&["a/training/x.csv", "a/my-dev-set/y.csv", "test.csv"]),
            [one("train", &["a/training/x.csv"]), one("validation", &["a/my-dev-set/y.csv"])]
        );
        assert_eq!(
            assigned(&["alpaca_train.json", "eval.json", "contest.json", "x/val2.json"]),
            [one("train", &["alpaca_train.json"]), one("validation", &["x/val2.json"]), one("test", &["eval.json"])]
        );
        assert_eq!(assigned(&["a.txt", "b.txt"]), [one("train", &["a.txt", "b.txt"])]);
    }
}
