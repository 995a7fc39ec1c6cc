//! The SentencePiece `.model` file: its pieces, and the settings on which encoding and decoding depend.

use crate::error::{Error, Result};
use crate::pieces::{PieceKind, Pieces, Unchecked};
use crate::proto::{ProtoFields, Value, Writer};

/// The pieces of a model, and the settings that matter for encoding and decoding.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelFile {
    /// The vocabulary in the order of the ids.
    pub pieces: Pieces,
    /// Characters without a piece become the pieces of their UTF-8 bytes.
    pub byte_fallback: bool,
    /// The dummy space goes after the text instead of before it.
    pub treat_whitespace_as_suffix: bool,
    /// The text that the unknown piece decodes to.
    pub unk_surface: String,
    /// The names of the unknown, begin, end and padding pieces.
    pub names: Names,
    /// How text is normalized before it is cut into pieces.
    pub normalizer: NormalizerSpec,
}

/// The texts of the special pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// Usually `<unk>`.
    pub unk: String,
    /// Usually `<s>`.
    pub bos: String,
    /// Usually `</s>`.
    pub eos: String,
    /// Usually `<pad>`.
    pub pad: String,
}

/// How text is normalized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NormalizerSpec {
    /// The name of the rules ("identity", "nmt_nfkc").
    pub name: String,
    /// The compiled rules: a trie and its replacement texts. Empty for identity.
    pub precompiled_charsmap: Vec<u8>,
    /// A space is put before the text.
    pub add_dummy_prefix: bool,
    /// Spaces at both ends are dropped, and each run of spaces becomes one space.
    pub remove_extra_whitespaces: bool,
    /// A space is written as `▁`.
    pub escape_whitespaces: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self { unk: "<unk>".into(), bos: "<s>".into(), eos: "</s>".into(), pad: "<pad>".into() }
    }
}

impl Default for NormalizerSpec {
    /// The values that the file format gives to absent fields.
    fn default() -> Self {
        Self {
            name: String::new(),
            precompiled_charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

impl Default for ModelFile {
    fn default() -> Self {
        Self {
            pieces: Pieces::default(),
            byte_fallback: false,
            treat_whitespace_as_suffix: false,
            unk_surface: " \u{2047} ".into(),
            names: Names::default(),
            normalizer: NormalizerSpec::default(),
        }
    }
}

/// The kinds as the file numbers them, starting at 1.
const KINDS: [PieceKind; 6] = [
    PieceKind::Normal,
    PieceKind::Unknown,
    PieceKind::Control,
    PieceKind::UserDefined,
    PieceKind::Unused,
    PieceKind::Byte,
];
const MODEL_TYPES: [&str; 4] = ["unigram", "bpe", "word", "char"];
const BPE: u64 = 2;

impl ModelFile {
    /// Reads a `.model` file's bytes. Only BPE models are accepted.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut model = Self::default();
        // A file without this field is a unigram model.
        let mut model_type = 1;
        // A piece takes about sixteen bytes, half of them text.
        let mut pieces = Unchecked::with_capacity(bytes.len() / 15, bytes.len() / 2);
        let mut fields = ProtoFields::new(bytes, "the model");
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => parse_piece(value.bytes("pieces")?, &mut pieces)?,
                2 => model.parse_trainer(value.bytes("trainer_spec")?, &mut model_type)?,
                3 => model.normalizer.parse(value.bytes("normalizer_spec")?)?,
                5 => {
                    let mut denormalizer = NormalizerSpec::default();
                    denormalizer.parse(value.bytes("denormalizer_spec")?)?;
                    if !denormalizer.precompiled_charsmap.is_empty() {
                        return Err(Error::unsupported("denormalizer_spec has rules, which decoding does not apply"));
                    }
                }
                _ => {}
            }
        }
        model.pieces =
            pieces.check().map_err(|id| Error::malformed(format!("piece {id}: its text is not valid UTF-8")))?;
        if model.pieces.is_empty() {
            return Err(Error::malformed("it has no pieces"));
        }
        if model_type != BPE {
            let name = usize::try_from(model_type).ok().and_then(|t| MODEL_TYPES.get(t.wrapping_sub(1)));
            return Err(Error::unsupported(match name {
                Some(name) => format!("model_type is {name}; only bpe models are supported"),
                None => format!("model_type is {model_type}; only bpe models (2) are supported"),
            }));
        }
        Ok(model)
    }

    fn parse_trainer(&mut self, bytes: &[u8], model_type: &mut u64) -> Result<()> {
        let mut fields = ProtoFields::new(bytes, "trainer_spec");
        while let Some((field, value)) = fields.next()? {
            match field {
                3 => *model_type = value.number("model_type")?,
                24 => self.treat_whitespace_as_suffix = value.flag("treat_whitespace_as_suffix")?,
                35 => self.byte_fallback = value.flag("byte_fallback")?,
                44 => self.unk_surface = value.text("unk_surface")?.into(),
                45 => self.names.unk = value.text("unk_piece")?.into(),
                46 => self.names.bos = value.text("bos_piece")?.into(),
                47 => self.names.eos = value.text("eos_piece")?.into(),
                48 => self.names.pad = value.text("pad_piece")?.into(),
                _ => {}
            }
        }
        Ok(())
    }

