//! Ids back to text: the bytes of all tokens, read as UTF-8.

use super::ByteLevel;
use crate::decode::State;
use crate::error::{Error, Result};
use crate::pieces::PieceKind;

impl ByteLevel {
    /// Appends the characters that `id` completes. With `show_control`, control tokens add their own text.
    pub(crate) fn decode_one(&self, state: &mut State, id: u32, show_control: bool, out: &mut String) -> Result<()> {
        let Some(kind) = self.pieces.kinds().get(id as usize) else {
            return Err(Error::NoSuchId { id, size: self.pieces.len() });
        };
        if *kind == PieceKind::Control && !show_control {
            return Ok(());
        }
        let bytes = self.bytes().of(id);
        match std::str::from_utf8(bytes) {
            Ok(text) if state.bytes.is_empty() => out.push_str(text),
            _ => {
                state.bytes.extend_from_slice(bytes);
                flush(state, out, false);
            }
        }
        Ok(())
    }
}

/// Ends the text: an incomplete character becomes one U+FFFD.
pub(crate) fn finish(state: &mut State, out: &mut String) {
    flush(state, out, true);
}

/// Moves the text from the bytes to `out`, with one U+FFFD for each maximal part that is not UTF-8. An incomplete
/// character at the end stays, unless these are `all` the bytes.
fn flush(state: &mut State, out: &mut String, all: bool) {
    let mut kept = 0;
    let mut rest = state.bytes.utf8_chunks().peekable();
    while let Some(chunk) = rest.next() {
        out.push_str(chunk.valid());
        let broken = chunk.invalid();
        if broken.is_empty() {
            continue;
        }
        let incomplete = std::str::from_utf8(broken).is_err_and(|e| e.error_len().is_none());
        if incomplete && !all && rest.peek().is_none() {
            kept = broken.len();
        } else {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let done = state.bytes.len() - kept;
    state.bytes.drain(..done);
}
