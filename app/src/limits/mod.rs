//! Limits of the system and of untrusted input: how the process meets them with an error instead of a silent death.
//!
//! * [`memory`]: the memory that a process may allocate.
//! * [`budget`]: bounds what one thread may allocate while it runs an untrusted template.

pub mod budget;
pub mod memory;

use halfbyte_core::error::{Error, Result};

/// Prepares the process: a write beyond `ulimit -f` becomes an I/O error, a shortened mapped file an error that names
/// it, and a limit on threads an error instead of a panic. `report` prints the error of [`budget`].
pub fn install(report: fn(&Error)) -> Result<()> {
    budget::report_with(report);
    #[cfg(unix)]
    {
        // SAFETY: ignoring a signal runs no code; a write beyond the limit then fails with EFBIG.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        crate::disk::mapped::catch_bus_errors();
    }
    rayon::ThreadPoolBuilder::new().build_global().map_err(|e| {
        Error::system(format!("cannot start the worker threads: {e}"))
            .hint("raise the limits (ulimit -v, ulimit -u), or set RAYON_NUM_THREADS to a smaller number")
    })
}