    /// The bytes of a `.model` file that SentencePiece can load. They include only the trainer settings that this
    /// struct holds and those that SentencePiece requires.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for piece in self.pieces.iter() {
            let mut w = Writer::default();
            w.bytes(1, piece.text.as_bytes());
            w.float(2, piece.score);
            if piece.kind != PieceKind::Normal {
                w.varint(3, KINDS.iter().position(|k| *k == piece.kind).unwrap_or(0) as u64 + 1);
            }
            out.bytes(1, &w.bytes);
        }
        out.bytes(2, &self.trainer_bytes());
        let spec = &self.normalizer;
        let mut w = Writer::default();
        w.bytes(1, spec.name.as_bytes());
        w.bytes(2, &spec.precompiled_charsmap);
        w.varint(3, spec.add_dummy_prefix.into());
        w.varint(4, spec.remove_extra_whitespaces.into());
        w.varint(5, spec.escape_whitespaces.into());
        out.bytes(3, &w.bytes);
        out.bytes
    }

    fn trainer_bytes(&self) -> Vec<u8> {
        // SentencePiece refuses a model whose trainer settings name ids that do not exist; -1 means none.
        let id = |name: &str| match self.pieces.iter().position(|p| p.text == name) {
            Some(id) => id as u64,
            None => -1i64 as u64,
        };
        let mut w = Writer::default();
        w.varint(3, BPE);
        w.varint(4, self.pieces.len() as u64);
        w.varint(24, self.treat_whitespace_as_suffix.into());
        for piece in self.pieces.iter().filter(|p| p.kind == PieceKind::UserDefined) {
            w.bytes(31, piece.text.as_bytes());
        }
        w.varint(35, self.byte_fallback.into());
        w.varint(40, id(&self.names.unk));
        w.varint(41, id(&self.names.bos));
        w.varint(42, id(&self.names.eos));
        w.varint(43, id(&self.names.pad));
        w.bytes(44, self.unk_surface.as_bytes());
        w.bytes(45, self.names.unk.as_bytes());
        w.bytes(46, self.names.bos.as_bytes());
        w.bytes(47, self.names.eos.as_bytes());
        w.bytes(48, self.names.pad.as_bytes());
        w.bytes
    }
}

fn parse_piece(bytes: &[u8], pieces: &mut Unchecked) -> Result<()> {
    if let Some((text, score)) = plain_piece(bytes) {
        pieces.push(text, score, PieceKind::Normal);
        return Ok(());
    }
    let (mut text, mut score, mut kind): (&[u8], _, _) = (&[], 0.0, PieceKind::Normal);
    let mut fields = ProtoFields::new(bytes, "a piece");
    let mut read = || -> Result<()> {
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => text = value.bytes("its text")?,
                2 => score = value.float("its score")?,
                3 => kind = parse_kind(value)?,
                _ => {}
            }
        }
        Ok(())
    };
    read().map_err(|e| match e {
        Error::Malformed { what } => Error::malformed(format!("piece {}: {what}", pieces.len())),
        other => other,
    })?;
    pieces.push(text, score, kind);
    Ok(())
}

/// Reads the usual form of a piece: a text of less than 128 bytes, then a score, and nothing else.
fn plain_piece(bytes: &[u8]) -> Option<(&[u8], f32)> {
    let (&[0x0a, len @ ..0x80], rest) = bytes.split_first_chunk()? else { return None };
    let (text, &[0x15, ref score @ ..]) = rest.split_at_checked(len.into())? else { return None };
    Some((text, f32::from_le_bytes(score.try_into().ok()?)))
}

fn parse_kind(value: Value) -> Result<PieceKind> {
    let number = value.number("its type")?;
    let kind = usize::try_from(number).ok().and_then(|n| KINDS.get(n.wrapping_sub(1)));
    kind.copied().ok_or_else(|| Error::malformed(format!("type {number} does not exist")))
}

impl NormalizerSpec {
    fn parse(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = ProtoFields::new(bytes, "normalizer_spec");
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => self.name = value.text("normalizer name")?.into(),
                2 => self.precompiled_charsmap = value.bytes("precompiled_charsmap")?.into(),
                3 => self.add_dummy_prefix = value.flag("add_dummy_prefix")?,
                4 => self.remove_extra_whitespaces = value.flag("remove_extra_whitespaces")?,
                5 => self.escape_whitespaces = value.flag("escape_whitespaces")?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces::Piece;

    fn small() -> ModelFile {
        let piece = |text, score, kind| Piece { text, score, kind };
        ModelFile {
            pieces: Pieces::from_iter([
                piece("<unk>", 0.0, PieceKind::Unknown),
                piece("<s>", 0.0, PieceKind::Control),
                piece("▁a", -1.0, PieceKind::Normal),
                piece("<q>", 0.0, PieceKind::UserDefined),
            ]),
            byte_fallback: false,
            unk_surface: "?".into(),
            normalizer: NormalizerSpec { add_dummy_prefix: false, ..NormalizerSpec::default() },
            ..ModelFile::default()
        }
    }

    #[test]
    fn a_written_file_is_read_back() {
        assert_eq!(ModelFile::parse(&small().to_bytes()).unwrap(), small());
    }

    #[test]
    fn other_model_types_are_named() {
        let mut bytes = small().to_bytes();
        // The last trainer_spec wins: model_type = 1.
        bytes.extend_from_slice(&[0x12, 2, 0x18, 1]);
        let error = ModelFile::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains("unigram"), "{error}");
    }

    #[test]
    fn every_truncation_is_an_error_or_a_smaller_model() {
        let bytes = small().to_bytes();
        for len in 0..bytes.len() {
            if let Ok(model) = ModelFile::parse(&bytes[..len]) {
                assert!(model != small());
            }
        }
    }
}
