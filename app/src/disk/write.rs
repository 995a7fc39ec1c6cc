//! Writes files atomically: to a temporary file, which is flushed to disk and then renamed.
//!
//! The temporary file of `NAME` is `.NAME.partial`. An existing one is removed before, so that a link of that name is
//! not followed. A kill leaves at most this file, and the next write of `NAME` removes it.

use halfbyte_core::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `text` to `file` atomically.
pub fn write_text(file: &Path, text: &str) -> Result<()> {
    write_bytes(file, text.as_bytes())
}

/// Writes `bytes` to `file` atomically.
pub fn write_bytes(file: &Path, bytes: &[u8]) -> Result<()> {
    write_with(file, |out| out.write_all(bytes).map_err(|e| Error::io("write", file, e)))
}

/// Writes what `fill` writes to `file` atomically. On an error, an existing file stays unchanged.
pub fn write_with(file: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let temporary = temporary(file);
    let written = fill_temporary(&temporary, file, fill)
        .and_then(|()| fs::rename(&temporary, file).map_err(|e| Error::io("rename to", file, e)));
    if written.is_err() {
        // Fails if the file was never created.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    flush_parent(file)
}

/// Writes `bytes` to `file`, which must not exist.
pub fn write_new(file: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary(file);
    let fill = |out: &mut BufWriter<File>| out.write_all(bytes).map_err(|e| Error::io("write", file, e));
    // Unlike a rename, a link never replaces a file.
    let written = fill_temporary(&temporary, file, fill)
        .and_then(|()| fs::hard_link(&temporary, file).map_err(|e| Error::io("create", file, e)));
    let _ = fs::remove_file(&temporary);
    written
}

/// Errors if there is something at `file`, even a dangling link, which a command that writes it would replace.
pub fn refuse_existing(file: &Path, hint: &str) -> Result<()> {
    match is_there(file) {
        true => Err(Error::usage(format!("{} exists already", file.display())).hint(hint)),
        false => Ok(()),
    }
}

/// Writes `text` to `file` atomically. Errors if the file exists and is not an earlier output of the same kind, as
/// `is_ours` tells by its bytes.
pub fn replace_own(file: &Path, text: &str, is_ours: impl Fn(&[u8]) -> bool) -> Result<()> {
    let ours = || file.is_file() && fs::read(file).is_ok_and(|bytes| is_ours(&bytes));
    if is_there(file) && !ours() {
        return Err(Error::usage(format!("{} exists and was not written by this command", file.display()))
            .hint("name another file, or remove this one"));
    }
    write_text(file, text)
}

/// Whether there is anything at `path`: a file, a folder, or a link, even a dangling one.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Creates `folder` with its parents, and flushes the folder in which each new one is, so that they survive a power
/// failure.
pub fn create_folder(folder: &Path) -> Result<()> {
    let new: Vec<&Path> = folder.ancestors().take_while(|f| *f != Path::new("") && !f.exists()).collect();
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    new.into_iter().try_for_each(flush_parent)
}

/// Flushes the folder in which `path` is.
pub fn flush_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => flush(parent),
        _ => flush(Path::new(".")),
    }
}

/// Flushes a file or a folder to disk.
pub fn flush(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| Error::io("flush", path, e))
}

/// Removes the file, the link or the folder at `path`, if there is one. The target of a link stays.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(about) = path.symlink_metadata() else { return Ok(()) };
    let removed = if about.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|e| Error::io("remove", path, e))
}

fn fill_temporary(temporary: &Path, file: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let failed = |e| Error::io("write", file, e);
    if is_there(temporary) {
        fs::remove_file(temporary).map_err(|e| Error::io("remove", temporary, e))?;
    }
    let mut out = BufWriter::new(File::create_new(temporary).map_err(failed)?);
    fill(&mut out)?;
    out.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
}

fn temporary(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".partial");
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, file) = (folder.path().join("mine"), folder.path().join("out.txt"));
        fs::write(&mine, "mine").unwrap();
        for name in ["out.txt", ".out.txt.partial"] {
            let link = folder.path().join(name);
            remove(&link).unwrap();
            std::os::unix::fs::symlink(&mine, &link).unwrap();
            write_text(&file, "ours").unwrap();
            assert_eq!((fs::read_to_string(&mine).unwrap(), fs::read_to_string(&file).unwrap()).0, "mine", "{name}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "ours");
        }
        assert!(!is_there(&folder.path().join(".out.txt.partial")));
    }

    #[test]
    fn a_new_file_replaces_nothing_and_obeys_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        let (file, plain) = (folder.path().join("a"), folder.path().join("b"));
        write_new(&file, b"first").unwrap();
        assert!(write_new(&file, b"second").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"first");
        fs::write(&plain, "").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions(), fs::metadata(&plain).unwrap().permissions());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_file_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        write_text(&file, "before").unwrap();
        let failed = write_with(&file, |out| {
            out.write_all(b"half").unwrap();
            Err(Error::run("no"))
        });
        assert!(failed.is_err());
        assert_eq!(
            (fs::read_to_string(&file).unwrap(), fs::read_dir(folder.path()).unwrap().count()),
            ("before".into(), 1)
        );
    }
}
