//! Decodes ids to text as SentencePiece does.

use super::SentencePiece;
use crate::decode::State;
use crate::error::{Error, Result};
use crate::pieces::{Piece, PieceKind, Pieces, SPACE_MARK, byte_of, push_spaced};

/// The text that an id adds when it is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Surface {
    /// A control piece adds no text.
    Nothing,
    /// One byte of a UTF-8 sequence.
    Byte(u8),
    /// The unknown piece, whose text is a setting of the model.
    Unknown,
    /// A range of [`Surfaces::texts`]: the piece's text with spaces for `▁`.
    Text {
        start: u32,
        end: u32,
        /// The piece begins with a `▁`. Its space is dropped at the beginning of the decoded text.
        marked: bool,
    },
}

/// The text that each id adds when it is decoded.
pub(crate) struct Surfaces {
    of: Vec<Surface>,
    texts: String,
}

/// The treatment of `▁` at the beginning of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leading {
    Keep,
    /// Drop one space, which is the dummy prefix.
    DropOne,
    /// Drop one space from each piece until a piece has text left.
    DropAll,
}

impl SentencePiece {
    /// Appends what `id` adds to the text. With `show_control`, a control piece adds its own text.
    pub(crate) fn decode_one(&self, state: &mut State, id: u32, show_control: bool, out: &mut String) -> Result<()> {
        let surfaces = self.surfaces.get_or_init(|| Surfaces::new(&self.pieces, &self.twins));
        let Some(&surface) = surfaces.of.get(id as usize) else {
            return Err(Error::NoSuchId { id, size: self.pieces.len() });
        };
        if let Surface::Byte(byte) = surface {
            state.bytes.push(byte);
            flush(state, out, false);
            return Ok(());
        }
        if !state.bytes.is_empty() {
            flush(state, out, true);
        }
        let text = match surface {
            Surface::Nothing if show_control => self.pieces.text(id as usize),
            Surface::Nothing | Surface::Byte(_) => return Ok(()),
            Surface::Unknown => self.unk_surface.as_str(),
            Surface::Text { start, end, marked } => {
                let text = &surfaces.texts[start as usize..end as usize];
                let dropped = !state.begun && marked && self.leading != Leading::Keep;
                // With DropOne, the dummy prefix is gone now. With DropAll, the next piece may lose its space, too.
                state.begun |= dropped && self.leading == Leading::DropOne;
                if dropped { &text[1..] } else { text }
            }
        };
        state.begun |= !text.is_empty();
        out.push_str(text);
        Ok(())
    }
}

/// Ends the text. An incomplete character becomes one U+FFFD for each of its bytes.
pub(crate) fn finish(state: &mut State, out: &mut String) {
    flush(state, out, true);
}

impl Surfaces {
    /// The first piece of each pair of `twins` decodes like the second.
    fn new(pieces: &Pieces, twins: &[(u32, u32)]) -> Self {
        // Offsets fit: writing `▁` as a space makes no text longer, and a vocabulary has less than 4 GB of text.
        let mut texts = String::with_capacity(pieces.texts().len());
        let surface = |piece: Piece| match piece.kind {
            PieceKind::Control => Surface::Nothing,
            PieceKind::Unknown => Surface::Unknown,
            PieceKind::Byte => byte_of(piece.text).map_or(Surface::Nothing, Surface::Byte),
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => {
                let start = texts.len() as u32;
                push_spaced(&mut texts, piece.text, true);
                Surface::Text { start, end: texts.len() as u32, marked: piece.text.starts_with(SPACE_MARK) }
            }
        };
        let mut of: Vec<Surface> = pieces.iter().map(surface).collect();
        for &(twin, id) in twins {
            of[twin as usize] = of[id as usize];
        }
        Self { of, texts }
    }
}

/// Moves complete characters from the bytes to the text. Each byte that cannot be part of a character becomes U+FFFD.
/// An incomplete character at the end stays, unless these are `all` the bytes.
fn flush(state: &mut State, out: &mut String, all: bool) {
    let mut rest = state.bytes.as_slice();
    while !rest.is_empty() {
        state.begun = true;
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                rest = &[];
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(good));
                if error.error_len().is_none() && !all {
                    rest = bad;
                    break;
                }
                out.push(char::REPLACEMENT_CHARACTER);
                rest = &bad[1..];
            }
        }
    }
    let kept = rest.len();
    let done = state.bytes.len() - kept;
    state.bytes.drain(..done);
}
