//! Encodes marked text into documents.

use std::ops::Range;
use std::path::Path;

use halfbyte_tokenizer::{PieceKind, SpaceRule, SpecialTokens, Tokenizer};

use crate::config::data::TrainOn;
use crate::data::markup::{Literals, MarkedPart, PartContent, SPARE, parts};
use crate::data::tokenizer_config::TokenizerConfig;
use crate::hub::TOKENIZERS;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::batch::{Document, IGNORED};

/// A tokenizer with the settings for documents.
pub struct Encoder {
    tokenizer: Tokenizer,
    settings: DocumentSettings,
    /// The token that begins a text.
    bos: Option<u32>,
    /// The token that templates call `bos_token`. Some models (SmolLM2) have one and do not begin texts with it.
    template_bos: Option<u32>,
    eos: Option<u32>,
    literals: Literals,
    /// Used to encode text that continues other text but begins with a space. A byte-level tokenizer needs no such
    /// detour, because it adds no space to a text.
    after_unknown: Option<SpecialTokens>,
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

/// Opens a tokenizer file, or the one in a folder; see [`TOKENIZERS`].
pub fn open_tokenizer(path: &Path) -> Result<Tokenizer> {
    let mut file = path.to_owned();
    if path.is_dir() {
        file = TOKENIZERS.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| {
            Error::input(format!("{} has none of {}", path.display(), TOKENIZERS.join(", "))).hint(
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
    /// An encoder. `config` names tokens beyond those of the tokenizer's own file.
    pub fn new(tokenizer: Tokenizer, settings: DocumentSettings, config: &TokenizerConfig) -> Result<Encoder> {
        let pieces = tokenizer.pieces().iter().zip(0..);
        let special = pieces.filter(|(piece, _)| matches!(piece.kind, PieceKind::Control | PieceKind::Unknown));
        let mut all: Vec<(String, u32)> = special.map(|(piece, id)| (piece.text.to_owned(), id)).collect();
        // A byte-level tokenizer finds its other added tokens (`<think>`) in every text.
        let found = |text: &str| tokenizer.is_byte_level() && tokenizer.id_of(text).is_some();
        let known = |text: &str| all.iter().any(|(t, _)| t == text) || found(text);
        let new: Vec<_> = config.added.iter().filter(|(text, _)| !known(text)).cloned().collect();
        all.extend(new);
        let literals = Literals::new(all);
        let token = |key: &str, name: &Option<String>, other: Option<u32>| match name {
            None => Ok(other),
            Some(name) => literals.id(name).map(Some).ok_or_else(|| {
                Error::input(format!("tokenizer_config.json: the tokenizer has no token {name:?} ({key})"))
            }),
        };
        let eos = token("eos_token", &config.eos, tokenizer.eos())?;
        let template_bos = token("bos_token", &config.bos, tokenizer.bos())?;
        let unknown = |id| SpecialTokens::new(SpaceRule::FirstPart).with(&SPARE.to_string(), id);
        let after_unknown = tokenizer.unk().map(unknown);
        Ok(Encoder { bos: tokenizer.bos(), template_bos, eos, tokenizer, settings, literals, after_unknown })
    }

    /// An encoder with the tokenizer of a model folder and the tokens that its `config` names.
    pub fn open(folder: &Path, config: &TokenizerConfig, settings: DocumentSettings) -> Result<Encoder> {
        Encoder::new(open_tokenizer(folder)?, settings, config)
    }

    /// Makes all documents end with the end token.
    pub fn always_end(&mut self) {
        self.settings.add_eos = true;
    }

    /// Makes all documents begin with the begin token, also if the tokenizer's own file does not ask for it. Errors if
    /// there is no such token.
    pub fn always_begin(&mut self) -> Result<()> {
        self.settings.add_bos = true;
        self.bos = self.bos.or(self.template_bos);
        match self.bos {
            Some(_) => Ok(()),
            None => Err(Error::usage("`add_bos_token` is true, but the tokenizer has no begin token")
                .hint("remove add_bos_token: this model's texts begin without one")),
        }
    }

    /// The tokenizer that documents are encoded with.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The settings for documents.
    pub fn settings(&self) -> DocumentSettings {
        self.settings
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that templates call `bos_token`.
    pub fn template_bos(&self) -> Option<u32> {
        self.template_bos
    }

    /// The end token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The special tokens and their text.
    pub fn literals(&self) -> &Literals {
        &self.literals
    }

    /// The text of a token as the tokenizer's file writes it: `▁` or `Ġ` is a space.
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

    /// The special token that ends the answer at the end of a document: the last token, or the one before final white
    /// space, as in ChatML. `None` if it is not trained, because generation then does not learn to stop.
    pub fn answer_end(&self, document: &Document) -> Option<u32> {
        let (last, before) = document.ids.split_last()?;
        let is_space = |id: u32| self.tokenizer.decode(&[id]).is_ok_and(|text| text.trim().is_empty());
        let special = |id: u32| self.literals.literal(id).is_some();
        let at = match special(*last) {
            true => before.len(),
            false => before.len().checked_sub(1).filter(|at| is_space(*last) && special(before[*at]))?,
        };
        (document.labels[at] != IGNORED).then_some(document.ids[at])
    }

    /// The tokens of a marked text to be continued, without the end token.
    pub fn prompt(&self, marked: &str) -> Vec<u32> {
        self.begun(marked, TrainOn::All).0.ids
    }

    /// The document without an end token, and whether its last part is trained on.
    fn begun(&self, marked: &str, train_on: TrainOn) -> (Document, bool) {
        let mut document = Document::default();
        let mut trained = train_on == TrainOn::All;
        let begin = self.bos.filter(|_| self.settings.add_bos);
        let parts = parts(marked, train_on, self.settings.legacy);
        for run in parts.chunk_by(|before, after| self.is_encoded_with(before, after)) {
            let encoded = self.encode_run(run, train_on);
            if document.ids.is_empty() && begin.is_some() && encoded.ids.first() != begin.as_ref() {
                document.push(&begin.map_or([0], |id| [id]), train_on == TrainOn::All);
            }
            document.ids.extend(encoded.ids);
            document.labels.extend(encoded.labels);
            trained = run.last().is_some_and(|part| part.trained);
        }
        (document, trained)
    }

    /// Whether the texts of two neighboring parts are encoded as one text. With a byte-level tokenizer they are, so that
    /// a mask does not change the tokens.
    fn is_encoded_with(&self, before: &MarkedPart, after: &MarkedPart) -> bool {
        let text = matches!(before.content, PartContent::Text { .. });
        self.tokenizer.is_byte_level() && text && matches!(after.content, PartContent::Text { apart: false, .. })
    }

    /// Encodes a token, a text, or several texts as one. A token of several texts is trained if any character of it is,
    /// as in the masks of transformers.
    fn encode_run(&self, run: &[MarkedPart], train_on: TrainOn) -> Document {
        let mut document = Document::default();
        if let [MarkedPart { content, trained }] = run {
            match content {
                // A begin token is never a training target: within an answer it would begin the next text.
                PartContent::Token(id) => {
                    document.push(&[*id], *trained && (train_on == TrainOn::All || self.bos != Some(*id)));
                }
                PartContent::Text { text, apart: true } => document.push(&self.tokenizer.encode(text), *trained),
                PartContent::Text { text, apart: false } => document.push(&self.continued(text), *trained),
            }
            return document;
        }
        let mut joined = String::new();
        let mut trained = Vec::new();
        for part in run {
            let PartContent::Text { text, .. } = &part.content else { continue };
            let start = joined.len();
            joined += text;
            if part.trained {
                trained.push(start..joined.len());
            }
        }
        for token in self.tokenizer.encode_with_offsets(&joined) {
            let touches = |range: &Range<usize>| token.span.start < range.end && range.start < token.span.end;
            document.push(&[token.id], trained.iter().any(touches));
        }
        document
    }

    /// Encodes text that continues other text: no space is prepended, and leading spaces are kept.
    fn continued(&self, text: &str) -> Vec<u32> {
        let Some(after_unknown) = self.after_unknown.as_ref().filter(|_| text.starts_with([' ', '▁'])) else {
            return self.tokenizer.encode_continuation(text);
        };
        // Some models drop spaces at the beginning of a text, but this is a continuation.
        let mut ids = self.tokenizer.encode_special(&format!("{SPARE}{text}"), after_unknown);
        ids.remove(0);
        ids
    }

    /// Whether the text contains the literal text of the begin or end token. Usually the template was meant to produce
    /// the token itself.
    pub fn has_literal(&self, marked: &str) -> bool {
        [self.bos, self.eos].into_iter().flatten().any(|id| marked.contains(self.piece(id)))
    }
}
