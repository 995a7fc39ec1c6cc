//! Exact and fast BPE tokenizers. SentencePiece models (Llama 2, Mistral 7B, Mixtral) give the ids of SentencePiece
//! 0.2.3. Byte-level models (Llama 3, Qwen, SmolLM2, Mistral's Tekken) give the ids of Hugging Face's `tokenizers`
//! 0.22.2.
//!
//! ```
//! # fn main() -> Result<(), halfbyte_tokenizer::Error> {
//! use halfbyte_tokenizer::Tokenizer;
//!
//! let tokenizer = Tokenizer::open("tests/data/tokenizers/small/tokenizer.model")?;
//! let ids = tokenizer.encode("the king");
//! assert_eq!(tokenizer.decode(&ids)?, "the king");
//!
//! // Text never produces control tokens. Build a chat from their ids, and encode each message separately.
//! let mut prompt: Vec<u32> = tokenizer.bos().into_iter().chain(tokenizer.id_of("[INST]")).collect();
//! tokenizer.encode_into("Who is the king?", &mut prompt);
//! prompt.extend(tokenizer.id_of("[/INST]"));
//!
//! // Show text while ids are generated. The decoder never returns an incomplete character.
//! let mut decoder = tokenizer.decoder();
//! for id in ids {
//!     print!("{}", decoder.push(id)?);
//! }
//! println!("{}", decoder.finish());
//! # Ok(())
//! # }
//! ```
//!
//! The modules, lowest level first:
//!
//! * [`Pieces`] are the entries of the vocabulary as they are in the file;
//! * [`model_file`] reads and writes `.model` files (`proto` is their wire format), `json` reads `tokenizer.json` and
//!   Tekken's JSON;
//! * `vocab` is a vocabulary compiled for merging, `merge` merges, `cache` remembers the ids of words;
//! * `matcher` finds literals in a text, `unicode` knows character classes and NFC;
//! * `sentencepiece` and `byte_level` are the two kinds of tokenizer;
//! * `encode`, `special` and `decode` are the methods of [`Tokenizer`], the same for both kinds;
//! * `train` learns a SentencePiece vocabulary from text.

mod byte_level;
mod cache;
mod decode;
mod encode;
mod error;
mod hash;
mod json;
mod matcher;
mod merge;
pub mod model_file;
mod pieces;
mod proto;
mod scratch;
mod sentencepiece;
mod special;
mod train;
mod unicode;
mod vocab;

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

pub use decode::Decoder;
pub use encode::Token;
pub use error::{Error, Result};
pub use model_file::ModelFile;
pub use pieces::{Piece, PieceKind, Pieces};
pub use special::{SpaceRule, SpecialTokens};
pub use train::Trainer;

use byte_level::ByteLevel;
use sentencepiece::{Normalizer, SentencePiece};
use vocab::Order;

/// A tokenizer, ready to encode and decode from any number of threads.
pub struct Tokenizer {
    engine: Engine,
    /// The ids that the template of the file puts before and after a text.
    frame: Frame,
    /// This field and the next are built on first use.
    special: OnceLock<SpecialTokens>,
    ids: OnceLock<HashMap<Box<str>, u32>>,
}

/// The two kinds of tokenizer.
enum Engine {
    SentencePiece(Box<SentencePiece>),
    ByteLevel(Box<ByteLevel>),
}

/// The ids around a text.
#[derive(Default)]
struct Frame {
    begin: Vec<u32>,
    end: Vec<u32>,
}

