//! Byte-level BPE with the ids of Hugging Face's `tokenizers`.
//!
//! A text passes through these modules in order:
//!
//! * `added` finds added tokens, as written and after NFC;
//! * `split` cuts the text between them into words;
//! * `encode` looks words up or merges their bytes; `joints` says where a long word can be cut before merging;
//! * `decode` turns ids back into text; `alphabet` knows which bytes a token's text stands for.

mod added;
mod alphabet;
mod decode;
mod encode;
mod joints;
mod split;

use std::sync::OnceLock;

pub(crate) use added::{AddedToken, Flags};
pub(crate) use alphabet::char_of;
pub(crate) use decode::finish;
pub(crate) use split::{GPT2, Splitter};

use crate::cache::SHORT;
use crate::error::{Error, Result};
use crate::merge::BytePairs;
use crate::pieces::{PieceKind, Pieces};
use crate::scratch::Pool;
use crate::unicode::normalize;
use crate::vocab::{Order, Vocab};
use added::Added;
use alphabet::Alphabet;
use joints::Joints;

/// A byte-level vocabulary, ready to encode and decode.
pub(crate) struct ByteLevel {
    pub(crate) pieces: Pieces,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
    vocab: Vocab,
    /// The symbol of each byte. A byte without a token has [`NO_SYMBOL`] and is dropped from the text.
    symbols: Box<[u32; 256]>,
    /// The character that stands for each byte in the texts of tokens.
    chars: Box<[char; 256]>,
    splitter: Splitter,
    settings: ByteLevelSettings,
    added: Added,
    /// The merges of all pairs of bytes. `None` if some byte has no token.
    byte_pairs: Option<BytePairs>,
    /// This field and the next two are built on first use.
    bytes: OnceLock<TokenBytes>,
    joints: OnceLock<Joints>,
    long_tokens: OnceLock<LongTokens>,
    pool: Pool,
}

const NO_SYMBOL: u32 = u32::MAX;

/// The settings of a file that are independent of its vocabulary.
#[derive(Clone, Copy, Default)]
pub(crate) struct ByteLevelSettings {
    /// Text is normalized to NFC before it is encoded.
    pub(crate) nfc: bool,
    /// A word that is a token becomes that token, even if merging gives something else.
    pub(crate) ignore_merges: bool,
}

/// The bytes of all tokens.
struct TokenBytes {
    bytes: Vec<u8>,
    /// The end offset of each token's bytes. They start where the bytes of the previous token end.
    ends: Vec<u32>,
}

impl TokenBytes {
    fn new(pieces: &Pieces) -> Self {
        let alphabet = Alphabet::new();
        let mut bytes = Vec::with_capacity(pieces.texts().len());
        let ends = pieces.iter().map(|piece| {
            alphabet.push_bytes(piece.text, &mut bytes);
            bytes.len() as u32
        });
        let ends = ends.collect();
        Self { bytes, ends }
    }

    fn of(&self, id: u32) -> &[u8] {
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.bytes[start as usize..self.ends[id as usize] as usize]
    }
}

/// A filter for the tokens of more than [`SHORT`] bytes. It has one bit for each hash of a token's length, its first
/// eight and its last eight bytes. Hardly any long word is a token. The filter is cheaper than a look-up, which has to
/// write the word in the vocabulary's alphabet first.
struct LongTokens {
    bits: Vec<u64>,
}

impl LongTokens {
    const BITS: u32 = 16;

    fn new<'a>(tokens: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut bits = vec![0; 1 << (Self::BITS - 6)];
        for bit in tokens.filter(|token| token.len() > SHORT).filter_map(Self::bit) {
            bits[bit >> 6] |= 1 << (bit & 63);
        }
        Self { bits }
    }

    fn bit(token: &[u8]) -> Option<usize> {
        let (first, last) = (token.first_chunk()?, token.last_chunk()?);
        let ends = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29) ^ token.len() as u64;
        Some((ends.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS)) as usize)
    }

    fn may_have(&self, word: &[u8]) -> bool {
        Self::bit(word).is_some_and(|bit| self.bits[bit >> 6] >> (bit & 63) & 1 == 1)
    }
}

impl ByteLevel {
    /// Builds the tokenizer. `pieces` are all tokens in the order of their ids. The tokens that a merge produces or
    /// names have the kind `Normal`. `added` tokens are pieces, too, and may have that kind.
    pub(crate) fn new(
        pieces: Pieces,
        order: Order,
        splitter: Splitter,
        settings: ByteLevelSettings,
        added: Vec<AddedToken>,
    ) -> Result<Self> {
        let vocab = Vocab::new(&pieces, order, false, std::iter::empty())?;
        let symbol = |c| vocab.chars.get(c).symbol().filter(|symbol| vocab.is_piece(*symbol));
        let chars = Box::new(alphabet::chars());
        let symbols = Box::new(chars.map(|c| symbol(c).unwrap_or(NO_SYMBOL)));
        let byte_pairs = (!symbols.contains(&NO_SYMBOL)).then(|| BytePairs::new(&vocab.pairs, &symbols));
        let mut tokenizer = Self {
            pieces,
            bos: None,
            eos: None,
            pad: None,
            vocab,
            byte_pairs,
            symbols,
            chars,
            splitter,
            settings,
            added: Added::default(),
            bytes: OnceLock::new(),
            joints: OnceLock::new(),
            long_tokens: OnceLock::new(),
            pool: Pool::default(),
        };
        for mut token in added {
            if token.flags.normalized && settings.nfc {
                token.content = normalize(&token.content, None).into_owned();
            }
            let kind = if token.flags.special { PieceKind::Control } else { PieceKind::UserDefined };
            tokenizer.pieces.set_kind(token.id, kind);
            if !tokenizer.added.insert(&token) {
                return Err(Error::invalid(format!("added_tokens: {:?} is listed twice", token.content)));
            }
        }
        Ok(tokenizer)
    }

    /// Whether every byte has a token.
    pub(crate) fn has_all_bytes(&self) -> bool {
        self.byte_pairs.is_some()
    }

    fn bytes(&self) -> &TokenBytes {
        self.bytes.get_or_init(|| TokenBytes::new(&self.pieces))
    }

    fn joints(&self) -> &Joints {
        self.joints.get_or_init(|| {
            let bytes = self.bytes();
            let merges = self.vocab.pairs.iter().filter(|(left, right)| self.vocab.is_piece(*left.max(right)));
            Joints::new(merges.map(|(left, right)| (bytes.of(left), bytes.of(right))))
        })
    }

    fn long_tokens(&self) -> &LongTokens {
        self.long_tokens.get_or_init(|| {
            let bytes = self.bytes();
            LongTokens::new((0..self.pieces.len() as u32).map(|id| bytes.of(id)))
        })
    }
}
