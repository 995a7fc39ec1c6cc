//! How the program touches files: it writes them whole, maps them, and locks folders. Nothing here follows a link to
//! write, and nothing truncates a file in place.
//!
//! * [`write`](mod@write): writes a file atomically, or only if there is none.
//! * [`mapped`]: maps a file for reading, so that an error names the file even if it shrinks later.
//! * [`lock`]: locks a folder against other runs.

pub mod lock;
pub mod mapped;
pub mod write;
