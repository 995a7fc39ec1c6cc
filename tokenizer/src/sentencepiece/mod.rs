//! SentencePiece's BPE: the ids of SentencePiece 0.2.3, bit for bit.
//!
//! A text passes through these modules in order:
//!
//! * `normalize` applies character rules (`charsmap`), spaces and the dummy prefix;
//! * `user_defined` finds the pieces that come before any merging;
//! * `encode` cuts the text, and looks the parts up or merges them;
//! * `special` splits at literal special tokens first, if the caller asks for them;
//! * `decode` turns ids back into text.
//!
//! `assemble` checks a model and builds a [`SentencePiece`] from it.

mod assemble;
mod charsmap;
mod decode;
mod encode;
mod normalize;
mod special;
mod user_defined;

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

pub(crate) use decode::{Leading, finish};
pub(crate) use normalize::{Normalizer, Prefix};

use crate::pieces::Pieces;
use crate::scratch::Pool;
use crate::vocab::Vocab;
use decode::Surfaces;
pub(crate) use user_defined::UserDefined;

/// A SentencePiece vocabulary, ready to encode and decode.
pub(crate) struct SentencePiece {
    pub(crate) pieces: Pieces,
    vocab: Vocab,
    normalizer: Normalizer,
    user: UserDefined,
    /// Whether some user-defined piece contains a space. Plain text may write that space in two ways, or, at its
    /// beginning, lack it.
    user_with_space: bool,
    /// The two symbols that each unused piece is made of.
    unused: HashMap<u32, (u32, u32)>,
    /// Pieces of one character that text never produces: unused pieces, which have no two halves, and NUL.
    withheld: HashSet<u32>,
    /// The ids of the 256 bytes, if characters without a piece become bytes.
    byte_ids: Option<Box<[u32; 256]>>,
    pub(crate) unk: u32,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
    unk_surface: String,
    pub(crate) leading: Leading,
    /// Pieces that share their text with a reserved piece, and that piece.
    twins: Vec<(u32, u32)>,
    /// Built when decoding first needs it.
    surfaces: OnceLock<Surfaces>,
    pool: Pool,
}
