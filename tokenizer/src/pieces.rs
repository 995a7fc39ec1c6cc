//! The entries of a vocabulary. They are stored compactly, because loading a tokenizer mostly waits for fresh memory.

use std::fmt;

/// How a SentencePiece vocabulary writes a space.
pub(crate) const SPACE_MARK: char = '▁';

/// The role of a piece in encoding and decoding, as SentencePiece's `.model` format defines it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceKind {
    /// An ordinary piece, produced by merging.
    Normal,
    /// The one piece for text that the vocabulary cannot express (`<unk>`).
    Unknown,
    /// A token that text never produces and that decodes to nothing (`<s>`).
    Control,
    /// A literal that is found in the text before any merging and never merges with its neighbors.
    UserDefined,
    /// A piece that merges like a normal one and is then split again into the two pieces that it was merged from.
    Unused,
    /// A single byte (`<0x0A>`).
    Byte,
}

/// An entry of the vocabulary. Its index in the file is its id.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Piece<'a> {
    /// The text as it is in the file, with `▁` or `Ġ` for a space.
    pub text: &'a str,
    /// Merging produces the piece with the highest score first. It is 0 in files that list their merges instead.
    pub score: f32,
    /// The role of the piece in encoding and decoding.
    pub kind: PieceKind,
}

/// The vocabulary in the order of the ids.
#[derive(Clone, PartialEq, Default)]
pub struct Pieces {
    /// All texts, one after the other.
    texts: String,
    /// The end offset of each text. It begins where the previous text ends.
    ends: Vec<usize>,
    scores: Vec<f32>,
    kinds: Vec<PieceKind>,
}

/// Pieces whose texts have not been checked for UTF-8. Checking all of them at once is cheaper.
#[derive(Default)]
pub(crate) struct Unchecked {
    texts: Vec<u8>,
    /// Everything but the texts.
    pieces: Pieces,
}

impl Unchecked {
    /// An empty list with room for `count` pieces and `bytes` of text in all.
    pub(crate) fn with_capacity(count: usize, bytes: usize) -> Self {
        let pieces = Pieces {
            texts: String::new(),
            ends: Vec::with_capacity(count),
            scores: Vec::with_capacity(count),
            kinds: Vec::with_capacity(count),
        };
        Self { texts: Vec::with_capacity(bytes), pieces }
    }

    /// Adds a piece.
    #[inline]
    pub(crate) fn push(&mut self, text: &[u8], score: f32, kind: PieceKind) {
        self.texts.extend_from_slice(text);
        self.pieces.ends.push(self.texts.len());
        self.pieces.scores.push(score);
        self.pieces.kinds.push(kind);
    }

    /// The number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The pieces, or the index of the first whose text is not UTF-8.
    pub(crate) fn check(self) -> Result<Pieces, usize> {
        let Self { texts, mut pieces } = self;
        match String::from_utf8(texts) {
            Ok(texts) if pieces.ends.iter().all(|end| texts.is_char_boundary(*end)) => {
                pieces.texts = texts;
                Ok(pieces)
            }
            Ok(texts) => Err(pieces.first_not_utf8(texts.as_bytes())),
            Err(error) => Err(pieces.first_not_utf8(error.as_bytes())),
        }
    }
}

impl Pieces {
    /// The first piece whose text in `texts` is not UTF-8.
    fn first_not_utf8(&self, texts: &[u8]) -> usize {
        let text = |id: usize| &texts[id.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[id]];
        (0..self.len()).find(|id| std::str::from_utf8(text(*id)).is_err()).unwrap_or_default()
    }

    /// Adds a piece. Its id is the number of pieces before it.
    pub fn push(&mut self, text: &str, score: f32, kind: PieceKind) {
        self.texts.push_str(text);
        self.ends.push(self.texts.len());
        self.scores.push(score);
        self.kinds.push(kind);
    }

    /// Changes the kind of a piece that exists.
    pub(crate) fn set_kind(&mut self, id: u32, kind: PieceKind) {
        self.kinds[id as usize] = kind;
    }

    /// The number of pieces.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there are no pieces.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The piece with this id.
    pub fn get(&self, id: u32) -> Option<Piece<'_>> {
        ((id as usize) < self.len()).then(|| self.at(id as usize))
    }

    /// The pieces in the order of their ids.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Piece<'_>> + ExactSizeIterator + Clone {
        (0..self.len()).map(|id| self.at(id))
    }

    /// The scores in the order of the ids.
    pub(crate) fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The kinds in the order of the ids.
    pub(crate) fn kinds(&self) -> &[PieceKind] {
        &self.kinds
    }

    /// All texts, one after the other.
    pub(crate) fn texts(&self) -> &str {
        &self.texts
    }

    /// The text of a piece that exists.
    pub(crate) fn text(&self, id: usize) -> &str {
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[start..self.ends[id]]
    }

    fn at(&self, id: usize) -> Piece<'_> {
        Piece { text: self.text(id), score: self.scores[id], kind: self.kinds[id] }
    }
}

impl<'a> FromIterator<Piece<'a>> for Pieces {
    fn from_iter<I: IntoIterator<Item = Piece<'a>>>(pieces: I) -> Self {
        let mut all = Self::default();
        pieces.into_iter().for_each(|piece| all.push(piece.text, piece.score, piece.kind));
        all
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Appends `text`; with `escape`, each `▁` becomes a space.
pub(crate) fn push_spaced(out: &mut String, mut text: &str, escape: bool) {
    while escape && let Some(rest) = text.strip_prefix(SPACE_MARK) {
        out.push(' ');
        text = rest;
    }
    // Most texts do not contain the first byte of the mark, and searching for one byte is cheaper.
    while escape
        && text.as_bytes().contains(&0xe2)
        && let Some(at) = text.find(SPACE_MARK)
    {
        out.push_str(&text[..at]);
        out.push(' ');
        text = &text[at + SPACE_MARK.len_utf8()..];
    }
    out.push_str(text);
}

/// The byte that a piece of the form `<0x0A>` stands for.
pub(crate) fn byte_of(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let valid = hex.len() == 2 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    valid.then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}
