//! Files that are mapped into memory for reading.
//!
//! If a mapped file shrinks, or its disk fails, the system sends SIGBUS to the thread that reads the lost page. The
//! handler finds the file by the address and ends the process with an error that names it.

use halfbyte_core::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A file whose bytes are read through a map. It is registered for the handler of SIGBUS.
pub struct MappedFile {
    map: Mmap,
    slot: Option<usize>,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        Self::of(&file, path)
    }

    /// Maps `file`; errors call it `path`.
    pub fn of(file: &File, path: &Path) -> Result<Self> {
        // SAFETY: the map is read-only. Its readers check all that they find in it, so another process that changes the
        // file causes at worst wrong values or an error; one that shortens it causes SIGBUS, which `handle_bus` reports.
        let map = unsafe { Mmap::map(file) }.map_err(|e| Error::io("map", path, e))?;
        let slot = register(map.as_ptr().addr(), map.len(), path);
        Ok(Self { map, slot })
    }

    /// Releases the pages of the file from memory. They are read again when they are accessed. A pass over a large file
    /// calls this regularly to bound its memory.
    pub fn forget(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the map is a read-only map of a file, so released pages are read again with the same contents.
            let advised = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // A system that ignores this advice only uses more memory.
            let _ = advised;
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // The name stays allocated, because a handler may be reading it.
            SLOTS[slot].start.store(0, Ordering::Release);
            SLOTS[slot].taken.store(0, Ordering::Release);
        }
    }
}

/// The address range and the name of a mapped file.
struct Slot {
    taken: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    name: AtomicPtr<Vec<u8>>,
}

/// Files that are mapped at the same time; the names of further ones are not reported.
static SLOTS: [Slot; 512] = [const {
    Slot {
        taken: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        name: AtomicPtr::new(std::ptr::null_mut()),
    }
}; 512];

fn register(start: usize, length: usize, path: &Path) -> Option<usize> {
    let free = |slot: &Slot| slot.taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let at = SLOTS.iter().position(free)?;
    let name = Box::new(path.as_os_str().as_encoded_bytes().to_vec());
    SLOTS[at].name.store(Box::into_raw(name), Ordering::Release);
    SLOTS[at].end.store(start + length.next_multiple_of(4096), Ordering::Release);
    SLOTS[at].start.store(start, Ordering::Release);
    Some(at)
}

/// Reports SIGBUS as an error that names the mapped file.
#[cfg(unix)]
pub fn catch_bus_errors() {
    // SAFETY: all fields of a zeroed `sigaction` are valid, and `handle_bus` has the signature that SA_SIGINFO requires.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle_bus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// The handler of SIGBUS. Calls only functions that POSIX allows in a handler: write and _exit.
#[cfg(unix)]
extern "C" fn handle_bus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system passes a valid `siginfo_t` to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() }.addr();
    let say = |text: &[u8]| {
        // SAFETY: the pointer and the length are those of a slice.
        let _ = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    };
    let holds = |slot: &&Slot| {
        let start = slot.start.load(Ordering::Acquire);
        start != 0 && (start..slot.end.load(Ordering::Acquire)).contains(&address)
    };
    say(b"error: ");
    match SLOTS.iter().find(holds) {
        // SAFETY: names are never freed, and one was stored before `start`.
        Some(slot) => say(unsafe { &*slot.name.load(Ordering::Acquire) }),
        None => say(b"a mapped file"),
    }
    say(b" cannot be read: it was shortened while it was in use, or its disk failed\n");
    say(b"  hint: restore the file; a run continues from its last checkpoint with --resume\n");
    // SAFETY: `_exit` has no requirements.
    unsafe { libc::_exit(4) }
}
