//! Encodes marked text into documents.

use std::path::Path;

use halfbyte_tokenizer::{PieceKind, SpaceRule, SpecialTokens, Tokenizer};

use crate::config::data::TrainOn;
use crate::data::markup::{Literals, PartContent, SPARE, parts};
use crate::data::tokenizer_config::TokenizerConfig;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::batch::Document;

/// A tokenizer with the settings for documents.
pub struct Encoder {
    tokenizer: Tokenizer,
    settings: DocumentSettings,
    bos: Option<u32>,
    eos: Option<u32>,
    literals: Literals,
    /// Used to encode text that continues other text but begins with a space.
    after_unknown: SpecialTokens,
}

/// The settings for documents. The model's defaults are in its `tokenizer_config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DocumentSettings {
    /// Prepend the begin token, unless the text already begins with it.
    pub add_bos: bool,
    /// Append the end token, unless the text already ends with it.
    pub add_eos: bool,
    /// Prepend a space to text after a special token, as in transformers with `legacy=True`.
    pub legacy: bool,
}

/// Opens a tokenizer file, or the one in a folder. `tokenizer.model` takes precedence over `tokenizer.json`.
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer> {
    let mut file = path.to_owned();
    if path.is_dir() {
        let names = ["tokenizer.model", "tokenizer.json"];
        file = names.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| {
            Error::input(format!("{} has neither tokenizer.model nor tokenizer.json", path.display())).hint(
                "download one of them from the model's page into the folder; a recipe may name another folder as \
                     tokenizer_name_or_path",
            )
        })?;
    }
    if !file.exists() {
        return Err(Error::input(format!("there is no file or folder {}", path.display()))
            .hint("name tokenizer.model, tokenizer.json, or the folder of one of them"));
    }
    let json = file.extension().is_some_and(|e| e == "json");
    let tokenizer = if json { Tokenizer::open_json(&file) } else { Tokenizer::open(&file) };
    tokenizer.map_err(|e| Error::input(e.to_string()))
}

impl Encoder {
    /// An encoder. `added` are tokens beyond those of the tokenizer's model file; `eos` is the text of the end token if
    /// it differs from the model file's.
    pub fn new(
        tokenizer: Tokenizer,
        settings: DocumentSettings,
        added: &[(String, u32)],
        eos: Option<&str>,
    ) -> Result<Encoder> {
        let pieces = tokenizer.pieces().iter().zip(0..);
        let special = pieces.filter(|(piece, _)| matches!(piece.kind, PieceKind::Control | PieceKind::Unknown));
        let mut all: Vec<(String, u32)> = special.map(|(piece, id)| (piece.text.to_owned(), id)).collect();
        all.extend(added.iter().filter(|(text, _)| !all.iter().any(|(t, _)| t == text)).cloned().collect::<Vec<_>>());
        let literals = Literals::new(all);
        let eos = match eos {
            None => tokenizer.eos(),
            Some(name) => Some(literals.id(name).ok_or_else(|| {
                Error::input(format!("tokenizer_config.json: the tokenizer has no token {name:?} (eos_token)"))
            })?),
        };
        let after_unknown = SpecialTokens::new(SpaceRule::FirstPart).with(&SPARE.to_string(), tokenizer.unk());
        Ok(Encoder { bos: tokenizer.bos(), eos, tokenizer, settings, literals, after_unknown })
    }

    /// An encoder with the tokenizer of a model folder and the tokens that its `config` names.
    pub fn open(folder: &Path, config: &TokenizerConfig, settings: DocumentSettings) -> Result<Encoder> {
        Encoder::new(open_tokenizer(folder)?, settings, &config.added, config.eos.as_deref())
    }

    /// Makes all documents end with the end token.
    pub fn always_end(&mut self) {
        self.settings.add_eos = true;
    }

    /// The tokenizer that documents are encoded with.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The settings for documents.
    pub fn settings(&self) -> DocumentSettings {
        self.settings
    }

    /// The begin token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The special tokens and their text.
    pub fn literals(&self) -> &Literals {
        &self.literals
    }

    /// The text of a token for display: `▁` is a space.
    pub fn piece(&self, id: u32) -> &str {
        self.tokenizer.piece(id).or_else(|| self.literals.literal(id)).unwrap_or("?")
    }

    /// Encodes marked text. The begin and end tokens appear exactly once if the settings ask for them.
    pub fn document(&self, marked: &str, train_on: TrainOn) -> Document {
        let (mut document, trained) = self.begun(marked, train_on);
        if let Some(end) = self.eos.filter(|_| self.settings.add_eos)
            && !document.ids.is_empty()
            && document.ids.last() != Some(&end)
        {
            document.push(&[end], trained);
        }
        document
    }

    /// The tokens of a marked text to be continued, without the end token.
    pub fn prompt(&self, marked: &str) -> Vec<u32> {
        self.begun(marked, TrainOn::All).0.ids
    }

    /// The document without an end token, and whether its last part is trained on.
    fn begun(&self, marked: &str, train_on: TrainOn) -> (Document, bool) {
        let mut document = Document::default();
        let mut ids = Vec::new();
        let mut trained = train_on == TrainOn::All;
        let begin = self.bos.filter(|_| self.settings.add_bos);
        for part in parts(marked, train_on, self.settings.legacy) {
            ids.clear();
            match part.content {
                PartContent::Token(id) => ids.push(id),
                PartContent::Text { text, apart: true } => self.tokenizer.encode_into(&text, &mut ids),
                PartContent::Text { text, apart: false } => ids = self.continued(&text),
            }
            if document.ids.is_empty() && begin.is_some() && ids.first() != begin.as_ref() {
                document.push(&begin.map_or([0], |id| [id]), train_on == TrainOn::All);
            }
            // A begin token is never a training target: within an answer it would begin the next text.
            let given = self.bos.is_some_and(|bos| ids == [bos]);
            document.push(&ids, part.trained && (train_on == TrainOn::All || !given));
            trained = part.trained;
        }
        (document, trained)
    }

    /// Encodes text that continues other text: no space is prepended, and leading spaces are kept.
    fn continued(&self, text: &str) -> Vec<u32> {
        if !text.starts_with([' ', '▁']) {
            return self.tokenizer.encode_continuation(text);
        }
        // Some models drop spaces at the beginning of a text, but this is a continuation.
        let mut ids = self.tokenizer.encode_special(&format!("{SPARE}{text}"), &self.after_unknown);
        ids.remove(0);
        ids
    }

    /// Whether the text contains the literal text of the begin or end token. Usually the template was meant to produce
    /// the token itself.
    pub fn has_literal(&self, marked: &str) -> bool {
        [self.bos, self.eos].into_iter().flatten().any(|id| marked.contains(self.piece(id)))
    }
}
