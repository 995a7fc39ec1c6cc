//! Shared by the custom test harnesses: runs the cases that the command line selects, prints a line for each, and
//! counts them.

#![allow(dead_code, reason = "not every harness uses all of it")]

/// `Ok`: a short description of the measurement ("worst 3e-7"). `Err`: the failure.
pub type Outcome = Result<String, String>;

/// Whether tests that need a GPU must not be skipped (`REQUIRE_GPU=1`).
pub fn gpu_is_required() -> bool {
    std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1")
}

/// Counts the cases that passed and lists those that failed.
pub struct Tally {
    filter: Vec<String>,
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Tally {
    /// Selects the cases whose names contain all words of the command line.
    pub fn from_args() -> Self {
        let filter = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
        Self { filter, passed: 0, skipped: 0, failed: Vec::new() }
    }

    /// Whether the command line selects this case.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.iter().all(|word| name.contains(word.as_str()))
    }

    /// Runs a selected case and prints its line. A panic counts as a failure.
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

    /// Prints the reason why a selected case cannot run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        if self.wants(name) {
            println!("skip  {name}: {reason}");
            self.skipped += 1;
        }
    }

    /// Records a failure.
    pub fn fail(&mut self, name: &str, wrong: &str) {
        println!("FAIL  {name}: {wrong}");
        self.failed.push(name.into());
    }

    /// The number of cases that passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Prints the names of the failed cases, and the counts followed by `remark`. Returns true if nothing failed.
    pub fn end(&self, remark: &str) -> bool {
        self.failed.iter().for_each(|name| println!("failed: {name}"));
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        println!("{} passed, {} failed{skipped}{remark}", self.passed, self.failed.len());
        self.failed.is_empty()
    }
}
