//! What every harness of our own does: run the cases that the command line asks for, print a line for each, and count.

#![allow(dead_code, reason = "not every harness needs all of it")]

/// `Ok`: what was measured, in a few words ("worst 3e-7"). `Err`: what is wrong.
pub type Outcome = Result<String, String>;

/// Whether what needs a GPU must not be skipped (`REQUIRE_GPU=1`).
pub fn gpu_is_required() -> bool {
    std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1")
}

/// The cases so far.
pub struct Tally {
    filter: Vec<String>,
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    /// Runs cases whose name contains all words of the command line.
    pub fn from_args() -> Self {
        let filter = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
        Self { filter, passed: 0, failed: Vec::new() }
    }

    /// Whether the command line asks for a case of this name.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.iter().all(|word| name.contains(word.as_str()))
    }

    /// Runs a case, unless it was filtered out, and prints its line. A panic is a failure.
    pub fn run(&mut self, name: &str, case: impl FnOnce() -> Outcome) {
        if !self.wants(name) {
            return;
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case))
            .unwrap_or_else(|_| Err("panicked (message above)".into()));
        match outcome {
            Ok(measured) => {
                self.passed += 1;
                println!("ok    {name}: {measured}");
            }
            Err(wrong) => self.fail(name, &wrong),
        }
    }

    /// Notes a failure.
    pub fn fail(&mut self, name: &str, wrong: &str) {
        println!("FAIL  {name}: {wrong}");
        self.failed.push(name.into());
    }

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Prints the names of what failed, and the count with `remark` behind it; true if nothing failed.
    pub fn end(&self, remark: &str) -> bool {
        self.failed.iter().for_each(|name| println!("failed: {name}"));
        println!("{} passed, {} failed{remark}", self.passed, self.failed.len());
        self.failed.is_empty()
    }
}
