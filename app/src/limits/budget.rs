//! A budget of memory for one thread.
//!
//! A template may come with a downloaded model. Its running time is bounded by the engine's fuel, but one expression can
//! double a text, so 33 of them need more memory than any machine has. The allocator of the program counts what a
//! thread with a budget allocates, and ends the program with an error before the system ends it without one.

use halfbyte_core::error::Error;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;

/// The allocator of the program.
pub struct BudgetedAllocator;

/// The value of a thread without a budget.
const UNLIMITED: isize = isize::MAX;

thread_local! {
    /// The bytes that this thread may still allocate.
    static LEFT: Cell<isize> = const { Cell::new(UNLIMITED) };
}

static REPORT: OnceLock<fn(&Error)> = OnceLock::new();

/// Sets how a spent budget is reported before the program ends.
pub(super) fn report_with(report: fn(&Error)) {
    // The first setting stays.
    let _ = REPORT.set(report);
}

/// Runs `work`, during which this thread may hold at most `bytes` more than before.
pub fn with_budget<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    /// Restores the budget that was set before.
    struct Restore(isize);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let _restore = Restore(LEFT.replace(bytes as isize));
    work()
}

/// Takes `bytes` (negative: gives them back) from the thread's budget, if it has one.
fn take(bytes: isize) {
    // A thread that is ending has no budget any more.
    let _ = LEFT.try_with(|left| {
        if left.get() != UNLIMITED {
            left.set(left.get().saturating_sub(bytes));
            if left.get() < 0 {
                // Reporting allocates.
                left.set(UNLIMITED);
                exceeded();
            }
        }
    });
}

/// Ends the program. An allocator must not unwind, so the error cannot be returned.
fn exceeded() -> ! {
    let error = Error::input("a template needs more than 256 MiB of memory for one record")
        .hint("do you trust the model's chat_template? `template` in the recipe replaces it");
    let code = i32::from(error.exit_code());
    match REPORT.get() {
        Some(report) => report(&error),
        None => eprintln!("error: {error}"),
    }
    #[cfg(unix)]
    // SAFETY: `_exit` has no requirements. It runs no destructors, which might wait for this thread.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

// SAFETY: every call is passed on to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for BudgetedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        take(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}
