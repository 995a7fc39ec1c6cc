//! Training: learns a vocabulary from text and writes a model file that SentencePiece loads.
//!
//! Texts are normalized and cut into [`words`]. The frequent characters become pieces, and then, repeatedly, the most
//! frequent pair of neighbors does ([`pairs`]). The result depends on the texts and the settings only, not on the
//! number of threads or the order of the texts.

mod pairs;
mod words;

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::model_file::{ModelFile, NormalizerSpec};
use crate::pieces::{PieceKind, Pieces};

/// The settings of a training run.
#[derive(Clone, PartialEq, Debug)]
pub struct Trainer {
    /// The number of pieces, including control and byte pieces.
    pub vocab_size: usize,
    /// The share of the text that the characters with pieces of their own must cover. The rarest characters get none.
    pub character_coverage: f64,
    /// Characters without a piece become the bytes of their UTF-8 form, which takes 256 pieces.
    pub byte_fallback: bool,
    /// Pieces that are found in the text before any merging and never merge.
    pub user_defined: Vec<String>,
    /// Tokens that text never produces, after `<unk>`, `<s>` and `</s>`.
    pub control: Vec<String>,
    /// Digits never merge, so each digit of a number is a separate token.
    pub split_digits: bool,
    /// Learn pieces of several spaces, which are frequent in source code.
    pub whitespace_pieces: bool,
    /// The maximum length of a piece in characters.
    pub longest_piece: usize,
    /// How text is normalized, in training and by the model.
    pub normalizer: NormalizerSpec,
}

impl Default for Trainer {
    /// Llama's settings: byte fallback, single digits, a space before the text and no other change to it.
    fn default() -> Self {
        Self {
            vocab_size: 8000,
            character_coverage: 0.9995,
            byte_fallback: true,
            user_defined: Vec::new(),
            control: Vec::new(),
            split_digits: true,
            whitespace_pieces: true,
            longest_piece: 16,
            normalizer: NormalizerSpec {
                name: "identity".into(),
                remove_extra_whitespaces: false,
                ..NormalizerSpec::default()
            },
        }
    }
}

impl Trainer {
    /// Trains on `texts`, which are documents or lines. Pairs across two texts are not counted. NUL gets no piece, and
    /// neither does a text that is a special piece already.
    ///
    /// ```
    /// # fn main() -> Result<(), halfbyte_tokenizer::Error> {
    /// use halfbyte_tokenizer::{Tokenizer, Trainer};
    ///
    /// let lines = ["the king and the queen", "the queen and the knight"];
    /// let model = Trainer { vocab_size: 280, ..Trainer::default() }.train(&lines)?;
    /// let file: Vec<u8> = model.to_bytes(); // A tokenizer.model.
    /// let tokenizer = Tokenizer::from_bytes(&file)?;
    /// assert_eq!(tokenizer.decode(&tokenizer.encode("the king"))?, "the king");
    /// # Ok(())
    /// # }
    /// ```
    pub fn train<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<ModelFile> {
        let mut model = ModelFile {
            pieces: self.fixed_pieces()?,
            byte_fallback: self.byte_fallback,
            normalizer: self.normalizer.clone(),
            ..ModelFile::default()
        };
        let words = words::count(self, &model, texts)?;
        let mut chars = words::covered_chars(&words, self.character_coverage);
        // SentencePiece rejects duplicate pieces and pieces with NUL.
        let fixed: HashSet<String> = model.pieces.iter().map(|piece| piece.text.to_owned()).collect();
        let written =
            |text: &str| if self.normalizer.escape_whitespaces { text.replace(' ', "▁") } else { text.to_owned() };
        chars.retain(|c| *c != '\0' && !fixed.contains(&written(c.encode_utf8(&mut [0; 4]))));
        if chars.is_empty() {
            return Err(Error::train("the text is empty"));
        }
        let taken = model.pieces.len() + chars.len();
        let merges = self.vocab_size.checked_sub(taken).ok_or_else(|| {
            Error::train(format!(
                "vocab_size is {}, but special pieces, bytes and characters alone are {taken}; raise vocab_size or \
                 lower character_coverage",
                self.vocab_size
            ))
        })?;
        let learned = pairs::learn(&words, &chars, merges, self.longest_piece, |text| !fixed.contains(&written(text)));
        if learned.len() < merges {
            return Err(Error::train(format!(
                "vocab_size is {}, but the text has only {} pieces to offer; lower vocab_size or give more text",
                self.vocab_size,
                taken + learned.len()
            )));
        }
        // As in SentencePiece, the score of a piece is minus its rank, and characters come last.
        let texts = learned.into_iter().chain(chars.iter().map(char::to_string));
        for (rank, text) in texts.enumerate() {
            model.pieces.push(&written(&text), -(rank as f32), PieceKind::Normal);
        }
        Ok(model)
    }

    /// The pieces that are not learned: unknown, control, user-defined and byte pieces.
    fn fixed_pieces(&self) -> Result<Pieces> {
        if !(self.character_coverage > 0.0 && self.character_coverage <= 1.0) {
            return Err(Error::train(format!(
                "character_coverage is {}; it must be above 0 and at most 1",
                self.character_coverage
            )));
        }
        let mut pieces = Pieces::default();
        let mut add = |text: &str, kind| pieces.push(text, 0.0, kind);
        add("<unk>", PieceKind::Unknown);
        add("<s>", PieceKind::Control);
        add("</s>", PieceKind::Control);
        self.control.iter().for_each(|text| add(text, PieceKind::Control));
        self.user_defined.iter().for_each(|text| add(text, PieceKind::UserDefined));
        if self.byte_fallback {
            (0..=255).for_each(|byte: u8| add(&format!("<0x{byte:02X}>"), PieceKind::Byte));
        }
        let mut seen = HashSet::new();
        for piece in pieces.iter() {
            let wrong = match piece.text {
                "" => "is empty",
                text if text.contains('\0') => "has a NUL character, which SentencePiece does not read",
                text if !seen.insert(text) => "is given twice",
                _ => continue,
            };
            return Err(Error::train(format!("the special piece {:?} {wrong}", piece.text)));
        }
        Ok(pieces)
    }
}
