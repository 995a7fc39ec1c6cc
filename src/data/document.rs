//! From marked text to a document: the tokenizer's part.

use halfbyte_tokenizer::{SpaceRule, SpecialTokens, Tokenizer};

use crate::data::batch::{Document, IGNORED};
use crate::data::marks::{Content, Literals, SPARE, Scope, parts};

/// A tokenizer with the settings under which it makes documents.
pub struct Encoder {
    tokenizer: Tokenizer,
    settings: Settings,
    /// For text that begins with a space but continues something.
    after_unknown: SpecialTokens,
}

/// The settings; the defaults of a model are in its `tokenizer_config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Put the begin token in front, unless it is there.
    pub add_bos: bool,
    /// Put the end token at the end, unless it is there.
    pub add_eos: bool,
    /// Text after a token gets a space in front, as transformers' `legacy=True` has it.
    pub legacy: bool,
}

impl Encoder {
    /// An encoder.
    pub fn new(tokenizer: Tokenizer, settings: Settings) -> Encoder {
        let after_unknown = SpecialTokens::new(SpaceRule::FirstPart).with(&SPARE.to_string(), tokenizer.unk());
        Encoder { tokenizer, settings, after_unknown }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The special tokens and their text.
    pub fn literals(&self) -> Literals {
        use halfbyte_tokenizer::PieceKind::{Control, Unknown};
        let pieces = self.tokenizer.pieces().iter().zip(0..);
        let special = pieces.filter(|(piece, _)| matches!(piece.kind, Control | Unknown));
        Literals::new(special.map(|(piece, id)| (piece.text.clone(), id)).collect())
    }

    /// The document of a marked text, with the begin and end tokens exactly once.
    pub fn document(&self, marked: &str, scope: Scope) -> Document {
        let mut document = Document::default();
        let mut ids = Vec::new();
        let mut trained = scope == Scope::All;
        let begin = self.tokenizer.bos().filter(|_| self.settings.add_bos);
        for part in parts(marked, scope, self.settings.legacy) {
            ids.clear();
            match part.content {
                Content::Token(id) => ids.push(id),
                Content::Text { text, apart: true } => self.tokenizer.encode_into(&text, &mut ids),
                Content::Text { text, apart: false } => ids = self.continued(&text),
            }
            if document.ids.is_empty() && begin.is_some() && ids.first() != begin.as_ref() {
                document.push(&begin.map_or([0], |id| [id]), scope == Scope::All);
            }
            // A begin token is given, never predicted: in the middle of an answer it would be the next text's.
            let given = self.tokenizer.bos().is_some_and(|bos| ids == [bos]);
            document.push(&ids, part.trained && (scope == Scope::All || !given));
            trained = part.trained;
        }
        if let Some(end) = self.tokenizer.eos().filter(|_| self.settings.add_eos)
            && !document.ids.is_empty()
            && document.ids.last() != Some(&end)
        {
            document.push(&[end], trained);
        }
        document
    }

    /// Text that continues what is before it: no space is put in front, and one that is there is kept.
    fn continued(&self, text: &str) -> Vec<u32> {
        if !text.starts_with([' ', '▁']) {
            return self.tokenizer.encode_continuation(text);
        }
        // Some models drop spaces at the beginning of a text, and here it only looks like one.
        let mut ids = self.tokenizer.encode_special(&format!("{SPARE}{text}"), &self.after_unknown);
        ids.remove(0);
        ids
    }

    /// Whether the text of the begin or end token stands somewhere as text: often a template that was meant to hold
    /// the token.
    pub fn has_literal(&self, marked: &str) -> bool {
        let literals = [self.tokenizer.bos(), self.tokenizer.eos()].into_iter().flatten();
        literals.filter_map(|id| self.tokenizer.piece(id)).any(|literal| marked.contains(literal))
    }
}

impl Document {
    fn push(&mut self, ids: &[u32], trained: bool) {
        self.ids.extend(ids);
        self.labels.extend(ids.iter().map(|&id| if trained { id as i32 } else { IGNORED }));
    }
}
