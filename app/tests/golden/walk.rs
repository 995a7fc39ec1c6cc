//! Walks golden sets. A set is a folder of the layout of `app/tests/data/golden`; `HALFBYTE_GOLDEN` names more of them
//! (several separated by ':'). `HALFBYTE_DATA` names folders of trained models with reference numbers (`reference`).
//! Every case prints one line with what was measured; a set that is named but has no case in any area is a failure,
//! so that a mistyped path cannot pass.

use std::path::{Path, PathBuf};

use crate::project::project;

pub use crate::cases::Outcome;
use crate::cases::Tally;

/// One comparison with recorded numbers.
pub struct Case {
    /// Path-like name, unique in its area: `nf4/odd_bf16_333 nf4.bs64.dq`.
    pub name: String,
    /// Computes and compares.
    pub run: Box<dyn FnOnce() -> Outcome>,
}

impl Case {
    /// A case called `name` that runs `run`.
    pub fn new(name: impl Into<String>, run: impl FnOnce() -> Outcome + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Lists the cases of one area (a folder of the set) found under a root; empty when the set lacks the area.
pub type Collect = fn(root: &Path) -> Vec<Case>;

/// The areas of a kind of set, by name.
pub type Areas = [(&'static str, Collect)];

/// The folders that an environment variable names; relative ones as seen from the root of the repository.
pub fn named(variable: &str) -> Vec<PathBuf> {
    let places = std::env::var_os(variable).unwrap_or_default();
    std::env::split_paths(&places)
        .filter(|place| !place.as_os_str().is_empty())
        .map(|place| project().join(place))
        .collect()
}

/// Runs every case of `sets` that the command line asks for; true if none failed.
pub fn run(sets: &[(PathBuf, &Areas)]) -> bool {
    let mut tally = Tally::from_args();
    for (root, areas) in sets {
        println!("golden set {}", root.display());
        let mut found = 0;
        for (area, collect) in *areas {
            for case in collect(root) {
                found += 1;
                tally.run(&format!("{area}/{}", case.name), case.run);
            }
        }
        if found == 0 {
            tally.fail(&root.display().to_string(), "no golden case found there");
        }
    }
    tally.end("")
}
