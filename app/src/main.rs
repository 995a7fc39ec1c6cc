//! The `halfbyte` program.

use halfbyte::limits::budget::BudgetedAllocator;
use std::process::ExitCode;

/// Counts what untrusted templates allocate.
#[global_allocator]
static ALLOCATOR: BudgetedAllocator = BudgetedAllocator;

fn main() -> ExitCode {
    halfbyte::cli::main()
}
