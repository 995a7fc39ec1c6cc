//! Finds and runs the cases of golden sets. A set is a folder with the layout of `app/tests/data/golden`;
//! `HALFBYTE_GOLDEN` names more sets, separated by ':'. `HALFBYTE_DATA` names folders of trained models with reference
//! numbers (`reference`). Every case prints a line with its measurements. A named set without any case is a failure, so
//! that a mistyped path cannot pass.

#![allow(dead_code, reason = "not every harness uses all of it")]

use std::path::{Path, PathBuf};

use crate::project::project;

pub use crate::cases::Outcome;
use crate::cases::Tally;

/// One comparison with recorded numbers.
pub struct Case {
    /// A path-like name, unique in its area, such as `nf4/odd_bf16_333 nf4.bs64.dq`.
    pub name: String,
    /// How it runs, or why it cannot.
    pub work: Work,
}

/// The work of a case.
pub enum Work {
    /// Computes our numbers and compares them.
    Run(Box<dyn FnOnce() -> Outcome>),
    /// Nothing, for this reason: the program refuses by name what was recorded.
    Skip(String),
}

impl Case {
    /// A case called `name` that runs `run`.
    pub fn new(name: impl Into<String>, run: impl FnOnce() -> Outcome + 'static) -> Self {
        Self { name: name.into(), work: Work::Run(Box::new(run)) }
    }

    /// A case that cannot run. It is printed and counted, so that nothing recorded is left out in silence.
    pub fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), work: Work::Skip(reason.into()) }
    }
}

/// Lists the cases of one area (a folder of the set) in the set `root`; empty if the set lacks the area.
pub type Collect = fn(root: &Path) -> Vec<Case>;

/// The areas of one kind of set, by name.
pub type Areas = [(&'static str, Collect)];

/// The folders that an environment variable lists. Relative paths start at the root of the repository.
pub fn named(variable: &str) -> Vec<PathBuf> {
    let places = std::env::var_os(variable).unwrap_or_default();
    std::env::split_paths(&places)
        .filter(|place| !place.as_os_str().is_empty())
        .map(|place| project().join(place))
        .collect()
}

/// Runs every case of `sets` that the command line selects. Returns whether none failed.
pub fn run(sets: &[(PathBuf, &Areas)]) -> bool {
    let mut tally = Tally::from_args();
    for (root, areas) in sets {
        println!("golden set {}", root.display());
        let mut found = 0;
        for (area, collect) in *areas {
            for case in collect(root) {
                found += 1;
                let name = format!("{area}/{}", case.name);
                match case.work {
                    Work::Run(run) => tally.run(&name, run),
                    Work::Skip(reason) => tally.skip(&name, &reason),
                }
            }
        }
        if found == 0 {
            tally.fail(&root.display().to_string(), "no golden case found there");
        }
    }
    tally.end("")
}
