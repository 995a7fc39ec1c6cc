//! Locks folders, so that no two runs write to the same one.

use super::write::is_there;
use halfbyte_core::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A locked folder. The lock ends with the process, however that ends.
pub struct FolderLock(#[expect(dead_code, reason = "holds the lock")] File);

impl FolderLock {
    /// Locks `folder` by the file `.lock` in it, which is created if it is missing and never changed. Errors if another
    /// process holds the lock, or if `.lock` is not a file.
    pub fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(".lock");
        // `create_new` follows no link.
        let file = match File::create_new(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if !path.symlink_metadata().is_ok_and(|about| about.is_file()) && is_there(&path) {
                    return Err(Error::usage(format!("{} is not a file", path.display()))
                        .hint("the lock of a run has this name: remove it, or name another folder"));
                }
                OpenOptions::new().write(true).open(&path)
            }
            created => created,
        };
        let file = file.map_err(|e| Error::io("create", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::system(format!("another run is writing to {}", folder.display()))
                    .hint("name another folder, or wait until that run has ended"))
            }
            Err(std::fs::TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
        }
    }
}
