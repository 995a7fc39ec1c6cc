//! Checks a model and builds the tokenizer.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use super::SentencePiece;
use super::decode::Leading;
use super::normalize::{Normalizer, Prefix};
use super::user_defined::UserDefined;
use crate::error::{Error, Result};
use crate::model_file::ModelFile;
use crate::pieces::{PieceKind, Pieces, byte_of, push_spaced};
use crate::scratch::Pool;
use crate::vocab::{Order, Vocab};

/// The pieces by kind.
struct Sorted<'a> {
    user: UserDefined,
    /// The control, unknown and byte pieces by their texts. Text never produces them.
    reserved: HashMap<&'a str, u32>,
    withheld: HashSet<u32>,
    unk: u32,
}

impl SentencePiece {
    /// Checks the model and builds the tokenizer. `order` also tells the kind of the file: the user-defined pieces of a
    /// `tokenizer.json` are added tokens, which only [`encode_special`](crate::Tokenizer::encode_special) looks for.
    pub(crate) fn assemble(model: ModelFile, normalizer: Normalizer, order: Order) -> Result<Self> {
        let pieces = &model.pieces;
        let Sorted { user, reserved, withheld, unk } = sort(&model, &normalizer, matches!(order, Order::Scores))?;
        let byte_ids = if model.byte_fallback { Some(byte_ids(&reserved, pieces)?) } else { None };
        let control = |name: &str| reserved.get(name).copied().filter(|id| is_kind(pieces, *id, PieceKind::Control));
        let names = &model.names;
        let (bos, eos, pad) = (control(&names.bos), control(&names.eos), control(&names.pad));
        let vocab = Vocab::new(pieces, order, normalizer.escape, user.first_chars())?;
        let leading = match (normalizer.remove_extra, normalizer.prefix) {
            (true, _) => Leading::DropAll,
            (false, Prefix::Never) => Leading::Keep,
            (false, _) => Leading::DropOne,
        };
        let user_with_space = user.all().any(|(text, _)| text.contains([' ', '▁']));
        // SentencePiece decodes by text, so a piece that shares its text with a reserved one decodes like it.
        let canonical = |text: &str| {
            let mut out = String::new();
            push_spaced(&mut out, text, normalizer.escape);
            out
        };
        let mut twins = Vec::new();
        for (text, id) in &reserved {
            let both = [vocab.find(&canonical(text)), user.id(text)];
            twins
                .extend(both.into_iter().flatten().filter(|twin| is_text(pieces, *twin, text)).map(|twin| (twin, *id)));
        }
        let twin = |text: &str| vocab.find(&canonical(text)).filter(|twin| is_text(pieces, *twin, text));
        if let Some((text, id)) = user.all().find(|(text, _)| twin(text).is_some()) {
            return Err(Error::invalid(format!("piece {id} {text:?} is defined twice")));
        }
        let mut tokenizer = Self {
            vocab,
            normalizer,
            user,
            user_with_space,
            unused: HashMap::new(),
            withheld,
            byte_ids,
            unk,
            bos,
            eos,
            pad,
            unk_surface: model.unk_surface,
            twins,
            surfaces: OnceLock::new(),
            leading,
            pool: Pool::default(),
            pieces: model.pieces,
        };
        tokenizer.unused = tokenizer.unused_parts();
        Ok(tokenizer)
    }
}

fn sort<'a>(model: &'a ModelFile, normalizer: &Normalizer, sentencepiece: bool) -> Result<Sorted<'a>> {
    let invalid = |what: String| Err(Error::invalid(what));
    let mut user = UserDefined::new(normalizer.escape);
    let mut reserved = HashMap::new();
    let mut withheld = HashSet::new();
    let mut unk = None;
    let mut bytes = 0;
    for (id, piece) in (0..).zip(model.pieces.iter()) {
        let text = piece.text;
        bytes += text.len();
        // SentencePiece handles texts as C strings. With byte fallback it reads NUL itself as an unused piece.
        let nul = sentencepiece && text.contains('\0');
        if nul && !(text == "\0" && model.byte_fallback && piece.kind == PieceKind::Normal) {
            return invalid(format!("piece {id} {text:?} has a NUL character, which SentencePiece cannot read"));
        }
        if nul || piece.kind == PieceKind::Unused && text.chars().nth(1).is_none() {
            withheld.insert(id);
        }
        let new = match piece.kind {
            _ if text.is_empty() => return invalid(format!("piece {id} is empty")),
            PieceKind::Normal | PieceKind::Unused => true,
            PieceKind::UserDefined => !sentencepiece || user.insert(text, id),
            PieceKind::Unknown if unk.is_some() => {
                return invalid(format!("piece {id} {text:?} is a second unknown piece"));
            }
            PieceKind::Byte if !model.byte_fallback => {
                return invalid(format!("piece {id} {text:?} is a byte, but byte_fallback is false"));
            }
            PieceKind::Byte if byte_of(text).is_none() => {
                return invalid(format!("piece {id} {text:?} is a byte piece, but not of the form <0xFF>"));
            }
            PieceKind::Control | PieceKind::Byte | PieceKind::Unknown => {
                if piece.kind == PieceKind::Unknown {
                    unk = Some(id);
                }
                reserved.insert(text, id).is_none()
            }
        };
        if !new {
            return invalid(format!("piece {id} {text:?} is defined twice"));
        }
    }
    if u32::try_from(bytes).is_err() {
        return Err(Error::unsupported(format!(
            "a vocabulary with {bytes} bytes of text; at most 4 GiB are supported"
        )));
    }
    let unk = unk.ok_or_else(|| Error::invalid("there is no unknown piece"))?;
    Ok(Sorted { user, reserved, withheld, unk })
}

fn is_kind(pieces: &Pieces, id: u32, kind: PieceKind) -> bool {
    pieces.get(id).is_some_and(|piece| piece.kind == kind)
}

fn is_text(pieces: &Pieces, id: u32, text: &str) -> bool {
    pieces.get(id).is_some_and(|piece| piece.text == text)
}

fn byte_ids(reserved: &HashMap<&str, u32>, pieces: &Pieces) -> Result<Box<[u32; 256]>> {
    let mut ids = Box::new([0; 256]);
    for byte in 0..=255u8 {
        let name = format!("<0x{byte:02X}>");
        let id = reserved.get(name.as_str()).copied().filter(|id| is_kind(pieces, *id, PieceKind::Byte));
        ids[usize::from(byte)] =
            id.ok_or_else(|| Error::invalid(format!("byte_fallback is true, but there is no byte piece {name}")))?;
    }
    Ok(ids)
}
