//! SentencePiece BPE tokenizer: exact and fast.
//!
//! The modules, in the order in which a text meets them:
//!
//! * [`model_file`] reads and writes `.model` files (`proto` is their wire format), `hf_json` reads `tokenizer.json`;
//! * `normalize` applies character rules (`charsmap`), spaces and the dummy prefix;
//! * `user_defined` finds pieces that come before any merging;
//! * `vocab` is the vocabulary compiled for merging: characters, pairs, and where text can be cut;
//! * `encode` cuts the text, looks parts up (`cache`) or merges them (`merge`);
//! * `special` splits at literal special tokens first, where that is asked for;
//! * `decode` turns ids back into text, whole or as they come.
//! * `train` makes a model from text.

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
mod proto;
mod special;
mod train;
mod user_defined;
mod vocab;

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

pub use decode::Decoder;
pub use encode::Token;
pub use error::{Error, Result};
pub use model_file::{ModelFile, Piece, PieceKind};
pub use special::{SpaceRule, SpecialTokens};
pub use train::Trainer;

use decode::{Leading, Surface};
use normalize::{Normalizer, Prefix};
use user_defined::UserDefined;
use vocab::{Mergeable, Order, Vocab};

/// A tokenizer, ready to encode and decode from any number of threads.
pub struct Tokenizer {
    pieces: Vec<Piece>,
    vocab: Vocab,
    normalizer: Normalizer,
    user: UserDefined,
    /// Whether a user-defined piece holds a space, which plain text may write in two ways, or lack before it.
    user_with_space: bool,
    /// The unused pieces, ascending.
    unused: Vec<u32>,
    has_unused: bool,
    /// The ids of the 256 bytes, if characters without a piece become bytes.
    byte_ids: Option<Box<[u32; 256]>>,
    unk: u32,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    unk_surface: String,
    surfaces: Vec<Surface>,
    surface_text: String,
    leading: Leading,
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
        let scores = |id: u32| model.pieces[id as usize].score;
        // -0 and 0 are the same score; a score that is not a number has no place in any order.
        if let Some(id) = model.pieces.iter().position(|p| p.score.is_nan()) {
            return Err(Error::invalid(format!("the score of piece {id} {:?} is not a number", model.pieces[id].text)));
        }
        Self::assemble(&model, normalizer, Order::Scores(&scores))
    }

    /// `order` also tells the two kinds of file apart: the user-defined pieces of a `tokenizer.json` are added tokens,
    /// which only [`encode_special`](Self::encode_special) looks for.
    fn assemble(model: &ModelFile, normalizer: Normalizer, order: Order) -> Result<Self> {
        let matches_user = matches!(order, Order::Scores(_));
        let pieces = &model.pieces;
        let mut user = UserDefined::new(normalizer.escape);
        let mut mergeable = Vec::with_capacity(pieces.len());
        let mut reserved: HashMap<&str, u32> = HashMap::new();
        let mut unk = None;
        for (id, piece) in pieces.iter().enumerate() {
            let (id, text) = (id as u32, piece.text.as_str());
            let new = match piece.kind {
                _ if text.is_empty() => return Err(Error::invalid(format!("piece {id} is empty"))),
                PieceKind::Normal | PieceKind::Unused => {
                    mergeable.push(Mergeable { id, text });
                    true
                }
                PieceKind::UserDefined => !matches_user || user.insert(text, id),
                PieceKind::Unknown if unk.is_some() => {
                    return Err(Error::invalid(format!("piece {id} {text:?} is a second unknown piece")));
                }
                PieceKind::Unknown => {
                    unk = Some(id);
                    reserved.insert(text, id).is_none()
                }
                PieceKind::Byte if !model.byte_fallback => {
                    return Err(Error::invalid(format!("piece {id} {text:?} is a byte, but byte_fallback is false")));
                }
                PieceKind::Byte if byte_of(text).is_none() => {
                    return Err(Error::invalid(format!(
                        "piece {id} {text:?} is a byte piece, but not of the form <0xFF>"
                    )));
                }
                PieceKind::Control | PieceKind::Byte => reserved.insert(text, id).is_none(),
            };
            if !new {
                return Err(Error::invalid(format!("piece {id} {text:?} is defined twice")));
            }
        }
        if let Some(m) = mergeable.iter().find(|m| user.contains(m.text)) {
            return Err(Error::invalid(format!("piece {} {:?} is defined twice", m.id, m.text)));
        }
        let unk = unk.ok_or_else(|| Error::invalid("there is no unknown piece"))?;
        let mut byte_ids = None;
        if model.byte_fallback {
            let mut ids = Box::new([0; 256]);
            for byte in 0..=255u8 {
                let name = format!("<0x{byte:02X}>");
                let id = reserved.get(name.as_str()).copied().filter(|id| pieces[*id as usize].kind == PieceKind::Byte);
                ids[usize::from(byte)] = id.ok_or_else(|| {
                    Error::invalid(format!("byte_fallback is true, but there is no byte piece {name}"))
                })?;
            }
            byte_ids = Some(ids);
        }
        let unused: Vec<u32> =
            mergeable.iter().map(|m| m.id).filter(|id| pieces[*id as usize].kind == PieceKind::Unused).collect();
        let control =
            |name: &str| reserved.get(name).copied().filter(|id| pieces[*id as usize].kind == PieceKind::Control);
        let names = &model.names;
        let (bos, eos, pad) = (control(&names.bos), control(&names.eos), control(&names.pad));
        let vocab = Vocab::new(pieces.len(), &mergeable, order, normalizer.escape, user.first_chars())?;
        let leading = match (normalizer.remove_extra, normalizer.prefix) {
            (true, _) => Leading::DropAll,
            (false, Prefix::Never) => Leading::Keep,
            (false, _) => Leading::DropOne,
        };
        let user_with_space = pieces.iter().any(|p| p.kind == PieceKind::UserDefined && p.text.contains('▁'));
        let mut tokenizer = Self {
            vocab,
            normalizer,
            user,
            user_with_space,
            has_unused: !unused.is_empty(),
            unused,
            byte_ids,
            unk,
            bos,
            eos,
            pad,
            // SentencePiece passes it on as a C string.
            unk_surface: model.unk_surface.split('\0').next().unwrap_or_default().into(),
            surfaces: Vec::with_capacity(pieces.len()),
            surface_text: String::new(),
            leading,
            default_special: OnceLock::new(),
            ids: OnceLock::new(),
            pool: encode::Pool::default(),
            pieces: Vec::new(),
        };
        for piece in pieces {
            // SentencePiece decodes by text: a piece whose text is also that of a reserved one is that one.
            let kind = reserved.get(piece.text.as_str()).map_or(piece.kind, |id| pieces[*id as usize].kind);
            let surface = tokenizer.surface(&piece.text, kind);
            tokenizer.surfaces.push(surface);
        }
        tokenizer.pieces = model.pieces.clone();
        Ok(tokenizer)
    }

    fn surface(&mut self, text: &str, kind: PieceKind) -> Surface {
        match kind {
            PieceKind::Control => Surface::Nothing,
            PieceKind::Unknown => Surface::Unknown,
            PieceKind::Byte => byte_of(text).map_or(Surface::Nothing, Surface::Byte),
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => {
                let start = self.surface_text.len() as u32;
                self.surface_text.extend(text.chars().map(|c| if c == '▁' { ' ' } else { c }));
                Surface::Text { start, end: self.surface_text.len() as u32, marked: text.starts_with('▁') }
            }
        }
    }

    /// The number of pieces; ids are smaller.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The pieces in the order of their ids.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The text of a piece as the file has it, `▁` for a space.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(|p| p.text.as_str())
    }

    /// What a piece is for.
    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.pieces.get(id as usize).map(|p| p.kind)
    }

    /// The id of a piece, given as the file has it. Of two pieces with one text, the reserved one (control, unknown,
    /// byte).
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        let ids = self.ids.get_or_init(|| {
            let reserved = |kind| matches!(kind, PieceKind::Control | PieceKind::Unknown | PieceKind::Byte);
            let all = || self.pieces.iter().zip(0..);
            let plain = all().filter(|(p, _)| !reserved(p.kind));
            let last = all().filter(|(p, _)| reserved(p.kind));
            plain.chain(last).map(|(p, id)| (p.text.as_str().into(), id)).collect()
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

/// The byte that a piece of the form `<0x0A>` is.
fn byte_of(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let valid = hex.len() == 2 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    valid.then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}