impl Tokenizer {
    /// Reads a `.model` file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(&read(path)?).map_err(|e| e.in_file(path))
    }

    /// Builds a tokenizer from the bytes of a `.model` file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_model(ModelFile::parse(bytes)?)
    }

    /// Builds a tokenizer from a model in memory.
    pub fn from_model(model: ModelFile) -> Result<Self> {
        let normalizer = Normalizer::new(&model)?;
        // NaN cannot be ordered.
        if let Some(id) = model.pieces.scores().iter().position(|score| score.is_nan()) {
            let text = model.pieces.text(id);
            return Err(Error::invalid(format!("the score of piece {id} {text:?} is not a number")));
        }
        let engine = SentencePiece::assemble(model, normalizer, Order::Scores)?;
        Ok(Self::new(Engine::SentencePiece(Box::new(engine)), Frame::default()))
    }

    /// Reads a `tokenizer.json` or Mistral's `tekken.json`; see [`from_json`](Self::from_json).
    pub fn open_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_json(&read(path)?).map_err(|e| e.in_file(path))
    }

    /// Builds a tokenizer from the bytes of a `tokenizer.json` or of Mistral's `tekken.json`. The content decides which
    /// it is. A `tokenizer.json` must have the type BPE. It may be of the Llama 2 and Mistral 7B kind (`▁` for spaces)
    /// or byte-level (Llama 3, Qwen, SmolLM2).
    ///
    /// As with a `.model`, [`encode`](Self::encode) never produces special tokens. To get the ids of transformers, call
    /// [`encode_special`](Self::encode_special) with [`default_special_tokens`](Self::default_special_tokens). A
    /// SentencePiece vocabulary decodes broken UTF-8 as SentencePiece does.
    ///
    /// Every field that can change ids is either honored or refused by name. `truncation` and `padding` are ignored,
    /// because transformers sets them in each call.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        json::read(bytes)
    }

    fn new(engine: Engine, frame: Frame) -> Self {
        Self { engine, frame, special: OnceLock::new(), ids: OnceLock::new() }
    }

    /// The number of pieces. Every id is smaller.
    pub fn vocab_size(&self) -> usize {
        self.pieces().len()
    }

    /// The pieces in the order of their ids.
    pub fn pieces(&self) -> &Pieces {
        match &self.engine {
            Engine::SentencePiece(engine) => &engine.pieces,
            Engine::ByteLevel(engine) => &engine.pieces,
        }
    }

    /// The text of a piece as it is in the file. A SentencePiece vocabulary writes a space as `▁`. A byte-level
    /// vocabulary writes each byte as one printable character (`Ġ` for a space), except in its added tokens. `None` for
    /// an id outside the vocabulary.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces().get(id).map(|p| p.text)
    }

    /// The kind of a piece. `None` for an id outside the vocabulary.
    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.pieces().get(id).map(|p| p.kind)
    }

    /// The id of the piece with this text, written as it is in the file. If several pieces have the same text, a
    /// reserved one (control, unknown, byte) takes precedence.
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        let ids = self.ids.get_or_init(|| {
            let reserved = |kind| matches!(kind, PieceKind::Control | PieceKind::Unknown | PieceKind::Byte);
            let all = || self.pieces().iter().zip(0..);
            let plain = all().filter(|(p, _)| !reserved(p.kind));
            let last = all().filter(|(p, _)| reserved(p.kind));
            plain.chain(last).map(|(p, id)| (p.text.into(), id)).collect()
        });
        ids.get(piece).copied()
    }

    /// The id of text that the vocabulary cannot express (`<unk>`). A byte-level tokenizer expresses text as bytes and
    /// has no such piece.
    pub fn unk(&self) -> Option<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => Some(engine.unk),
            Engine::ByteLevel(_) => None,
        }
    }

    /// Whether this is a byte-level tokenizer. Such a tokenizer never adds a space to a text.
    pub fn is_byte_level(&self) -> bool {
        matches!(self.engine, Engine::ByteLevel(_))
    }

    /// The id that begins a text (`<s>`), if there is one. A byte-level `tokenizer.json` has one if its template puts
    /// exactly one token before each text (`<|begin_of_text|>`).
    pub fn bos(&self) -> Option<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.bos,
            Engine::ByteLevel(engine) => engine.bos.or_else(|| only(&self.frame.begin)),
        }
    }

    /// The id that ends a text (`</s>`), if there is one. A byte-level `tokenizer.json` has one if its template puts
    /// exactly one token after each text. Often, only `tokenizer_config.json` names the end token that a model is
    /// trained with.
    pub fn eos(&self) -> Option<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.eos,
            Engine::ByteLevel(engine) => engine.eos.or_else(|| only(&self.frame.end)),
        }
    }

    /// The id that pads batches, if the file names one. The `.model` files of Llama and Mistral name none.
    pub fn pad(&self) -> Option<u32> {
        match &self.engine {
            Engine::SentencePiece(engine) => engine.pad,
            Engine::ByteLevel(engine) => engine.pad,
        }
    }

    /// The ids that a `tokenizer.json` puts before each text when special tokens are added (transformers'
    /// `add_special_tokens=True`). Empty for other files.
    pub fn begin_ids(&self) -> &[u32] {
        &self.frame.begin
    }

    /// The ids that a `tokenizer.json` puts after each text when special tokens are added. Empty for other files.
    pub fn end_ids(&self) -> &[u32] {
        &self.frame.end
    }
}

/// The id in `ids` if there is exactly one.
fn only(ids: &[u32]) -> Option<u32> {
    match ids {
        &[id] => Some(id),
        _ => None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { doing: "read", path: path.to_owned(), source })
}
