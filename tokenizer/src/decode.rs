//! Ids back to text, whole or as they come.

use crate::Tokenizer;
use crate::assemble::byte_of;
use crate::error::{Error, Result};
use crate::normalize::{SPACE_MARK, push_spaced};
use crate::pieces::{Piece, PieceKind, Pieces};

/// What an id adds to the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Surface {
    /// A control piece.
    Nothing,
    /// Part of a UTF-8 sequence.
    Byte(u8),
    /// The unknown piece: its surface from the settings.
    Unknown,
    /// The piece's text with spaces for `▁`, from here to there in [`Surfaces::texts`].
    Text {
        start: u32,
        end: u32,
        /// Its first space was a `▁`, which is dropped at the beginning of a text.
        marked: bool,
    },
}

/// What every id adds to the text.
pub(crate) struct Surfaces {
    of: Vec<Surface>,
    texts: String,
}

/// What SentencePiece does with `▁` at the beginning of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leading {
    Keep,
    /// Drop the dummy prefix, which is one.
    DropOne,
    /// The first piece of each kind loses one, until something is left of one.
    DropAll,
}

/// Decodes one sequence of ids step by step: what [`push`](Decoder::push) and [`finish`](Decoder::finish) return,
/// put together, is what [`Tokenizer::decode`] returns for the whole sequence. Half a character is kept back until
/// its other bytes have come, so that everything can be printed at once.
pub struct Decoder<'t> {
    tokenizer: &'t Tokenizer,
    state: State,
    ready: String,
}

/// The part of a decoder that is not borrowed.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// Bytes of a character that is not complete yet.
    bytes: Vec<u8>,
    /// Whether the place at which a leading space is dropped has passed.
    begun: bool,
}

impl Tokenizer {
    /// The text of `ids`, as SentencePiece decodes it: control pieces give nothing, one leading space is dropped
    /// (all of them for models that remove extra spaces), bytes that are not UTF-8 become U+FFFD one by one.
    ///
    /// An id that the vocabulary does not have is an error.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut out = String::with_capacity(4 * ids.len());
        let mut state = State::default();
        for &id in ids {
            self.decode_one(&mut state, id, &mut out)?;
        }
        flush(&mut state, &mut out, true);
        Ok(out)
    }

    /// Starts decoding ids as they are generated.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder { tokenizer: self, state: State::default(), ready: String::new() }
    }

    fn decode_one(&self, state: &mut State, id: u32, out: &mut String) -> Result<()> {
        let surfaces = self.surfaces.get_or_init(|| Surfaces::new(&self.pieces, &self.twins));
        let Some(&surface) = surfaces.of.get(id as usize) else {
            return Err(Error::NoSuchId { id, size: self.vocab_size() });
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
            Surface::Nothing | Surface::Byte(_) => return Ok(()),
            Surface::Unknown => self.unk_surface.as_str(),
            Surface::Text { start, end, marked } => {
                let text = &surfaces.texts[start as usize..end as usize];
                let dropped = !state.begun && marked && self.leading != Leading::Keep;
                // A dropped dummy prefix is the only one; where all are dropped the next piece may lose its own.
                state.begun |= dropped && self.leading == Leading::DropOne;
                if dropped { &text[1..] } else { text }
            }
        };
        state.begun |= !text.is_empty();
        out.push_str(text);
        Ok(())
    }
}

impl Surfaces {
    /// Of each pair of `twins`, the first decodes to what the second does.
    fn new(pieces: &Pieces, twins: &[(u32, u32)]) -> Self {
        // A text with spaces for `▁` is not longer, and a vocabulary has less than 4 GB of it.
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

/// Moves complete characters from the bytes to the text. What cannot become one is a U+FFFD for each byte; with
/// `all`, nothing more comes, so that an incomplete character is of that kind.
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

impl Decoder<'_> {
    /// The text that `id` completes; empty if there is none yet.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        self.ready.clear();
        self.tokenizer.decode_one(&mut self.state, id, &mut self.ready)?;
        Ok(&self.ready)
    }

    /// The end of the text: an incomplete character, if there is one, as U+FFFD for each of its bytes.
    pub fn finish(mut self) -> String {
        self.ready.clear();
        flush(&mut self.state, &mut self.ready, true);
        self.ready
    }
}
