//! SentencePiece BPE tokenizer: exact and fast. Where releases of SentencePiece differ, 0.2.3 is followed.
//!
//! ```
//! # fn main() -> Result<(), halfbyte_tokenizer::Error> {
//! use halfbyte_tokenizer::Tokenizer;
//!
//! let tokenizer = Tokenizer::open("tests/data/tokenizers/small/tokenizer.model")?;
//! let ids = tokenizer.encode("the king");
//! assert_eq!(tokenizer.decode(&ids)?, "the king");
//!
//! // Text never produces control tokens; a chat layout is put together from ids and from contents by themselves.
//! let mut prompt: Vec<u32> = tokenizer.bos().into_iter().chain(tokenizer.id_of("[INST]")).collect();
//! tokenizer.encode_into("Who is the king?", &mut prompt);
//! prompt.extend(tokenizer.id_of("[/INST]"));
//!
//! // As ids are generated, the text can be shown: never half a character.
//! let mut decoder = tokenizer.decoder();
//! for id in ids {
//!     print!("{}", decoder.push(id)?);
//! }
//! println!("{}", decoder.finish());
//! # Ok(())
//! # }
//! ```
//!
//! The modules, in the order in which a text meets them:
//!
//! * [`Pieces`] are the vocabulary as the file has it;
//! * [`model_file`] reads and writes `.model` files (`proto` is their wire format), `hf_json` reads `tokenizer.json`;
//! * `normalize` applies character rules (`charsmap`), spaces and the dummy prefix;
//! * `user_defined` finds pieces that come before any merging;
//! * `vocab` is the vocabulary compiled for merging: characters, pairs, and where text can be cut;
//! * `assemble` checks all of it and puts a [`Tokenizer`] together;
//! * `encode` cuts the text, looks parts up (`cache`) or merges them (`merge`);
//! * `special` splits at literal special tokens first, where that is asked for;
//! * `decode` turns ids back into text, whole or as they come.
//! * `train` makes a model from text.

mod assemble;
mod cache;
mod charsmap;
mod decode;
mod encode;
mod error;
mod hash;
mod hf_json;
mod merge;
pub mod model_file;
mod normalize;
mod pieces;
mod proto;
mod special;
mod train;
mod user_defined;
mod vocab;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;

pub use decode::Decoder;
pub use encode::Token;
pub use error::{Error, Result};
pub use model_file::ModelFile;
pub use pieces::{Piece, PieceKind, Pieces};
pub use special::{SpaceRule, SpecialTokens};
pub use train::Trainer;

use decode::{Leading, Surfaces};
use normalize::Normalizer;
use user_defined::UserDefined;
use vocab::{Order, Vocab};

/// A tokenizer, ready to encode and decode from any number of threads.
pub struct Tokenizer {
    pieces: Pieces,
    vocab: Vocab,
    normalizer: Normalizer,
    user: UserDefined,
    /// Whether a user-defined piece holds a space, which plain text may write in two ways, or lack before it.
    user_with_space: bool,
    /// What each unused piece is made of.
    unused: HashMap<u32, (u32, u32)>,
    /// Pieces of one character that text never produces: unused ones, which are made of nothing, and NUL.
    withheld: HashSet<u32>,
    /// The ids of the 256 bytes, if characters without a piece become bytes.
    byte_ids: Option<Box<[u32; 256]>>,
    unk: u32,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    unk_surface: String,
    leading: Leading,
    /// Pieces whose text is also that of a reserved one, and that one.
    twins: Vec<(u32, u32)>,
    /// What only decoding needs is made when it is first asked for; so are the next two.
    surfaces: OnceLock<Surfaces>,
    default_special: OnceLock<SpecialTokens>,
    ids: OnceLock<HashMap<Box<str>, u32>>,
    pool: encode::Pool,
}

impl Tokenizer {
    /// Reads a `.model` file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = std::fs::read(path);
        let bytes = read.map_err(|source| Error::Io { doing: "read", path: path.to_owned(), source })?;
        Self::from_bytes(&bytes).map_err(|e| e.in_file(path))
    }

    /// From the bytes of a `.model` file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_model(ModelFile::parse(bytes)?)
    }

    /// From a model in memory.
    pub fn from_model(model: ModelFile) -> Result<Self> {
        let normalizer = Normalizer::new(&model)?;
        // A score that is not a number has no place in any order.
        if let Some(id) = model.pieces.scores().iter().position(|score| score.is_nan()) {
            let text = model.pieces.text(id);
            return Err(Error::invalid(format!("the score of piece {id} {text:?} is not a number")));
        }
        Self::assemble(model, normalizer, Order::Scores)
    }

    /// The number of pieces; ids are smaller.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The pieces in the order of their ids.
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The text of a piece as the file has it, `▁` for a space.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id).map(|p| p.text)
    }

    /// What a piece is for.
    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.pieces.get(id).map(|p| p.kind)
    }

    /// The id of a piece, given as the file has it. Of two pieces with one text, the reserved one (control, unknown,
    /// byte).
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        let ids = self.ids.get_or_init(|| {
            let reserved = |kind| matches!(kind, PieceKind::Control | PieceKind::Unknown | PieceKind::Byte);
            let all = || self.pieces.iter().zip(0..);
            let plain = all().filter(|(p, _)| !reserved(p.kind));
            let last = all().filter(|(p, _)| reserved(p.kind));
            plain.chain(last).map(|(p, id)| (p.text.into(), id)).collect()
        });
        ids.get(piece).copied()
    }

    /// The id that stands for what the vocabulary cannot express (`<unk>`).
    pub fn unk(&self) -> u32 {
        self.unk
    }

    /// The id that begins a text (`<s>`), if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id that ends a text (`</s>`), if there is one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The id that fills up batches, if there is one; Llama's and Mistral's models have none.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }
}
